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
_left_out: ContextVar[bool] = ContextVar("building_left_out", default=False)


def normal(deviation: float) -> keras.initializers.Initializer:
    """The initialiser of a kernel or table. A new one for each: a Keras initialiser repeats its numbers."""
    return Normal(stddev=deviation)


@keras.saving.register_keras_serializable("rembert")
class Normal(keras.initializers.RandomNormal):
    """Keras' own, with large tables drawn in a graph, which scales the numbers where they stand.

    Drawn by single operations, a masked language model's tables take 2 GB more, and TensorFlow keeps what it took.
    """

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        draw = super().__call__
        if math.prod(shape) < _LARGE:  # a graph is not worth making
            return draw(shape, dtype)
        return tf.function(lambda: draw(shape, dtype), autograph=False)()


@contextmanager
def building_left_out() -> Iterator[None]:
    """Models made inside have no weights: whoever loads a checkpoint says first where they come from."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)


def is_building_left_out() -> bool:
    """Whether models are made without weights just now."""
    return _left_out.get()


class Stored(keras.initializers.Initializer):
    """The initialiser of a weight that a checkpoint holds: what `read` gives, turned for kernels."""

    def __init__(self, read: Callable[[], np.ndarray], turned: bool) -> None:
        self.read = read
        self.turned = turned

    def __call__(self, shape: tuple[int, ...], dtype: str | None = None) -> Tensor:
        array = self.read()
        return _adopted(array.T if self.turned else array, tf.as_dtype(dtype).as_numpy_dtype)


STRIP = 64  # columns that are turned at a time: these fit the cache, so turning costs no more than a copy


def _adopted(array: np.ndarray, dtype: np.dtype) -> Tensor:
    """A tensor of an array's values, in memory of its own that is written once.

    `tf.constant` copies an array twice, and a turned one slowly. TensorFlow adopts memory that is aligned as it wants.
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
    if np.dtype(dtype).kind == "V":  # bfloat16, which DLPack's exchange does not know of NumPy
        bits = tf.experimental.dlpack.from_dlpack(content.view(f"u{content.itemsize}").__dlpack__())
        return tf.bitcast(bits, tf.as_dtype(dtype))
    return tf.experimental.dlpack.from_dlpack(content.__dlpack__())
