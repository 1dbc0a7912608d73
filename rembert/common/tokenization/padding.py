"""Rows of equal length, and tensors of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rembert.common.arguments import Constraint, boolean_or, check_argument, integer, one_of, optional, plain
from rembert.common.dependencies import require_packages
from rembert.common.errors import InputError
from rembert.common.tokenization.inputs import describe
from rembert.common.tokenization.truncation import Padding

_PADDING = boolean_or(Padding)
# The values of padded positions. `input_ids` get the id of the pad token.
_FILL: dict[str, Any] = {
    "attention_mask": 0,
    "token_type_ids": 0,
    "special_tokens_mask": 1,
    "offset_mapping": (0, 0),
}
COUNT = integer(at_least=1)
UNLIMITED = int(1e30)  # `model_max_length` without a limit, as transformers writes it; some files have it as a float
SIDE = one_of(("left", "right"))
LENGTH = Constraint(
    COUNT.wording, lambda value: COUNT.accepts(value) or (isinstance(value, float) and value >= UNLIMITED)
)
# The packages for tensors of these kinds; arrays ("np") need no other package.
_PACKAGES = {"pt": "torch", "tf": "tensorflow"}


def parse_padding(padding: bool | str | None) -> Padding:
    """The strategy that the argument `padding` names."""
    if padding is None or isinstance(padding, bool):
        return Padding.LONGEST if padding else Padding.NONE
    name = getattr(padding, "value", padding)
    check_argument("padding", name, _PADDING)
    return Padding(name)


def padded_length(longest: int, strategy: Padding, max_length: int | None, multiple_of: int | None) -> int | None:
    """The common length of all rows, or None without padding. A longer row keeps its length."""
    multiple_of = plain(multiple_of)
    check_argument("pad_to_multiple_of", multiple_of, optional(COUNT))
    if strategy is Padding.NONE:
        return None
    length = longest
    if strategy is Padding.MAX_LENGTH:
        if max_length is None:
            raise InputError(
                "`max_length` must be given for `padding='max_length'`, as this tokenizer has no `model_max_length`. "
                "Received: `max_length=None`. Pass it, or use `padding=True`."
            )
        length = max_length
    return length if multiple_of is None else -(-length // multiple_of) * multiple_of


def pad_columns(columns: dict[str, Any], length: int, pad_id: int | None, side: str) -> dict[str, Any]:
    """The columns with their rows padded to `length`. Columns of unknown names stay unchanged."""
    if pad_id is None:
        raise InputError(
            "The tokenizer must have a pad token for padding. Received: `pad_token=None`. "
            "Set `tokenizer.pad_token` to a token of the model, or call without `padding`."
        )
    fills = {"input_ids": pad_id, **_FILL}
    for name, rows in columns.items():
        if name in fills:
            fill = [fills[name]]
            if side == "left":
                columns[name] = [fill * (length - len(row)) + row for row in rows]
            else:
                columns[name] = [row + fill * (length - len(row)) for row in rows]
    return columns


def as_columns(encoded: Any) -> tuple[dict[str, Any], bool]:
    """The argument of `pad` as columns of lists, and whether it was a single row.

    Args:
        encoded: a mapping of columns, a mapping of one row's values, or a list of such rows. Values may be lists,
            arrays or tensors.
    """
    if isinstance(encoded, Sequence) and not isinstance(encoded, str):
        if not encoded:
            raise InputError("`encoded_inputs` must hold at least one row. Received: an empty list.")
        for number, row in enumerate(encoded):
            if not isinstance(row, Mapping):
                raise InputError(
                    f"`encoded_inputs` must be a list of mappings. Received: {describe(row)} at position {number}."
                )
        names = list(encoded[0])
        for number, row in enumerate(encoded):
            if set(row) != set(names):
                raise InputError(
                    f"All rows must have the same keys. Received: {names} in row 0, {list(row)} in {number}."
                )
        encoded = {name: [_row(row[name]) for row in encoded] for name in names}
    if not isinstance(encoded, Mapping):
        raise InputError(
            f"`encoded_inputs` must be a mapping or a list of mappings. Received: {type(encoded).__name__}."
        )
    if "input_ids" not in encoded:
        raise InputError(f"`encoded_inputs` must have `input_ids`. Received: the keys {list(encoded)}.")
    columns = {name: _as_lists(value) for name, value in encoded.items()}
    ids = columns["input_ids"]
    single = not (isinstance(ids, list) and (not ids or isinstance(ids[0], list)))
    if single:
        columns = {name: [_row(value)] for name, value in columns.items()}
    ids = columns["input_ids"]
    if not all(isinstance(row, list) and (not row or isinstance(row[0], int)) for row in ids):
        raise InputError(
            f"`input_ids` must be a row of ids or a list of rows. Received: {encoded['input_ids']!r:.60}."
        )
    for name in columns.keys() & _FILL.keys():
        if _lengths(columns[name]) != _lengths(ids):
            raise InputError(
                f"`{name}` must have a value for each of `input_ids`. Received: {columns[name]!r:.60} and {ids!r:.60}."
            )
    return columns, single


def _lengths(rows: Any) -> list[int | None] | None:
    return [len(row) if isinstance(row, list) else None for row in rows] if isinstance(rows, list) else None


def _row(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _as_lists(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy, PyTorch
        return value.tolist()
    if hasattr(value, "numpy"):  # TensorFlow
        return value.numpy().tolist()
    if isinstance(value, list | tuple):
        if not value or isinstance(value[0], int):  # a row of ids: nothing inside to convert
            return list(value)
        return [_as_lists(item) if not isinstance(item, tuple) else item for item in value]
    return value


def check_tensors(kind: Any) -> str | None:
    """The kind of tensors that `return_tensors` asks for: "np", "pt" or "tf"; None for lists.

    Raises:
        InputError: it is none of these.
        MissingDependencyError: the framework is not installed.
    """
    name = None if kind is None else str(getattr(kind, "value", kind))
    check_argument("return_tensors", name, optional(one_of(("np", "pt", "tf"))))
    if name in _PACKAGES:
        require_packages(_PACKAGES[name], needed_for=f"`return_tensors={name!r}`")
    return name


def is_tensor(value: Any, kind: str) -> bool:
    """Whether `value` is a tensor of the kind "np", "pt" or "tf"; imports no framework."""
    if kind == "np":
        return isinstance(value, np.ndarray)
    return type(value).__module__.split(".")[0] == _PACKAGES[kind] and hasattr(value, "shape")


def to_tensors(columns: dict[str, Any], kind: str) -> dict[str, Any]:
    """The columns as arrays of numbers.

    Args:
        columns: lists of rows, or lists of numbers.
        kind: "np" (int64, float64), "pt" (int64, float32) or "tf" (int32, float32), from `check_tensors`.

    Raises:
        InputError: rows of different lengths, or values that are not numbers.
    """
    make = {"np": lambda array: array, "pt": _torch_tensor, "tf": _tensorflow_tensor}[kind]
    return {column: make(_array(column, values)) for column, values in columns.items()}


def _array(name: str, values: Any) -> np.ndarray:
    try:
        array = np.array(values, np.int64 if _is_empty(values) else None)
    except ValueError as problem:
        lengths = sorted({len(row) if isinstance(row, list) else 1 for row in values})
        raise InputError(
            f"The rows of `{name}` must have one length to be a tensor. Received: {lengths[0]} to {lengths[-1]} items."
            f" Pass `padding=True`, and `truncation=True` with `max_length` where rows are too long."
        ) from problem
    if array.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must hold numbers to be a tensor. Received: {values!r:.60}.")
    return array


def _is_empty(values: Any) -> bool:
    return isinstance(values, list) and all(isinstance(row, list) and not row for row in values)


def _torch_tensor(array: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(array.astype(np.float32) if array.dtype == np.float64 else array)


def _tensorflow_tensor(array: np.ndarray) -> Any:
    import tensorflow

    # TensorFlow's integers are int32 by default, and its GPU kernels are made for those.
    narrower = {np.dtype(np.int64): np.int32, np.dtype(np.float64): np.float32}
    return tensorflow.constant(array.astype(narrower.get(array.dtype, array.dtype)))
