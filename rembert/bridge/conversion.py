"""Convert a checkpoint from any format that is read to any that is written."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from rembert.bridge.blocks import Progress, silent
from rembert.bridge.checkpoint import Checkpoint, open_checkpoint
from rembert.bridge.plan import fit, require
from rembert.bridge.saving import save_h5, save_safetensors
from rembert.bridge.tensors import TensorSource
from rembert.common.config import RemBertConfig
from rembert.common.errors import CheckpointError, InputError
from rembert.common.files import atomic_path
from rembert.common.parameters import HEADS, file_name

TARGETS = ("pt", "tf")

# Files that travel with a checkpoint, by the name they get.
CARRIED = {
    "sentencepiece.model": "sentencepiece.model",
    "sent_piece.model": "sentencepiece.model",
    "tokenizer.json": "tokenizer.json",
    "tokenizer_config.json": "tokenizer_config.json",
    "special_tokens_map.json": "special_tokens_map.json",
    "added_tokens.json": "added_tokens.json",
    "generation_config.json": "generation_config.json",
}


@dataclass(frozen=True)
class Conversion:
    """What `convert` did.

    Attributes:
        source, target: the paths.
        source_format, target_format: a key of `FORMATS`, and the `to` that was asked for.
        head: a key of `HEADS`.
        parameters: numbers written.
        nbytes: bytes of values written.
        files: names of the files written.
        left_out: tensors of the source that are no parameters (old buffers and the like).
        seconds: how long it took.
    """

    source: Path
    target: Path
    source_format: str
    target_format: str
    head: str
    parameters: int
    nbytes: int
    files: list[str]
    left_out: list[str]
    seconds: float


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str,
    *,
    max_shard_size: int | str | None = None,
    progress: Progress = silent,
) -> Conversion:
    """Write the checkpoint `source` as a new directory `target`, with its config and tokenizer files.

    Args:
        source: anything `open_checkpoint` opens, with a config beside it.
        target: the directory to make.
        to: "pt" (`model.safetensors`) or "tf" (`tf_model.h5` in transformers' layout).
        max_shard_size: bytes, or text like "2GB"; None writes one file whatever its size.
        progress: called with the number of bytes just written.

    Raises:
        InputError: an argument that cannot be used, or the target exists.
        CheckpointError: the source is damaged or does not fit its config.
    """
    started = time.perf_counter()
    source, target = Path(source), Path(target)
    if to not in TARGETS:
        raise InputError(f"`to` must be one of {', '.join(TARGETS)}. Received: `to={to!r}`.")
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{target} exists and is not an empty directory. Choose another target.")
    with open_checkpoint(source) as checkpoint:
        config = _config(checkpoint)
        found = fit(checkpoint, config)
        require(checkpoint, found)
        tensors = {name: checkpoint.source(found.match.found[name]) for name in found.table}
        config.architectures = [HEADS[found.head].architecture]
        written = _write(target, to, tensors, config, found.head, max_shard_size, progress)
        config.save_pretrained(target)
        files = [*written, target / "config.json", *_carry(checkpoint.directory, target)]
        return Conversion(
            source=source,
            target=target,
            source_format=checkpoint.format,
            target_format=to,
            head=found.head,
            parameters=sum(tensor.size for tensor in tensors.values()),
            nbytes=sum(tensor.nbytes for tensor in tensors.values()),
            files=[file.name for file in files],
            left_out=[*checkpoint.left_out, *found.match.ignored],
            seconds=time.perf_counter() - started,
        )


def _config(checkpoint: Checkpoint) -> RemBertConfig:
    if checkpoint.config is None:
        raise CheckpointError(
            f"{checkpoint.directory} holds no config.json (nor Google's rembert_config.json or bert_config.json), "
            "which says what the tensors mean. Put it beside them."
        )
    return checkpoint.config


def _write(
    directory: Path,
    to: str,
    tensors: Mapping[str, TensorSource],
    config: RemBertConfig,
    head: str,
    max_shard_size: int | str | None,
    progress: Progress,
) -> list[Path]:
    if to == "tf":
        return save_h5(directory, tensors, config, head, max_shard_size=max_shard_size, progress=progress)
    named = {file_name(name, head): tensor for name, tensor in tensors.items()}
    return save_safetensors(directory, named, max_shard_size=max_shard_size, progress=progress)


def _carry(origin: Path, target: Path) -> list[Path]:
    """Copy the tokenizer's files and their like."""
    copied = []
    for name, renamed in CARRIED.items():
        if (origin / name).is_file() and target / renamed not in copied:
            with atomic_path(target / renamed) as temporary:
                shutil.copyfile(origin / name, temporary)
            copied.append(target / renamed)
    return copied
