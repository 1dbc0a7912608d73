"""The steps of every export: write it into a new directory, compare it with the model, and report."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from rembert.bridge.atomic_directory import new_directory
from rembert.bridge.conversion import copy_companions
from rembert.common.config import RemBertConfig
from rembert.common.exporting import Exported, compare_export, is_export
from rembert.common.parameters import HEADS
from rembert.common.trials import Arrays

Run = Callable[[Arrays], Arrays]  # from inputs to outputs, by name


def write_export(
    target: str,
    directory: str | os.PathLike[str],
    write: Callable[[Path], list[str]],
    load: Callable[[Path], Run],
    expected: Run,
    *,
    config: RemBertConfig,
    head: str,
    dtype: str,
    tolerance: float,
    tokenizer_from: str | os.PathLike[str] | None,
    force: bool,
) -> Exported:
    """Write an export with its `config.json` into a new directory, which appears if the results are the model's.

    Args:
        target: a key of `EXPORT_TARGETS`.
        directory: the new directory.
        write: writes the graph into a directory; returns the names of its inputs.
        load: loads the graph from a directory, to run it.
        expected: runs the model.
        config: the model's.
        head: a key of `HEADS`.
        dtype: of the weights.
        tolerance: the largest difference allowed, relative to the largest magnitude in an output.
        tokenizer_from: the directory of a checkpoint whose tokenizer files are copied.
        force: replace an export at `directory`.

    Raises:
        InputError: `directory` exists.
        ExportError: the results differ from the model's; the directory is removed.
    """
    directory = Path(directory)
    with new_directory(directory, force=force, replaceable=is_export) as fresh:
        inputs = write(fresh)
        own = RemBertConfig.from_dict(config.to_dict(), dtype=dtype)
        own.architectures = [HEADS[head].architecture]
        own.save_pretrained(fresh)
        if tokenizer_from is not None:
            copy_companions(Path(tokenizer_from), fresh)
        shapes, differences = compare_export(config, head, expected, load(fresh), tolerance)
        files = sorted(path for path in fresh.rglob("*") if path.is_file())
        sizes = {path.relative_to(fresh).as_posix(): path.stat().st_size for path in files}
    return Exported(
        target=target,
        directory=directory,
        files=list(sizes),
        nbytes=sum(sizes.values()),
        inputs=inputs,
        outputs=list(differences),
        shapes=shapes,
        differences=differences,
    )
