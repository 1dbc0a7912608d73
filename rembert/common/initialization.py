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

_ROWS_AT_A_TIME = 2**14  # a table of the released size is not copied whole


def added_rows(rows: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Rows to add to a table, from a normal with the mean of the present rows and 1e-9 of their covariance.

    This is transformers' default: new tokens begin near the mean of the others, so they are neither much more nor much
    less likely than these (Hewitt, "Initializing New Word Embeddings for Pretrained Language Models", 2021). A row is
    mean + sqrt(1e-9 / n) sum_i z_i (row_i - mean) with standard normal z_i: this has that distribution, without a
    matrix of covariances and its factors.

    Args:
        rows: [n, width], of any floating-point dtype.
        count: the number of rows to add.
        seed: of the random numbers.

    Returns:
        float32, [count, width].

    Example:
        >>> added_rows(np.array([[1.0, 4.0], [3.0, 8.0]]), count=1, seed=0).round(2)
        array([[2., 6.]], dtype=float32)
    """
    random = np.random.default_rng(seed)
    mean = rows.mean(0, dtype=np.float64)
    total = np.zeros((count, rows.shape[1]))
    for start in range(0, len(rows), _ROWS_AT_A_TIME):
        centred = rows[start : start + _ROWS_AT_A_TIME].astype(np.float32) - mean.astype(np.float32)
        total += random.standard_normal((count, len(centred)), np.float32) @ centred
    return (mean + (1e-9 / len(rows)) ** 0.5 * total).astype(np.float32)


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
