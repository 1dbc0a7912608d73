"""Scoring of files: resumable, distributed over processes, in constant memory."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from pathlib import Path

import numpy as np

from rembert.bleurt.files import Segment, SegmentFiles, Survey
from rembert.bleurt.score_file import TODO, ScoreFile
from rembert.bleurt.scorer import WINDOW, RemBertScorer, Score
from rembert.common.dependencies import require_packages
from rembert.common.errors import DataError, InputError
from rembert.common.unfinished import unfinished_path

_WINDOWS_EACH = 4  # for each process, at least, to balance the work
_SMALLEST_WINDOW = 64
_POLL_SECONDS = 0.1
_BARRIER_TIMEOUT = timedelta(days=7)  # other processes may still be scoring; the default is half an hour


@dataclass(frozen=True)
class Process:
    """One of the processes that score the same files, as numbered by `torchrun`.

    Attributes:
        rank: its number, from 0; the first process collects the scores.
        world_size: the number of processes.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_environment(cls) -> Process:
        """The process that RANK and WORLD_SIZE describe; a single process if they are not set.

        Raises:
            InputError: they are not valid numbers.
        """
        rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
        if not (rank.isdecimal() and size.isdecimal() and int(rank) < int(size)):
            raise InputError(f"RANK must be a number below WORLD_SIZE. Received: RANK={rank} and WORLD_SIZE={size}.")
        return cls(int(rank), int(size))

    def wait_for_all(self) -> None:
        """Return when all processes have called this.

        Raises:
            MissingDependencyError: torch is not installed, which connects the processes.
            InputError: they cannot connect.
        """
        if self.world_size == 1:
            return
        require_packages("torch", needed_for="Scoring in several processes")
        import torch.distributed as distributed

        try:
            if not distributed.is_initialized():
                distributed.init_process_group(
                    "gloo", rank=self.rank, world_size=self.world_size, timeout=_BARRIER_TIMEOUT
                )  # fmt: skip
            distributed.barrier()
        except (ValueError, RuntimeError) as problem:
            raise InputError(
                f"The {self.world_size} processes must be able to connect: start them with `torchrun`. Received: "
                f"{str(problem).splitlines()[0]:.200}"
            ) from None


ALONE = Process()


@dataclass(frozen=True)
class ScoredSegment:
    """A segment with the score of each of its references."""

    segment: Segment
    scores: tuple[Score, ...]

    @property
    def best(self) -> float:
        """The highest score."""
        return max(score.value for score in self.scores)

    @property
    def mean(self) -> float:
        """The mean of the scores."""
        return sum(score.value for score in self.scores) / len(self.scores)

    @property
    def cut(self) -> int:
        """The number of truncated pairs."""
        return sum(score.was_cut for score in self.scores)


def score_files(
    scorer: RemBertScorer, files: SegmentFiles, survey: Survey, output: Path, *, kind: str = "scores",
    process: Process = ALONE,
    progress: Callable[[int, int], object] = lambda done, total: None,
    resumed: Callable[[int], object] = lambda done: None,
) -> ScoreFile:  # fmt: skip
    """Score the pairs of files into a file of scores.

    Scores that the file already holds are not computed again. The processes take windows of pairs in turn; the first
    process returns when all scores are done, any other when its own are.

    Args:
        scorer: the metric.
        files: what to score.
        survey: of the files.
        output: what the scores are for; the file is beside it.
        kind: the end of the file's name.
        process: this one.
        progress: called with the number of pairs done and the total.
        resumed: called once with the number of pairs that an earlier run has done.

    Raises:
        DataError: the files have changed since the survey.
        InputError: another run writes scores for the same output.
        CheckpointError: the model returns NaN or infinite scores.
    """
    digest = hashlib.blake2b(scorer.fingerprint + survey.digest, digest_size=32).digest()
    if process.rank == 0:
        scores = ScoreFile.resume(output, kind, digest, survey.pairs)
    process.wait_for_all()
    if process.rank != 0:
        scores = ScoreFile(unfinished_path(output, kind, digest), survey.pairs)
    resumed(scores.done())
    try:
        _score_windows(scorer, files, survey.pairs, scores, process, progress)
        while process.rank == 0 and (done := scores.done()) < survey.pairs:  # other processes are not done
            progress(done, survey.pairs)
            time.sleep(_POLL_SECONDS)
    except BaseException:
        scores.close()
        raise
    return scores


def _score_windows(
    scorer: RemBertScorer, files: SegmentFiles, count: int, scores: ScoreFile, process: Process,
    progress: Callable[[int, int], object],
) -> None:  # fmt: skip
    size = WINDOW
    if process.world_size > 1:
        size = min(WINDOW, max(_SMALLEST_WINDOW, -(-count // (_WINDOWS_EACH * process.world_size))))
    pairs = _pairs(files)
    done = scores.done()
    progress(done, count)
    for number, start in enumerate(range(0, count, size)):
        window = list(islice(pairs, size))
        if len(window) != min(size, count - start):
            raise DataError(f"{files.candidates}: the files have changed since scoring began. Start again.")
        if number % process.world_size != process.rank:
            continue
        todo = np.flatnonzero(scores.states(start, start + len(window)) == TODO).tolist()

        def keep(numbers: list[int], found: list[Score], start: int = start, todo: list[int] = todo) -> None:
            nonlocal done
            scores.put([start + todo[index] for index in numbers], found)
            done += len(numbers)
            progress(done, count)

        scorer.score_window([window[index] for index in todo], keep)


def scored_segments(files: SegmentFiles, scores: ScoreFile) -> Iterator[ScoredSegment]:
    """Every segment of the files with its scores."""
    values = scores.scores()
    for segment in files:
        yield ScoredSegment(segment, tuple(islice(values, len(segment.references))))


def _pairs(files: SegmentFiles) -> Iterator[tuple[str, str]]:
    for segment in files:
        for reference in segment.references:
            yield segment.candidate, reference
