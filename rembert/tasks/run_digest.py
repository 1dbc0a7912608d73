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
        companions = {file for pattern in _COMPANIONS for file in opened.directory.glob(pattern)}
        return sorted({*opened.files, *companions})


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
