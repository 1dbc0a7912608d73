"""The scores of a run on disk, one record per pair. An interrupted run resumes from them, and processes share them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path
from typing import BinaryIO

import numpy as np

from rembert.bleurt.scorer import Score
from rembert.common.unfinished import open_unfinished

TODO, DONE, CUT = 0, 1, 2  # a record's state; `CUT` is done with truncated texts

# The state comes last: an incompletely written record is still to do.
_RECORD = np.dtype([("value", "<f8"), ("state", "u1")])
_AT_ONCE = 1 << 16  # records


class ScoreFile:
    """A file with a record for each pair. The first process creates or resumes it; the others open it.

    Args:
        path: the file.
        count: the number of pairs.
        stream: of the first process, from `open_unfinished`.

    Attributes:
        path: the file.
        count: the number of pairs.
    """

    def __init__(self, path: Path, count: int, stream: BinaryIO | None = None) -> None:
        self.path = path
        self.count = count
        self._writer = path.open("r+b") if stream is None else stream
        self._reader = path.open("rb", buffering=0)  # a buffer would hide what other processes write

    @classmethod
    def resume(cls, output: Path, kind: str, digest: bytes, count: int) -> ScoreFile:
        """The file of a run with its scores; a new file if the run is new. Arguments as for `open_unfinished`.

        Records that no run writes (another state, a score that is not finite) are to be computed again.

        Raises:
            InputError: another process is writing scores for the same output.
        """
        stream = open_unfinished(output, kind, digest)
        size = count * _RECORD.itemsize
        if stream.seek(0, os.SEEK_END) != size:
            stream.truncate(0)
            stream.truncate(size)  # zeros: all records are TODO
        _forget_damaged(stream)
        return cls(Path(stream.name), count, stream)

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
            self._writer.seek(records[0][0] * _RECORD.itemsize)
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
        self._reader.seek(start * _RECORD.itemsize)
        return np.frombuffer(self._reader.read((stop - start) * _RECORD.itemsize), _RECORD)


def _forget_damaged(stream: BinaryIO) -> None:
    stream.seek(0)
    while content := stream.read(_AT_ONCE * _RECORD.itemsize):
        records = np.frombuffer(bytearray(content), _RECORD)
        damaged = (records["state"] > CUT) | ~np.isfinite(records["value"])
        if damaged.any():
            records["state"][damaged] = TODO
            stream.seek(-len(content), os.SEEK_CUR)
            stream.write(records.tobytes())
            stream.flush()
