"""A list on disk, for rows that do not fit in memory."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from rembert.common.files import naming_path

Item = TypeVar("Item")


class DiskList(Generic[Item]):
    """A read-only sequence in an unnamed temporary file under `TMPDIR`; in memory it takes eight bytes per item.

    The file disappears with the list, and with the process, however it ends. Items are pickled; no other process can
    write to the file.

    Args:
        items: read once, by the constructor.

    Raises:
        OSError: the disk is full or not writable.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._file = tempfile.TemporaryFile(prefix="rembert-")  # noqa: SIM115 (closed with the list)
        self._ends = array("Q", [0])
        with naming_path(tempfile.gettempdir()):
            for item in items:
                self._ends.append(self._ends[-1] + self._file.write(pickle.dumps(item, pickle.HIGHEST_PROTOCOL)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: int) -> Item:
        """The item at `index`, counted from 0."""
        start, end = self._ends[index], self._ends[index + 1]
        self._file.seek(start)
        item: Item = pickle.loads(self._file.read(end - start))
        return item

    def __iter__(self) -> Iterator[Item]:
        return map(self.__getitem__, range(len(self)))

    def close(self) -> None:
        """Delete the file."""
        self._file.close()
