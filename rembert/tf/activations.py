"""The activation functions that a configuration can name."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from keras import ops

Tensor = Any


def gelu(x: Tensor) -> Tensor:
    """x Φ(x), exact: Hendrycks & Gimpel (2016). TensorFlow's own is 5e-9 off in float64."""
    return 0.5 * x * (1.0 + ops.erf(x * math.sqrt(0.5)))


def gelu_new(x: Tensor) -> Tensor:
    """The tanh approximation of GELU: Hendrycks & Gimpel (2016), section 2."""
    return 0.5 * x * (1.0 + ops.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x * x * x)))


def gelu_fast(x: Tensor) -> Tensor:
    """`gelu_new` with sqrt(2/pi) truncated to ten digits, as in older code."""
    return 0.5 * x * (1.0 + ops.tanh(0.7978845608 * x * (1.0 + 0.044715 * x * x)))


def quick_gelu(x: Tensor) -> Tensor:
    """The sigmoid approximation of GELU: Hendrycks & Gimpel (2016), section 2."""
    return x * ops.sigmoid(1.702 * x)


def mish(x: Tensor) -> Tensor:
    """x tanh(softplus(x)): Misra (2019)."""
    return x * ops.tanh(ops.softplus(x))


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": gelu,
    "gelu_new": gelu_new,
    "gelu_pytorch_tanh": gelu_new,
    "gelu_fast": gelu_fast,
    "quick_gelu": quick_gelu,
    "relu": ops.relu,
    "silu": ops.silu,
    "swish": ops.silu,
    "tanh": ops.tanh,
    "sigmoid": ops.sigmoid,
    "mish": mish,
}
