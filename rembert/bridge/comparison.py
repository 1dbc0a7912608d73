"""Compare two checkpoints of any formats, tensor by tensor."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

import numpy as np

from rembert.bridge.checkpoint import Checkpoint, open_checkpoint
from rembert.bridge.streaming import CHUNK_BYTES
from rembert.bridge.tensors import TensorInfo
from rembert.common.name_matching import canonical_name


@dataclass(frozen=True)
class TensorDifference:
    """The difference of one tensor between two checkpoints.

    Attributes:
        name: its canonical name.
        a, b: shape and dtype in each.
        largest, mean: the largest and the mean absolute difference of the values; infinite if only
            one checkpoint has NaN or infinity at an index, None if the shapes differ.

    Example:
        >>> info = TensorInfo((2,), np.dtype("float32"))
        >>> TensorDifference("classifier.bias", info, info, largest=0.5, mean=0.25).same
        False
    """

    name: str
    a: TensorInfo
    b: TensorInfo
    largest: float | None
    mean: float | None

    @property
    def same(self) -> bool:
        """Whether shape, dtype and all values are equal."""
        return self.a == self.b and self.largest == 0


@dataclass(frozen=True)
class Difference:
    """The result of `diff`: the tensors that only one checkpoint has, and every tensor that both have.

    Example:
        >>> Difference(only_in_a=["classifier.bias"], only_in_b=[], tensors=[]).same
        False
    """

    only_in_a: list[str]
    only_in_b: list[str]
    tensors: list[TensorDifference]

    @property
    def same(self) -> bool:
        """Whether both hold the same tensors with the same values."""
        return not (self.only_in_a or self.only_in_b) and all(tensor.same for tensor in self.tensors)


def diff(a: str | os.PathLike[str], b: str | os.PathLike[str]) -> Difference:
    """Compare two checkpoints by canonical names, in PyTorch's orientation.

    Args:
        a, b: anything `open_checkpoint` opens.

    Raises:
        CheckpointError: one of them is damaged.

    Example:
        >>> diff("google/rembert", "google/rembert").same
        True
    """
    with open_checkpoint(a) as first, open_checkpoint(b) as second:
        names, others = _names(first), _names(second)
        return Difference(
            only_in_a=[name for name in names if name not in others],
            only_in_b=[name for name in others if name not in names],
            tensors=[
                _tensor_difference(name, first, names[name], second, others[name]) for name in names if name in others
            ],
        )


def _names(checkpoint: Checkpoint) -> dict[str, str]:
    """A checkpoint's own names by canonical name; other tensors keep their names."""
    return {canonical_name(name) or name: name for name in checkpoint.tensors}


def _tensor_difference(name: str, a: Checkpoint, name_in_a: str, b: Checkpoint, name_in_b: str) -> TensorDifference:
    of_a, of_b = (TensorInfo(info.shape, info.dtype) for info in (a.tensors[name_in_a], b.tensors[name_in_b]))
    if of_a.shape != of_b.shape:
        return TensorDifference(name, of_a, of_b, largest=None, mean=None)
    largest = total = 0.0
    values = [np.atleast_1d(a.read(name_in_a)), np.atleast_1d(b.read(name_in_b))]
    rows = max(1, CHUNK_BYTES // max(1, 8 * math.prod(values[0].shape[1:])))
    for start in range(0, len(values[0]), rows):
        left, right = (array[start : start + rows].astype(np.float64) for array in values)
        with np.errstate(invalid="ignore"):
            distance = np.abs(left - right)
        distance[(left == right) | (np.isnan(left) & np.isnan(right))] = 0
        distance[np.isnan(distance)] = np.inf
        largest = max(largest, float(distance.max(initial=0)))
        total += float(distance.sum())
    return TensorDifference(name, of_a, of_b, largest=largest, mean=total / max(1, of_a.size))
