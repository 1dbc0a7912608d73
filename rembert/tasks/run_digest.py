"""Whether two runs of a model over files give the same results: a digest of the model, the files and the settings."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from rembert import __version__
from rembert.bridge import open_checkpoint
from rembert.tasks.task import Task

_COMPANIONS = ("*.json", "*.model")  # configuration and tokenizer
_BLOCK = 2**20  # bytes
_SAMPLE = 2**12  # bytes of each block of a large file


def run_digest(
    task: Task,
    checkpoint: str | os.PathLike[str] | Sequence[str],
    data: Iterable[str | os.PathLike[str]],
    **settings: Any,
) -> bytes | None:
    """A digest of everything that the results of a run depend on; None if its data can be read only once.

    The content of the data counts, and the size and time of modification of each file of the checkpoint.

    Args:
        task: with its options and its maximum length.
        checkpoint: as for `open_checkpoint`; or several.
        data: files of examples; `-` is the standard input.
        **settings: everything else.

    Raises:
        OSError: a file cannot be read.
        CheckpointError: the checkpoint cannot be opened.
    """
    paths = [Path(path) for path in data]
    if not all(path.is_file() for path in paths):
        return None
    found = hashlib.blake2b(digest_size=32)
    options = {option.name: getattr(task, option.name, None) for option in task.options}
    chosen = {**settings, **options, "data": task.data, "max_length": task.max_length, "labels": task.labels}
    found.update(repr((__version__, task.name, sorted(chosen.items()))).encode())
    for each in [checkpoint] if isinstance(checkpoint, str | os.PathLike) else checkpoint:
        for file in checkpoint_files(each):
            status = file.stat()
            found.update(repr((file.name, status.st_size, status.st_mtime_ns)).encode())
    found.update(content_digest(paths))
    return found.digest()


def checkpoint_files(checkpoint: str | os.PathLike[str]) -> list[Path]:
    """The files that a checkpoint's results depend on, its configuration and tokenizer among them, sorted.

    Raises:
        CheckpointError: the checkpoint cannot be opened.
    """
    with open_checkpoint(checkpoint) as opened:
        return sorted({*opened.files, *_companions(opened.directory)})


def sampled_digests(checkpoint: Path, *, weights: bool) -> dict[str, str]:
    """A digest of each file of a checkpoint by its path in it, to notice that another one has taken its place.

    Of each MiB of a file between the first and the last, which count whole, only the beginning is read: a hundredth
    of the released size. Training changes every matrix that it trains, and a head is at the end of a file or at its
    beginning, so other weights are noticed; one number that is changed by hand need not be. The time of modification
    does not count: the same checkpoint may be downloaded or copied again on another machine.

    Args:
        checkpoint: a path.
        weights: whether the weights count, too.

    Raises:
        OSError: a file cannot be read.
        CheckpointError: the checkpoint cannot be opened.
    """
    directory = checkpoint if checkpoint.is_dir() else checkpoint.parent
    files = checkpoint_files(checkpoint) if weights else sorted(_companions(directory))
    return {os.path.relpath(file, directory): _sampled_digest(file) for file in files}


def _companions(directory: Path) -> set[Path]:
    return {file for pattern in _COMPANIONS for file in directory.glob(pattern)}


def _sampled_digest(file: Path) -> str:
    found, size = hashlib.blake2b(digest_size=16), file.stat().st_size
    found.update(str(size).encode())
    with file.open("rb", buffering=_SAMPLE) as stream:
        for start in range(0, size, _BLOCK):
            stream.seek(start)
            is_whole = start == 0 or start + 2 * _BLOCK > size
            found.update(stream.read(_BLOCK if is_whole else _SAMPLE))
    return found.hexdigest()


def content_digest(files: Iterable[Path]) -> bytes:
    """A digest of the content of files, in their order; their names do not count.

    Raises:
        OSError: a file cannot be read.
    """
    found = hashlib.blake2b(digest_size=32)
    for path in files:
        with path.open("rb") as stream:
            found.update(hashlib.file_digest(stream, hashlib.blake2b).digest())
    return found.digest()
