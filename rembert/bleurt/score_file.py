"""The scores of a run on disk, each in its pair's place: what an interrupted run goes on from, and where several
processes put theirs.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import numpy as np

from rembert.bleurt.scorer import Score
from rembert.common.files import atomic_path

TODO, DONE, CUT = 0, 1, 2  # a record's state; `CUT` is done, and its texts were cut

# The state comes last: a record whose writing was cut off is still to do.
_RECORD = np.dtype([("value", "<f8"), ("state", "u1")])
_DIGEST = 32  # bytes at the file's start: what the scores are of
_AT_ONCE = 1 << 16  # records


class ScoreFile:
    """A file with a record for each pair. Made by `open_or_make`; other processes open it.

    Attributes:
        path: the file.
        count: how many pairs there are.
    """

    def __init__(self, path: Path, count: int) -> None:
        self.path = path
        self.count = count
        self._written = path.open("r+b")
        self._read_anew = path.open("rb", buffering=0)  # a buffer would hide what other processes have written

    @classmethod
    def open_or_make(cls, path: Path, digest: bytes, count: int) -> ScoreFile:
        """The file of this run, with the scores it holds already; a new one where it is missing or of another run.

        Args:
            path: where it stands, or shall stand.
            digest: [32] what decides the scores: model and texts.
            count: pairs.
        """
        if not _belongs(path, digest, count):
            with atomic_path(path) as temporary, temporary.open("wb") as file:
                file.write(digest)
                file.truncate(_DIGEST + count * _RECORD.itemsize)  # zeros: all of them to do
        return cls(path, count)

    def states(self, start: int, stop: int) -> np.ndarray:
        """The states [stop - start] of some pairs: `TODO`, `DONE` or `CUT`."""
        return self._read(start, stop)["state"]

    def put(self, numbers: Sequence[int], scores: Sequence[Score]) -> None:
        """Write the scores of the pairs with these numbers. A record is written whole or is still to do."""
        found = sorted(zip(numbers, scores, strict=True))
        for _, run in groupby(enumerate(found), key=lambda item: item[1][0] - item[0]):  # neighbours in one write
            records = [item for _, item in run]
            content = np.array([(value, CUT if cut else DONE) for _, (value, cut) in records], _RECORD)
            self._written.seek(_DIGEST + records[0][0] * _RECORD.itemsize)
            self._written.write(content.tobytes())
        self._written.flush()

    def scores(self) -> Iterator[Score]:
        """All scores in order, once all are there."""
        for start in range(0, self.count, _AT_ONCE):
            records = self._read(start, min(start + _AT_ONCE, self.count))
            yield from map(Score, records["value"].tolist(), (records["state"] == CUT).tolist())

    def done(self) -> int:
        """How many scores are there."""
        starts = range(0, self.count, _AT_ONCE)
        return sum(int((self.states(start, min(start + _AT_ONCE, self.count)) != TODO).sum()) for start in starts)

    def close(self) -> None:
        """Let go of the file, which stays."""
        self._written.close()
        self._read_anew.close()

    def _read(self, start: int, stop: int) -> np.ndarray:
        self._read_anew.seek(_DIGEST + start * _RECORD.itemsize)
        return np.frombuffer(self._read_anew.read((stop - start) * _RECORD.itemsize), _RECORD)


def _belongs(path: Path, digest: bytes, count: int) -> bool:
    """Whether a file of scores is there, complete in length, and of this run."""
    try:
        with path.open("rb") as file:
            start = file.read(_DIGEST)
            size = os.fstat(file.fileno()).st_size
    except FileNotFoundError:
        return False
    return start == digest and size == _DIGEST + count * _RECORD.itemsize
