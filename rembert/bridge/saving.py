"""Write a checkpoint into a directory, in one file or in shards, so that it appears complete or not at all."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.formats import h5, keras3, pickle, safetensors
from rembert.bridge.heads import named_head
from rembert.bridge.shards import index_content, is_shard, parse_size, plan_shards
from rembert.bridge.streaming import Progress, silent
from rembert.bridge.tensors import TensorSource
from rembert.common.config import CONFIG_NAME, RemBertConfig
from rembert.common.dependencies import require_packages
from rembert.common.errors import CheckpointError, InputError
from rembert.common.files import atomic_path, write_json
from rembert.common.parameters import HEADS, Parameter, file_name, parameters

DEFAULT_SHARD_SIZE = "5GB"
TARGETS = ("pt", "tf", "keras", "torch-bin")


def save_safetensors(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    *,
    max_shard_size: int | str | None = DEFAULT_SHARD_SIZE,
    metadata: Mapping[str, str] | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write `model.safetensors`, or shards and `model.safetensors.index.json`, one tensor at a time.

    Args:
        directory: made where it is missing. Files of other names stay; an older layout of this format (shards where
            now one file stands, or the reverse) is removed once the new one is complete.
        tensors: what to write, under the names it gets.
        max_shard_size: bytes, text like "2GB", or None for a single file whatever its size.
        metadata: text kept in the files' headers; by default what transformers looks for, `{"format": "pt"}`.
        progress: called with the number of bytes just written.

    Returns:
        the files that were written.

    Raises:
        CheckpointError: a dtype that the format lacks, or a size that is none.
        OSError: the disk is full or refuses; what was in the directory before is untouched.
    """
    notes = {"format": "pt"} if metadata is None else metadata

    def write(path: Path, names: list[str], sharded: bool) -> None:
        safetensors.write(path, {name: tensors[name] for name in names}, notes, progress)

    ordered = {name: tensors[name] for name in sorted(tensors)}
    return _save(Path(directory), "model.safetensors", ordered, max_shard_size, write, str)


def save_h5(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    config: RemBertConfig,
    head: str,
    *,
    max_shard_size: int | str | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write `tf_model.h5` in the layout of transformers' TensorFlow classes, or shards of it and their index.

    Args:
        directory, max_shard_size, progress: as for `save_safetensors`.
        tensors: what to write, by canonical name, in PyTorch's orientation.
        config: gives the names their order and meaning.
        head: a key of `HEADS`; names the model in the file.

    Raises:
        CheckpointError: a tensor that is no parameter of this head, or a dtype that H5 lacks (bfloat16).
    """
    table = _h5_table(tensors, config, head)

    def write(path: Path, names: list[str], sharded: bool) -> None:
        h5.write(path, {name: tensors[name] for name in names}, table, head, shard=sharded, progress=progress)

    def listed(name: str) -> str:
        return h5.weight_name(table[name], head)

    ordered = {name: tensors[name] for name in table if name in tensors}
    return _save(Path(directory), "tf_model.h5", ordered, max_shard_size, write, listed)


def save_keras(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    config: RemBertConfig,
    head: str,
    *,
    progress: Progress = silent,
) -> list[Path]:
    """Write `model.weights.h5`, which `TFRemBert….load_weights` takes.

    Arguments and errors are those of `save_h5`; there are no shards.
    """
    table = _h5_table(tensors, config, head)

    def write(path: Path, names: list[str], sharded: bool) -> None:
        keras3.write(path, tensors, table, head, progress)

    return _save(Path(directory), "model.weights.h5", tensors, None, write, str)


def save_pickle(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, TensorSource],
    *,
    max_shard_size: int | str | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write `pytorch_model.bin` through `torch.save`, or shards of it and their index.

    Arguments and result are those of `save_safetensors`.

    Raises:
        MissingDependencyError: torch is not installed.
    """

    def write(path: Path, names: list[str], sharded: bool) -> None:
        pickle.write(path, {name: tensors[name] for name in names}, progress)

    return _save(Path(directory), "pytorch_model.bin", tensors, max_shard_size, write, str)


def save_checkpoint(
    directory: str | os.PathLike[str],
    tensors: Mapping[str, np.ndarray | TensorSource],
    config: RemBertConfig,
    *,
    to: str = "pt",
    head: str | None = None,
    max_shard_size: int | str | None = None,
    progress: Progress = silent,
) -> list[Path]:
    """Write weights in the format `to`, and `config.json`.

    Args:
        directory, max_shard_size, progress: as for `save_safetensors`.
        tensors: by canonical name, in PyTorch's orientation: arrays, or sources that are read when their turn comes.
        config: what the tensors mean.
        to: one of `TARGETS`.
        head: a key of `HEADS`; by default the one that `config.architectures` names.

    Returns:
        the files that were written.

    Raises:
        InputError: `to` or `head` is unknown, or no head is given.
        MissingDependencyError: the format needs torch, which is not installed.
        CheckpointError: a dtype that the format lacks, or a tensor that it has no place for.
    """
    check_target(to)
    head = named_head(config) if head is None else head
    if head not in HEADS:
        raise InputError(f"`head` must be one of {', '.join(HEADS)}. Received: `head={head!r}`.")
    sources = {
        name: tensor if isinstance(tensor, TensorSource) else TensorSource(tensor.shape, tensor.dtype, tensor.view)
        for name, tensor in tensors.items()
    }
    if to == "keras" and max_shard_size is not None:
        raise InputError(f"Keras weights are one file. Received: `max_shard_size={max_shard_size!r}`.")
    if to == "keras":
        files = save_keras(directory, sources, config, head, progress=progress)
    elif to == "tf":
        files = save_h5(directory, sources, config, head, max_shard_size=max_shard_size, progress=progress)
    else:
        save = save_pickle if to == "torch-bin" else save_safetensors
        own_names = {file_name(name, head): source for name, source in sources.items()}
        files = save(directory, own_names, max_shard_size=max_shard_size, progress=progress)
    config.save_pretrained(directory)
    return [*files, Path(directory) / CONFIG_NAME]


def check_target(to: str) -> None:
    """Refuse a format that cannot be written here.

    Raises:
        InputError: `to` is none of `TARGETS`.
        MissingDependencyError: the format needs torch, which is not installed.
    """
    if to not in TARGETS:
        raise InputError(f"`to` must be one of {', '.join(TARGETS)}. Received: `to={to!r}`.")
    if to == "torch-bin":
        require_packages("torch", needed_for="Writing a PyTorch pickle")


def _h5_table(tensors: Mapping[str, TensorSource], config: RemBertConfig, head: str) -> dict[str, Parameter]:
    """The parameters a model may have, after a look at what is to be written."""
    table = parameters(config, head, pooler=True)
    for name, tensor in tensors.items():
        if name not in table:
            raise CheckpointError(f"`{name}` is no parameter of a {head} model; H5 files hold nothing else.")
        if tensor.dtype.kind != "f":
            raise CheckpointError(
                f"H5 files have no dtype for tensor `{name}`. Received: {tensor.dtype}. Choose float32 or float16."
            )
    return table


def _save(
    directory: Path,
    file: str,
    tensors: Mapping[str, TensorSource],
    max_shard_size: int | str | None,
    write: Callable[[Path, list[str], bool], Any],
    index_name: Callable[[str], str],
) -> list[Path]:
    """Plan shards, write them all under temporary names, then rename them, the index last."""
    shards = plan_shards(file, tensors, parse_size(max_shard_size))
    directory.mkdir(parents=True, exist_ok=True)
    sharded = len(shards) > 1
    index = f"{file}.index.json"
    with ExitStack() as pending:  # leaves in reverse order, so what is entered first appears last
        if sharded:
            total = sum(tensor.nbytes for tensor in tensors.values())
            listed = {shard: [index_name(name) for name in names] for shard, names in shards.items()}
            write_json(pending.enter_context(atomic_path(directory / index)), index_content(listed, total))
        for shard, names in shards.items():
            write(pending.enter_context(atomic_path(directory / shard)), names, sharded)
    written = [directory / shard for shard in shards] + ([directory / index] if sharded else [])
    _remove_older(directory, file, written)
    return written


def _remove_older(directory: Path, file: str, written: list[Path]) -> None:
    """Remove an older layout of the same format, which a reader would take for part of the new one.

    The index goes first: shards without one are never read.
    """
    older = [directory / file, directory / f"{file}.index.json"]
    older += sorted(path for path in directory.iterdir() if is_shard(path.name, file))
    for path in sorted(older, key=lambda path: not path.name.endswith(".index.json")):
        if path not in written:
            path.unlink(missing_ok=True)
