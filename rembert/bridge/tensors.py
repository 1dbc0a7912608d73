"""A checkpoint's tensors as data: shape, dtype, and a function that reads the values.

Readers return `TensorSource`s. Their arrays are views on a memory map if the file allows it, so a checkpoint takes
address space, but no memory until values are used.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from rembert.common.errors import CheckpointError
from rembert.common.files import open_regular

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
    "float64": np.dtype(np.float64),
}


@dataclass(frozen=True)
class TensorInfo:
    """The shape of a tensor in PyTorch's orientation and its dtype (NumPy's, or bfloat16 from ml_dtypes).

    Example:
        >>> info = TensorInfo((1000, 256), np.dtype("float32"))
        >>> info.size, info.nbytes
        (256000, 1024000)
    """

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """The number of its elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """The size of its values in bytes."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class TensorSource(TensorInfo):
    """A tensor whose values are read on demand.

    `read()` gives an array of this shape. It may be a view (of a memory map, or transposed), and its dtype may differ
    from `dtype`: a writer stores `dtype` and converts it chunk by chunk.

    Example:
        >>> source = TensorSource((2, 3), np.dtype("float32"), read=lambda: np.zeros((2, 3), np.float32))
        >>> source.read().sum()
        np.float32(0.0)
    """

    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Contents:
    """The content of one file: the tensors, the names that are not weights, and the keys of the model's configuration,
    if the file holds these too."""

    tensors: dict[str, TensorSource]
    left_out: list[str] = field(default_factory=list)
    config: dict[str, Any] | None = None


def is_float(dtype: np.dtype) -> bool:
    """Whether weights can have this dtype."""
    return dtype in DTYPES.values()


def transposed(source: TensorSource) -> TensorSource:
    """A matrix [m, n] as [n, m]."""
    return TensorSource(source.shape[::-1], source.dtype, lambda: source.read().T)


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file as an array [size] of uint8 on a private memory map.

    The map is copy-on-write: the array can be changed, the file never is. It exists as long as a view of it.
    """
    with open_regular(path, CheckpointError) as file:
        return map_descriptor(file.fileno())


def map_descriptor(descriptor: int) -> np.ndarray:
    """`map_file` for an open file."""
    size = os.fstat(descriptor).st_size
    if size == 0:
        return np.empty(0, np.uint8)
    return np.frombuffer(mmap.mmap(descriptor, size, access=mmap.ACCESS_COPY), np.uint8)


def view(mapped: np.ndarray, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The tensor that starts `offset` bytes into a mapped file; copied only if it is not aligned for its dtype."""
    raw = mapped[offset : offset + math.prod(shape) * dtype.itemsize]
    if raw.ctypes.data % dtype.alignment:
        raw = raw.copy()
    return raw.view(dtype).reshape(shape)


def check_layout(path: Path, spans: dict[str, tuple[int, int]], start: int, end: int) -> None:
    """Refuse tensors that overlap or are outside the part of the file that holds values.

    Args:
        path: the file, for the message.
        spans: first byte and byte after the last of every tensor, by name.
        start, end: the part of the file that may hold values.

    Raises:
        CheckpointError: names the file, the tensor and the reason.
    """
    reached, previous = start, None
    for name, (first, last) in sorted(spans.items(), key=lambda item: item[1]):
        if first < start or last > end or last < first:
            raise CheckpointError(
                f"{path}: tensor `{name}` lies outside the file's data. Received: bytes {first} to {last}, while the "
                f"data reaches from {start} to {end}. The file is truncated or damaged."
            )
        if first < reached and last > first:
            raise CheckpointError(f"{path}: tensors `{previous}` and `{name}` overlap. The file is damaged.")
        reached, previous = max(reached, last), name
