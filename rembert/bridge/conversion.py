"""Convert a checkpoint from any format that can be read to any that can be written."""

from __future__ import annotations

import copy
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rembert.bridge.atomic_directory import new_directory
from rembert.bridge.checkpoint import Checkpoint, open_checkpoint
from rembert.bridge.matching import Selection, match_checkpoint, require_match, select_parameters
from rembert.bridge.registry import find, locate_checkpoint
from rembert.bridge.saving import save_checkpoint, target_format
from rembert.bridge.streaming import all_finite
from rembert.bridge.tensors import DTYPES, TensorSource
from rembert.common.arguments import check_argument, one_of, optional
from rembert.common.config import RemBertConfig
from rembert.common.config_files import CONFIG_NAME
from rembert.common.errors import CheckpointError, InputError
from rembert.common.parameters import HEADS, head_config

STORED_DTYPES = ("float32", "float16", "bfloat16")  # that weights are converted to
# Files that are copied with a checkpoint, and their new names.
COMPANIONS = {
    "sentencepiece.model": "sentencepiece.model",
    "sent_piece.model": "sentencepiece.model",
    "tokenizer.json": "tokenizer.json",
    "tokenizer_config.json": "tokenizer_config.json",
    "special_tokens_map.json": "special_tokens_map.json",
    "added_tokens.json": "added_tokens.json",
    "generation_config.json": "generation_config.json",
    "bleurt_config.json": "bleurt_config.json",
}


@dataclass(frozen=True)
class Conversion:
    """The report of `convert`.

    Attributes:
        source, target: the paths.
        source_format, target_format: a key of `FORMATS`, and the argument `to`.
        head: a key of `HEADS`.
        parameters: numbers written.
        nbytes: bytes of values written.
        files: names of the files written.
        left_out: names in the source that are not weights: an optimizer's state, counters, old buffers.
        dropped: the source's tensors that the chosen head does not have.
        fresh: newly initialised parameters, which the chosen head has and the source does not.
        nonfinite: parameters with NaN or infinite values; empty unless these are allowed.
        seconds: the duration.
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
    dropped: list[str]
    fresh: list[str]
    nonfinite: list[str]
    seconds: float


def convert(
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    to: str,
    *,
    dtype: str | None = None,
    max_shard_size: int | str | None = None,
    head: str | None = None,
    hidden_act: str | None = None,
    force: bool = False,
    allow_nonfinite: bool = False,
    progress: Callable[[int, int], Any] | None = None,
) -> Conversion:
    """Write the checkpoint `source` as a new directory `target`, with its config and tokenizer files.

    The directory appears complete, or not at all. The source does not change.

    Args:
        source: a checkpoint with a configuration, as for `open_checkpoint`.
        target: the new directory.
        to: one of `TARGETS`: "pt" (`model.safetensors`), "tf" (`tf_model.h5` in transformers' layout), "keras"
            (`model.weights.h5`, for `TFRemBert….load_weights`), "torch-bin" (`pytorch_model.bin`).
        dtype: "float32", "float16" or "bfloat16" for all weights; by default each keeps its own.
        max_shard_size: bytes, or text like "2GB"; None for a single file of any size.
        head: a key of `HEADS`: keep the encoder with this head, which is newly initialised if the source lacks it.
        hidden_act: replaces the activation in the configuration.
        force: replace a checkpoint at `target`.
        allow_nonfinite: write NaN and infinite weights too, and report them.
        progress: called with the bytes written so far and in all.

    Raises:
        InputError: an argument is invalid, or the target exists.
        CheckpointError: the source is damaged, does not fit its config, or has weights that are not finite.
        MissingDependencyError: the source or the target needs torch, which is not installed.
        OSError: the disk is full or not writable.

    Example:
        >>> done = convert("google/rembert", "rembert-half", "pt", dtype="float16")
        >>> done.head, done.files[0]
        ('masked-lm', 'model.safetensors')
    """
    started = time.perf_counter()
    source, target = locate_checkpoint(source), Path(target)
    _check_arguments(source, target, to, dtype)
    replacement = new_directory(target, force=force, replaceable=is_checkpoint)
    with open_checkpoint(source) as checkpoint:
        config = source_config(checkpoint)
        found = match_checkpoint(checkpoint, config)
        require_match(checkpoint, found)
        checkpoint.require_floats(found.match.found.values())
        chosen = select_parameters(checkpoint, found, config, head)
        nonfinite: list[str] = []
        tensors = {
            name: _watched(checkpoint, name, tensor, dtype, None if not allow_nonfinite else nonfinite)
            for name, tensor in chosen.tensors.items()
        }
        config = _target_config(config, chosen, found.head, tensors, dtype, hidden_act)
        count = _Counter(sum(tensor.nbytes for tensor in tensors.values()), progress)
        with replacement as directory:
            written = save_checkpoint(
                directory, tensors, config, to=to, head=chosen.head, max_shard_size=max_shard_size, progress=count
            )
            files = [*written, *copy_companions(checkpoint.directory, directory)]
        return Conversion(
            source=source,
            target=target,
            source_format=checkpoint.format,
            target_format=to,
            head=chosen.head,
            parameters=sum(tensor.size for tensor in tensors.values()),
            nbytes=count.total,
            files=[file.name for file in files],
            left_out=[*checkpoint.left_out, *found.match.ignored],
            dropped=chosen.dropped,
            fresh=chosen.fresh,
            nonfinite=nonfinite,
            seconds=time.perf_counter() - started,
        )


class _Counter:
    """Passes the number of bytes written so far to a callback."""

    def __init__(self, total: int, show: Callable[[int, int], Any] | None) -> None:
        self.total = total
        self._done = 0
        self._show = show

    def __call__(self, written: int) -> None:
        self._done += written
        if self._show is not None:
            self._show(self._done, self.total)


def _check_arguments(source: Path, target: Path, to: str, dtype: str | None) -> None:
    check_argument("dtype", dtype, optional(one_of(STORED_DTYPES)))
    held = target_format(to).dtypes
    if dtype is not None and dtype not in held:
        raise InputError(
            f"`dtype` must be one of {', '.join(name for name in STORED_DTYPES if name in held)} for `to={to!r}`. "
            f"Received: `dtype={dtype!r}`."
        )
    resolved, origin = target.resolve(), source.resolve()
    if resolved == origin or resolved in origin.parents:
        raise InputError(
            f"The target must not be or contain the source. Received: source {source} and target {target}."
        )


def source_config(checkpoint: Checkpoint) -> RemBertConfig:
    if checkpoint.config is None:
        raise CheckpointError(
            f"{checkpoint.directory} holds no config.json (nor Google's rembert_config.json or bert_config.json), "
            "which describes the tensors. Put it beside them."
        )
    return checkpoint.config


def _target_config(
    config: RemBertConfig,
    chosen: Selection,
    head_before: str,
    tensors: dict[str, TensorSource],
    dtype: str | None,
    hidden_act: str | None,
) -> RemBertConfig:
    config = head_config(copy.deepcopy(config), chosen.head)
    config.architectures = [HEADS[chosen.head].architecture]
    if chosen.head != head_before and not config.add_cross_attention:
        config.is_decoder = HEADS[chosen.head].predicts_next
    if hidden_act is not None:
        config.hidden_act = hidden_act
    dtypes = {tensor.dtype.name for tensor in tensors.values()}
    if dtype is not None or (config.dtype is None and len(dtypes) == 1):
        config.dtype = dtypes.pop()
    config.validate()
    return config


def _watched(
    checkpoint: Checkpoint, name: str, tensor: TensorSource, dtype: str | None, nonfinite: list[str] | None
) -> TensorSource:
    """A tensor in its new dtype, whose values are checked as they are read.

    The name of a tensor that is not finite is added to `nonfinite`; without that list, it is an error.
    """
    stored = DTYPES[dtype] if dtype else tensor.dtype

    def read() -> np.ndarray:
        values = tensor.read()
        if not all_finite(values, stored):
            if nonfinite is None:
                raise CheckpointError(
                    f"{checkpoint.path}: `{name}` has values that are NaN or infinite as {stored}. Allow them with "
                    "`allow_nonfinite` (--allow-nonfinite), or choose a wider dtype."
                )
            nonfinite.append(name)
        return values

    return TensorSource(tensor.shape, stored, read)


def is_checkpoint(directory: Path) -> bool:
    """Whether a directory holds a checkpoint, which `force` may replace."""
    if (directory / CONFIG_NAME).is_file():
        return True
    try:
        find(directory, None)
    except CheckpointError:
        return False
    return True


def copy_companions(origin: Path, target: Path) -> list[Path]:
    """Copy the files of the tokenizer and other companions of the weights into another directory."""
    copied: list[Path] = []
    for name, renamed in COMPANIONS.items():
        if (origin / name).is_file() and target / renamed not in copied:
            shutil.copyfile(origin / name, target / renamed)
            copied.append(target / renamed)
    return copied
