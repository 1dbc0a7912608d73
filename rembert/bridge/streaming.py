"""Values on their way from a map to a file: in pieces, so that memory does not grow with the checkpoint.

A transposed matrix is copied in square tiles, because walking one of its sides element by element misses the
processor's cache at every step, and the tiles go to threads, because numpy releases the interpreter while it copies.
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

PIECE = 16 * 2**20  # bytes of one piece
# Bytes handed to the system at a time. Larger writes make Linux look for large stretches of free memory to cache them
# in: on ext4, 2.3 GB took 11 s in writes of 16 MiB and 1.4 s in writes of this size.
WRITTEN = 2**18
_CHECKED = 2**17  # values that are checked at a time: they stay in the processor's cache
TILE = 128  # rows and columns of one tile
THREADS = min(4, os.cpu_count() or 1)

Progress = Callable[[int], Any]


def silent(written: int) -> None:
    """The progress callback that shows nothing; a callback takes the number of bytes just written."""


def pieces(array: np.ndarray, dtype: np.dtype, size: int = PIECE) -> Iterator[np.ndarray]:
    """An array's values in row-major order, as consecutive contiguous arrays [n] of `dtype` of about `size` bytes.

    A contiguous array of that dtype gives views; anything else is transposed and converted a piece at a time.
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
        piece = np.empty(part.shape, dtype)
        copy_tiled(piece, part)
        yield piece.reshape(-1)


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
    flat = array.ravel(order="K")  # any order will do, so a transposed matrix stays a view

    def check(start: int) -> bool:
        with np.errstate(over="ignore", invalid="ignore"):
            block = flat[start : start + _CHECKED].astype(dtype, copy=False)
        bits = block.view(f"u{dtype.itemsize}")
        return not ((bits & mask) == mask).any()

    mask = _exponent_bits(dtype)
    if flat.size <= _CHECKED:  # a pool of threads would cost more than the work
        return check(0)
    with ThreadPoolExecutor(THREADS) as pool:
        return all(pool.map(check, range(0, flat.size, _CHECKED)))


@cache
def _exponent_bits(dtype: np.dtype) -> np.unsignedinteger:
    """The bits that are all set in an infinity and in every NaN, and never in a finite number."""
    bits: np.unsignedinteger = np.array([np.inf], dtype).view(f"u{dtype.itemsize}")[0]
    return bits


def write_values(file: RawIOBase, tensor: TensorSource, progress: Progress = silent) -> None:
    """Append a tensor's values to an unbuffered file, a piece at a time."""
    for piece in pieces(tensor.read(), tensor.dtype):
        left = piece.view(np.uint8).data
        while left:  # a raw file may take less than it was given
            written = file.write(left[:WRITTEN]) or 0
            left = left[written:]
            progress(written)
        _start_storing(file, piece.nbytes)


def _start_storing(file: RawIOBase, length: int) -> None:
    """Have the system begin to store the last `length` bytes, so that waiting for all of them at the end is short.

    Linux does that when it is told that bytes in its cache are not needed; those not stored yet stay in the cache.
    """
    if hasattr(os, "posix_fadvise") and length >= WRITTEN and (descriptor := _descriptor(file)) is not None:
        os.posix_fadvise(descriptor, file.tell() - length, length, os.POSIX_FADV_DONTNEED)


def _descriptor(file: RawIOBase) -> int | None:
    try:
        return file.fileno()
    except OSError:  # no file of the system
        return None
