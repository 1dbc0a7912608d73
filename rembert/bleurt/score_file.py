"""The scores of a run on disk, one record per pair. An interrupted run resumes from them, and processes share them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from rembert.bleurt.scorer import Score
from rembert.common.files import atomic_path

TODO, DONE, CUT = 0, 1, 2  # a record's state; `CUT` is done with truncated texts

# The state comes last: an incompletely written record is still to do.
_RECORD = np.dtype([("value", "<f8"), ("state", "u1")])
_DIGEST = 32  # bytes at the file's start: of the model and the texts
_AT_ONCE = 1 << 16  # records


class ScoreFile:
    """A file with a record for each pair. The first process calls `open_or_create`; the others open it.

    Attributes:
        path: the file.
        count: the number of pairs.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self._writer = path.open("r+b")
        self._reader = path.open("rb", buffering=0)  # a buffer would hide what other processes write

    @classmethod
    def open_or_create(cls, path: Path, digest: bytes, count: int) -> ScoreFile:
        """The file of this run with its scores; a new file if it is missing or belongs to another run.

        Args:
            path: of the file.
            digest: 32 bytes that identify the model and the texts.
            count: the number of pairs.
        """
        if not _belongs(path, digest, count):
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                file.write(digest)
                file.truncate(_DIGEST + count * _RECORD.itemsize)  # zeros: all records are TODO
        return cls(path, count)

    def states(self, start: int, stop: int) -> np.ndarray:
        """The states [stop - start] of the pairs from `start` to `stop`: `TODO`, `DONE` or `CUT`."""
        return self._read(start, stop)["state"]

    def put(self, numbers: Sequence[int], scores: Sequence[Score]) -> None:
        """Write the scores of the pairs with these indexes."""
        found = sorted(zip(numbers, scores, strict=True))
        for _, run in groupby(
            enumerate(found), key=lambda item: item[1][0] - item[0]
        ):  # adjacent records in one write
            records = [item for _, item in run]
            content = np.array([(value, CUT if cut else DONE) for _, (value, cut) in records], _RECORD)
            self._writer.seek(_DIGEST + records[0][0] * _RECORD.itemsize)
            self._writer.write(content.tobytes())
        self._writer.flush()

    def scores(self) -> Iterator[Score]:
        """All scores in order, when all are done."""
        for start in range(0, self.count, _AT_ONCE):
            records = self._read(start, min(start + _AT_ONCE, self.count))
            yield from map(Score, records["value"].tolist(), (records["state"] == CUT).tolist())

    def done(self) -> int:
        """The number of scores that are done."""
        starts = range(0, self.count, _AT_ONCE)
        return sum(int((self.states(start, min(start + _AT_ONCE, self.count)) != TODO).sum()) for start in starts)

    def close(self) -> None:
        """Close the file; it is not deleted."""
        self._writer.close()
        self._reader.close()

    def _read(self, start: int, stop: int) -> np.ndarray:
        self._reader.seek(_DIGEST + start * _RECORD.itemsize)
        return np.frombuffer(self._reader.read((stop - start) * _RECORD.itemsize), _RECORD)


def _belongs(path: Path, digest: bytes, count: int) -> bool:
    """Whether the file exists, has its full length, and belongs to this run."""
    try:
        with path.open("rb") as file:
            start = file.read(_DIGEST)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return False
    return start == digest and size == _DIGEST + count * _RECORD.itemsize
