"""Rows that are too many for the memory: on disk in a temporary file, read when they are asked for."""

from __future__ import annotations

import pickle
import tempfile
from array import array
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Spool(Generic[Item]):
    """Objects in the order they came, in a file without a name under `TMPDIR`; in memory eight bytes for each.

    The file is gone when the spool is, and when the process is, however it ends. Its content is pickled: nobody else
    can write there.

    Args:
        items: read once, here.

    Raises:
        OSError: the disk is full or refuses.
    """

    def __init__(self, items: Iterable[Item]) -> None:
        self._file = tempfile.TemporaryFile(prefix="rembert-")  # noqa: SIM115 (closed with the spool)
        self._ends = array("Q", [0])
        for item in items:
            self._ends.append(self._ends[-1] + self._file.write(pickle.dumps(item, pickle.HIGHEST_PROTOCOL)))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, number: int) -> Item:
        """The item of a number from 0."""
        start, end = self._ends[number], self._ends[number + 1]
        self._file.seek(start)
        item: Item = pickle.loads(self._file.read(end - start))
        return item

    def __iter__(self) -> Iterator[Item]:
        return map(self.__getitem__, range(len(self)))

    def close(self) -> None:
        """Let go of the file, and of what it held."""
        self._file.close()
