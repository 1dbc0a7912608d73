"""A checkpoint's tensors as data: shape, dtype, and a way to read the values when they are needed.

Readers hand out `TensorSource`s whose arrays are views on a memory map wherever the file allows it, so a checkpoint
costs address space, not memory, until values are touched.
"""

from __future__ import annotations

import math
import mmap
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import ml_dtypes
import numpy as np

from rembert.common.errors import CheckpointError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
DTYPES: dict[str, np.dtype] = {
    "float32": np.dtype(np.float32),
    "float16": np.dtype(np.float16),
    "bfloat16": BFLOAT16,
    "float64": np.dtype(np.float64),
}


@dataclass(frozen=True)
class TensorInfo:
    """What a tensor is: its shape in PyTorch's orientation and its dtype (numpy's, bfloat16 from ml_dtypes)."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """How many bytes its values take."""
        return self.size * self.dtype.itemsize


@dataclass(frozen=True)
class TensorSource(TensorInfo):
    """A tensor whose values are read on demand.

    `read()` gives an array of this shape. It may be a view (of a memory map, or transposed), and its dtype may differ
    from `dtype`: a writer stores `dtype` and converts piece by piece.
    """

    read: Callable[[], np.ndarray]


def is_float(dtype: np.dtype) -> bool:
    """Whether a dtype is one that weights are stored in."""
    return dtype in DTYPES.values()


def map_file(path: Path) -> np.ndarray:
    """The bytes of a file as an array [size] of uint8 on a private memory map.

    The map is copy-on-write: the array can be written to, the file never changes. It lives as long as a view of it.
    """
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        if size == 0:
            return np.empty(0, np.uint8)
        return np.frombuffer(mmap.mmap(file.fileno(), size, access=mmap.ACCESS_COPY), np.uint8)


def view(mapped: np.ndarray, offset: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    """The tensor that starts `offset` bytes into a mapped file; copied only where it is not aligned for its dtype."""
    raw = mapped[offset : offset + math.prod(shape) * dtype.itemsize]
    if raw.ctypes.data % dtype.alignment:
        raw = raw.copy()
    return raw.view(dtype).reshape(shape)


def check_layout(path: Path, spans: dict[str, tuple[int, int]], start: int, end: int) -> None:
    """Refuse tensors that overlap or lie outside the part of the file that holds values.

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
