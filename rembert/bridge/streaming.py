"""Write values from a memory map to a file in chunks, so that memory does not grow with the checkpoint.

A transposed matrix is copied in square tiles: row by row, every element would miss the cache of the processor. The
tiles are copied by several threads, as NumPy releases the interpreter lock meanwhile.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from io import RawIOBase
from typing import Any

import numpy as np

from rembert.bridge.tensors import TensorSource

CHUNK_BYTES = 16 * 2**20  # of one chunk
# Of one write. For larger writes Linux searches for large ranges of free memory: on ext4, 2.3 GB took 11 s in writes
# of 16 MiB and 1.4 s in writes of this size.
WRITE_BYTES = 2**18
_CHECKED_VALUES = 2**17  # of one check: they stay in the cache of the processor
TILE = 128  # rows and columns of one tile
THREADS = min(4, os.cpu_count() or 1)

Progress = Callable[[int], Any]


def silent(written: int) -> None:
    """A progress callback that does nothing. A callback takes the number of bytes just written."""


def chunks(array: np.ndarray, dtype: np.dtype, size: int = CHUNK_BYTES) -> Iterator[np.ndarray]:
    """An array's values in row-major order, as consecutive contiguous arrays [n] of `dtype` of about `size` bytes.

    A contiguous array of that dtype gives views; anything else is transposed and converted a chunk at a time.
    """
    if array.flags.c_contiguous:
        flat = array.reshape(-1)
        step = max(1, size // dtype.itemsize)
        for start in range(0, flat.size, step):
            yield flat[start : start + step].astype(dtype, copy=False)
        return
    step = max(1, size // max(1, dtype.itemsize * (array.size // len(array))))
    for start in range(0, len(array), step):
        part = array[start : start + step]
        chunk = np.empty(part.shape, dtype)
        copy_tiled(chunk, part)
        yield chunk.reshape(-1)


def copy_tiled(target: np.ndarray, source: np.ndarray) -> None:
    """Copy one matrix [m, n] into another of any memory order and dtype, tile by tile and on threads."""
    if source.ndim != 2 or len(source) <= TILE:
        target[...] = source
        return

    def copy_rows(start: int) -> None:
        for column in range(0, source.shape[1], TILE):
            tile = (slice(start, start + TILE), slice(column, column + TILE))
            target[tile] = source[tile]

    with ThreadPoolExecutor(THREADS) as pool:
        for _ in pool.map(copy_rows, range(0, len(source), TILE)):
            pass


def all_finite(array: np.ndarray, dtype: np.dtype) -> bool:
    """Whether no value is NaN or infinite once it is stored as `dtype`."""
    flat = array.ravel(order="K")  # in any order, so that a transposed matrix stays a view

    def check(start: int) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            block = flat[start : start + _CHECKED_VALUES].astype(dtype, copy=False)
        bits = block.view(f"u{dtype.itemsize}")
        return not ((bits & mask) == mask).any()

    mask = _exponent_bits(dtype)
    if flat.size <= _CHECKED_VALUES:  # a pool of threads would cost more than the work
        return check(0)
    with ThreadPoolExecutor(THREADS) as pool:
        return all(pool.map(check, range(0, flat.size, _CHECKED_VALUES)))


@cache
def _exponent_bits(dtype: np.dtype) -> np.unsignedinteger:
    """The bits that are all set in infinities and NaN, but not in finite numbers."""
    bits: np.unsignedinteger = np.array([np.inf], dtype).view(f"u{dtype.itemsize}")[0]
    return bits


def write_values(file: RawIOBase, tensor: TensorSource, progress: Progress = silent) -> None:
    """Append a tensor's values to an unbuffered file in chunks."""
    for chunk in chunks(tensor.read(), tensor.dtype):
        left = chunk.view(np.uint8).data
        while left:  # a raw file may write less than it was given
            written = file.write(left[:WRITE_BYTES]) or 0
            left = left[written:]
            progress(written)
        _start_storing(file, chunk.nbytes)


def _start_storing(file: RawIOBase, length: int) -> None:
    """Start the write-back of the last `length` bytes, so that the final sync is short.

    Linux does so when it is told that cached bytes are no longer needed.
    """
    if hasattr(os, "posix_fadvise") and length >= WRITE_BYTES and (descriptor := _descriptor(file)) is not None:
        os.posix_fadvise(descriptor, file.tell() - length, length, os.POSIX_FADV_DONTNEED)


def _descriptor(file: RawIOBase) -> int | None:
    try:
        return file.fileno()
    except OSError:  # not a file of the system
        return None
