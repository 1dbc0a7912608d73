"""Tokenized examples to batches: rows padded to the longest of each batch, in a `tf.data` pipeline."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from rembert.common.arguments import check_argument, integer
from rembert.common.checks import IGNORE_INDEX
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError

Example = Mapping[str, Any]

# Names that datasets and collators give to `labels`.
_LABEL_NAMES = ("label", "label_ids")


@dataclass(frozen=True)
class Padding:
    """Pads the values of examples to the longest of a batch, in every dimension.

    Attributes:
        pad_token_id: pads `input_ids`. `labels` are padded with -100, everything else with 0.
        on_left: whether the padding comes before the tokens.

    Example:
        >>> Padding(pad_token_id=0)([{"input_ids": [5, 6], "label": 1}, {"input_ids": [7], "label": 0}])["input_ids"]
        array([[5, 6],
               [7, 0]], dtype=int32)
    """

    pad_token_id: int
    on_left: bool = False

    @classmethod
    def of(cls, tokenizer: Any, config: RemBertConfig) -> Padding:
        """The padding of a tokenizer; without one that of a configuration, on the right."""
        if tokenizer is None:
            return cls(config.pad_token_id or 0)
        return cls(tokenizer.pad_token_id, getattr(tokenizer, "padding_side", "right") == "left")

    def __call__(self, examples: Sequence[Example]) -> dict[str, np.ndarray]:
        """The columns of examples that have the same keys, as arrays [b, ...]."""
        columns = {name: [_nested(example[name]) for example in examples] for name in examples[0]}
        if "input_ids" in columns and "attention_mask" not in columns:
            columns["attention_mask"] = [_ones(ids) for ids in columns["input_ids"]]
        return {name: self._padded(name, values) for name, values in columns.items()}

    def _padded(self, name: str, values: list[Any]) -> np.ndarray:
        fill = {"input_ids": self.pad_token_id, "labels": IGNORE_INDEX}.get(name, 0)
        shape, is_integer = _extent(values)
        array = np.full(shape, fill, np.int32 if is_integer else np.float32)

        def write(target: np.ndarray, value: Any) -> None:
            if target.ndim > 1:
                for part, each in zip(target, value, strict=False):
                    write(part, each)
            elif self.on_left:
                target[len(target) - len(value) :] = value
            else:
                target[: len(value)] = value

        write(array, values)
        return array


def collated_batches(
    dataset: Any,
    *,
    inputs: Sequence[str],
    labels: Sequence[str],
    collate: Callable[[list[dict[str, Any]]], Mapping[str, Any]],
    batch_size: int,
    shuffle: bool,
    drop_remainder: bool,
    prefetch: bool,
) -> tf.data.Dataset:
    """The batches of `prepare_tf_dataset`: pairs (inputs by name, labels), or inputs by name without labels.

    Args:
        dataset: a dataset of the package `datasets`, a mapping of columns, or a list of examples.
        inputs, labels: the names that the model takes; other columns are left out.
        collate: from a list of examples to arrays by name.

    Raises:
        InputError: there are no examples, columns of several lengths, or none of `inputs`.
    """
    check_argument("batch_size", batch_size, integer(at_least=1))
    source = _Source(dataset, inputs, labels)

    def arrays(numbers: Any) -> dict[str, np.ndarray]:
        batch = collate(source.examples(np.asarray(numbers).tolist()))
        return {_canonical(name, labels): _array(name, value) for name, value in batch.items()}

    first = arrays(range(min(batch_size, len(source))))
    specs = {name: first[name] for name in (*inputs, *labels) if name in first}
    if not any(name in specs for name in inputs):
        raise InputError(f"`dataset` must have inputs of the model. Received: {', '.join(source.names)}.")

    def load(numbers: Any) -> Any:
        def read(each: np.ndarray) -> list[np.ndarray]:
            batch = arrays(each)
            return [batch[name].astype(spec.dtype) for name, spec in specs.items()]

        flat = tf.numpy_function(read, [numbers], [tf.as_dtype(spec.dtype) for spec in specs.values()])
        named = dict(zip(specs, flat, strict=True))
        for name, value in named.items():
            value.set_shape([None] * specs[name].ndim)
        targets = {name: named.pop(name) for name in labels if name in named}
        if not targets:
            return named
        return named, next(iter(targets.values())) if len(targets) == 1 else targets

    numbers = tf.data.Dataset.range(len(source))
    if shuffle:
        numbers = numbers.shuffle(len(source), reshuffle_each_iteration=True)
    batches = numbers.batch(batch_size, drop_remainder=drop_remainder).map(load)
    return batches.prefetch(tf.data.AUTOTUNE) if prefetch else batches


class _Source:
    """Examples by number, with the model's names, from any of the three kinds of datasets."""

    def __init__(self, dataset: Any, inputs: Sequence[str], labels: Sequence[str]) -> None:
        self._rows: Sequence[Example] | None = None
        self._columns: Any = dataset
        if hasattr(dataset, "column_names"):
            self.names, self._length = list(dataset.column_names), len(dataset)
        elif isinstance(dataset, Mapping):
            lengths = {name: len(column) for name, column in dataset.items()}
            if len(set(lengths.values())) > 1:
                raise InputError(f"All columns of `dataset` must have one length. Received: {lengths}.")
            self.names, self._length = list(lengths), next(iter(lengths.values()), 0)
        elif isinstance(dataset, Sequence) and all(isinstance(row, Mapping) for row in dataset):
            self._rows, self._length = dataset, len(dataset)
            self.names = list(dataset[0]) if dataset else []
            for number, row in enumerate(dataset):
                if missing := [name for name in self.names if name not in row]:
                    raise InputError(
                        f"All examples of `dataset` must have the same keys. Received: example {number} without "
                        f"{', '.join(missing)}."
                    )
        else:
            raise InputError(
                "`dataset` must be a dataset of the package `datasets`, a mapping of columns or a list of examples. "
                f"Received: {type(dataset).__name__}."
            )
        if not self._length:
            raise InputError("`dataset` must have examples. Received: none.")
        named = {name: _canonical(name, labels) for name in self.names}
        self._kept = {name: wanted for name, wanted in named.items() if wanted in (*inputs, *labels)}
        if hasattr(dataset, "select_columns"):  # others are not decoded
            self._columns = dataset.select_columns(list(self._kept))

    def __len__(self) -> int:
        return self._length

    def examples(self, numbers: list[int]) -> list[dict[str, Any]]:
        if self._rows is not None:
            return [{wanted: self._rows[number][name] for name, wanted in self._kept.items()} for number in numbers]
        columns, places = self._columns, numbers
        if not isinstance(columns, Mapping):
            columns, places = columns[numbers], list(range(len(numbers)))
        return [{wanted: columns[name][place] for name, wanted in self._kept.items()} for place in places]


def _canonical(name: str, labels: Sequence[str]) -> str:
    return "labels" if name in _LABEL_NAMES and "labels" in labels else name


def _array(name: str, value: Any) -> np.ndarray:
    """An array of int32 or float32, the types in which TensorFlow's kernels are written."""
    array = np.asarray(value)
    if array.dtype.kind not in "biuf":
        raise InputError(f"`{name}` must hold numbers. Received: an array of {array.dtype}.")
    return array.astype(np.float32 if array.dtype.kind == "f" else np.int32)


def _nested(value: Any) -> Any:
    """An array or tensor as nested lists; a list as it is."""
    return np.asarray(value).tolist() if hasattr(value, "shape") else value


def _ones(value: Any) -> Any:
    return [_ones(each) for each in value] if isinstance(value, list | tuple) else 1


def _extent(values: list[Any]) -> tuple[list[int], bool]:
    """The largest length in each dimension of nested lists, and whether all numbers in them are integers."""
    shape = [len(values)]
    level = values
    while any(isinstance(each, list | tuple) for each in level):
        shape.append(max(len(each) for each in level))
        level = [item for each in level for item in each]
    return shape, all(isinstance(each, int | np.integer) for each in level)
