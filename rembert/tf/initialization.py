"""Fresh weights: normal kernels and tables, zero biases, unit norms.

As Devlin et al. (2019) with standard deviation `initializer_range`, and not cut at two deviations as Google's code
cuts it: the same choice as in PyTorch. `keras.utils.set_random_seed` makes it repeatable.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import keras

_left_out: ContextVar[bool] = ContextVar("initialization_left_out", default=False)


def normal(deviation: float) -> keras.initializers.Initializer:
    """The initialiser of a kernel or table. A new one for each: a Keras initialiser repeats its numbers."""
    if _left_out.get():
        return keras.initializers.Zeros()
    return keras.initializers.RandomNormal(stddev=deviation)


@contextmanager
def initialization_left_out() -> Iterator[None]:
    """Models built inside hold zeros: whoever loads a checkpoint does not wait for random numbers."""
    token = _left_out.set(True)
    try:
        yield
    finally:
        _left_out.reset(token)
