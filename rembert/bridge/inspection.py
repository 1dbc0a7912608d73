"""Describe a checkpoint without reading its values."""

from __future__ import annotations

import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from rembert.bridge.checkpoint import open_checkpoint
from rembert.bridge.matching import match_checkpoint
from rembert.bridge.tensors import TensorInfo
from rembert.common.name_matching import Mismatch


@dataclass(frozen=True)
class Inspection:
    """The report of `inspect`.

    Attributes:
        path: what was inspected.
        format: a key of `FORMATS`.
        files: names of the files that hold the values.
        head: a key of `HEADS`, or None without a configuration.
        parameters: numbers in all tensors.
        nbytes: bytes of all values.
        dtypes: tensors per dtype.
        tensors: shape and dtype of every tensor, in PyTorch's orientation.
        missing: parameters of the head without a tensor.
        unknown: tensors that are not parameters of the head.
        left_out: names that are not weights: an optimizer's state, counters, old buffers.
        mismatched: parameters with another shape than the configuration's.
    """

    path: Path
    format: str
    files: list[str]
    head: str | None
    parameters: int
    nbytes: int
    dtypes: dict[str, int]
    tensors: dict[str, TensorInfo]
    missing: list[str]
    unknown: list[str]
    left_out: list[str]
    mismatched: list[Mismatch]

    @property
    def fits(self) -> bool:
        """Whether names and shapes fit the configuration; False without one."""
        return self.head is not None and not (self.missing or self.unknown or self.mismatched)


def inspect(path: str | os.PathLike[str]) -> Inspection:
    """Open a checkpoint and describe it. Values are not read, so damage in them is not detected.

    Raises:
        CheckpointError: there is no checkpoint, or its structure is damaged.
        ConfigError: its configuration is invalid.

    Example:
        >>> found = inspect("google/rembert")
        >>> found.head, found.fits, list(found.dtypes)
        ('masked-lm', True, ['float32'])
    """
    with open_checkpoint(path) as checkpoint:
        tensors = {name: TensorInfo(info.shape, info.dtype) for name, info in checkpoint.tensors.items()}
        found = match_checkpoint(checkpoint, checkpoint.config) if checkpoint.config is not None else None
        return Inspection(
            path=checkpoint.path,
            format=checkpoint.format,
            files=[file.name for file in checkpoint.files],
            head=found.head if found else None,
            parameters=sum(info.size for info in tensors.values()),
            nbytes=sum(info.nbytes for info in tensors.values()),
            dtypes=dict(Counter(info.dtype.name for info in tensors.values())),
            tensors=tensors,
            missing=found.match.missing if found else [],
            unknown=found.unknown if found else [],
            left_out=[*checkpoint.left_out, *(found.match.ignored if found else [])],
            mismatched=found.match.mismatched if found else [],
        )
