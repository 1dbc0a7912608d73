"""Batches of rows as other libraries hand them to a function: columns in, columns of the same kind out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rembert.common.errors import InputError


def columns_of(batch: Any) -> dict[str, list[Any]]:
    """The columns of a batch, each as a list with a value for each row.

    Args:
        batch: a mapping of column names to arrays or lists, a pandas frame, or a PyArrow table.

    Raises:
        InputError: it is something else, or the columns differ in length.

    Example:
        >>> columns_of({"text": np.array(["one", "two"])})
        {'text': ['one', 'two']}
    """
    if hasattr(batch, "to_pydict"):  # PyArrow
        return dict(batch.to_pydict())
    if not (isinstance(batch, Mapping) or hasattr(batch, "itertuples")):
        raise InputError(
            "`batch` must be a mapping of columns, a pandas frame or a PyArrow table. Received: "
            f"{type(batch).__name__}."
        )
    columns = {str(name): _listed(batch[name]) for name in batch}
    if len(sizes := {len(values) for values in columns.values()}) > 1:
        raise InputError(f"The columns of a batch must have one length. Received: {sorted(sizes)}.")
    return columns


def as_batch(columns: Mapping[str, list[Any]], like: Any) -> Any:
    """Columns as a batch of the same kind as `like`.

    In a mapping of arrays, a column of vectors is an array [b, e], one of anything but numbers an array of objects.

    Example:
        >>> as_batch({"score": [0.5, 1.0]}, like={"text": np.array(["one", "two"])})
        {'score': array([0.5, 1. ])}
    """
    if hasattr(like, "to_pydict"):
        from pyarrow import table

        return table(dict(columns))
    if hasattr(like, "itertuples"):
        from pandas import DataFrame, Series

        return DataFrame({name: Series(values, index=like.index) for name, values in columns.items()})
    if not any(isinstance(like[name], np.ndarray) for name in like):
        return dict(columns)
    return {name: _array(values) for name, values in columns.items()}


def as_columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, list[Any]]:
    """Rows as columns; a key that a row does not have is None there."""
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _listed(values: Any) -> list[Any]:
    return list(values.tolist() if hasattr(values, "tolist") else values)


def _array(values: list[Any]) -> np.ndarray:
    if values and all(isinstance(value, np.ndarray) for value in values):
        return np.stack(values)
    if all(isinstance(value, int | float) for value in values):
        return np.array(values)
    found = np.empty(len(values), object)
    for number, value in enumerate(values):  # lists of one length would become a matrix
        found[number] = value
    return found
