"""The weights of a new model, drawn as `rembert.common.initialization` describes, or taken from a checkpoint.

`keras.utils.set_random_seed` repeats those that are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import keras
import numpy as np
import tensorflow as tf

Tensor = Any

_LARGE = 2**24  # numbers
_is_skipped: ContextVar[bool] = ContextVar("is_initialization_skipped", default=False)


def normal(deviation: float) -> keras.initializers.Initializer:
    """The initialiser of a kernel or table. Each needs a new one: a Keras initialiser repeats its numbers."""
    return Normal(stddev=deviation)


@keras.saving.register_keras_serializable("rembert")
class Normal(keras.initializers.RandomNormal):
    """`RandomNormal` that draws large tables in a graph, which scales the numbers in place.

    Drawn by single operations, the tables of a masked language model take 2 GB more, which TensorFlow never returns.
    """

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        draw = super().__call__
        if math.prod(shape) < _LARGE:  # a graph would take longer
            return draw(shape, dtype)
        return tf.function(lambda: draw(shape, dtype), autograph=False)()


@contextmanager
def skip_initialization() -> Iterator[None]:
    """Models built inside have no weights yet: loading a checkpoint first sets their source."""
    token = _is_skipped.set(True)
    try:
        yield
    finally:
        _is_skipped.reset(token)


def is_initialization_skipped() -> bool:
    """Whether the caller is inside `skip_initialization`."""
    return _is_skipped.get()


class Stored(keras.initializers.Initializer):
    """The initialiser of a weight that a checkpoint holds: the array that `read` returns, or its transpose."""

    def __init__(self, read: Callable[[], np.ndarray], transposed: bool) -> None:
        self.read = read
        self.transposed = transposed

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        array = self.read()
        return _to_tensor(array.T if self.transposed else array, tf.as_dtype(dtype).as_numpy_dtype)


STRIP = 64  # columns transposed at a time: they fit the processor's cache, so transposing takes no longer than a copy


def _to_tensor(array: np.ndarray, dtype: np.dtype) -> Tensor:
    """A tensor of an array's values in new memory, which is written once.

    `tf.constant` copies an array twice, and a transposed one slowly. TensorFlow uses aligned memory without a copy.
    """
    size, alignment = array.size * np.dtype(dtype).itemsize, 64
    memory = np.empty(size + alignment, np.uint8)
    start = -memory.ctypes.data % alignment
    content = memory[start : start + size].view(dtype).reshape(array.shape)
    if array.ndim == 2 and not array.flags.c_contiguous:
        for column in range(0, array.shape[1], STRIP):
            content[:, column : column + STRIP] = array[:, column : column + STRIP]
    else:
        content[...] = array
    if np.dtype(dtype).kind == "V":  # bfloat16, which NumPy cannot pass through DLPack
        bits = tf.experimental.dlpack.from_dlpack(content.view(f"u{content.itemsize}").__dlpack__())
        return tf.bitcast(bits, tf.as_dtype(dtype))
    return tf.experimental.dlpack.from_dlpack(content.__dlpack__())
