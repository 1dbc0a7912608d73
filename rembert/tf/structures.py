"""The output classes and `BatchEncoding` as Keras structures, which its functions unpack and rebuild."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from rembert.common.checks import IGNORE_INDEX
from rembert.common.errors import InputError
from rembert.common.outputs import OUTPUT_TYPES, ModelOutput
from rembert.common.tokenization import BatchEncoding
from rembert.tf.inputs import TEXT, is_text
from rembert.tf.keras_internals import in_xla, is_structure, register_mapping

# How the names of a model's tensors end; other arguments may be lists.
_TENSORS = ("_ids", "_mask", "_embeds", "_positions", "labels", "cu_seqlens")


def register_outputs() -> None:
    """Tell Keras how to unpack and rebuild every output class and the tokenizers' result.

    An output of a single tensor can take the place of that tensor, as in `keras.layers.TimeDistributed`.

    TensorFlow's own functions (`tf.nest`, `tf.data`) handle mappings already.
    """
    kinds: tuple[type, ...] = (*OUTPUT_TYPES, BatchEncoding)
    for kind in kinds:
        register_mapping(kind, _flatten, partial(_unflatten, kind))
    tf.register_tensor_conversion_function(ModelOutput, _only_tensor)


def as_structure(inputs: Any) -> Any:
    """A model's inputs as structures of Keras: mappings unknown to it, such as transformers', become dicts.

    Ragged ids [b, (s)] become [b, s] with an `attention_mask`.

    Args:
        inputs: a tensor, a mapping by name, or a tuple or list of these in order (also of inputs and labels).

    Raises:
        InputError: texts, or numbers in lists, where a tensor is needed; ragged tensors of other shapes, of different
            lengths or in a tuple; a tensor of Keras 2.

    Example:
        >>> from collections import UserDict
        >>> as_structure(UserDict(input_ids=None))
        {'input_ids': None}
        >>> as_structure(tf.ragged.constant([[5, 6], [7]]))["attention_mask"].numpy().tolist()
        [[1, 1], [1, 0]]
    """
    if isinstance(inputs, Mapping):
        for name, value in inputs.items():
            _refuse_lists(name, value)
            refuse_legacy(name, value)
        if any(isinstance(value, tf.RaggedTensor) for value in inputs.values()):
            return _padded(inputs)
        return inputs if is_structure(inputs) else dict(inputs)
    _refuse_lists("input_ids", inputs)
    if type(inputs) in (list, tuple):
        for value in inputs:
            if isinstance(value, tf.RaggedTensor):
                raise _ragged_error("input_ids", "in a tuple or list")
        return type(inputs)(map(as_structure, inputs))
    refuse_legacy("input_ids", inputs)
    return _padded({"input_ids": inputs}) if isinstance(inputs, tf.RaggedTensor) else inputs


def as_labels(labels: Any) -> Any:
    """The `y` of Keras' methods as it is.

    Raises:
        InputError: numbers in lists; Keras' own error would name `x`.
    """
    if isinstance(labels, list | tuple) and labels and isinstance(labels[0], int | float):
        raise InputError("`y` must be a tensor or an array. Received: a list of numbers. Pass `np.array(y)`.")
    return labels


def as_ragged(outputs: Any) -> Any:
    """A structure with every tensor of two or more dimensions as a ragged one of the same values.

    Example:
        >>> type(as_ragged({"logits": tf.zeros((2, 3))})["logits"]).__name__
        'RaggedTensor'
    """

    def convert(tensor: Any) -> Any:
        rank = len(tensor.shape)
        return tensor if rank < 2 else tf.RaggedTensor.from_tensor(tensor, ragged_rank=rank - 1)

    return keras.tree.map_structure(convert, outputs)


def pad_ragged(outputs: Any) -> Any:
    """A structure with every ragged tensor as an array, padded with -100 in logits, otherwise with 0.

    Example:
        >>> pad_ragged({"logits": tf.ragged.constant([[0.5, 0.25], [0.125]])})["logits"].tolist()
        [[0.5, 0.25], [0.125, -100.0]]
    """

    def convert(path: tuple[Any, ...], value: Any) -> Any:
        if not isinstance(value, tf.RaggedTensor):
            return value
        fill = IGNORE_INDEX if any("logits" in str(name) for name in path) else 0
        return value.to_tensor(tf.cast(fill, value.dtype)).numpy()

    flat = [convert(path, value) for path, value in keras.tree.flatten_with_path(outputs)]
    return keras.tree.pack_sequence_as(outputs, flat)


def refuse_legacy(name: str, value: Any) -> None:
    """Refuse an object of Keras 2, which `tf.keras` is with TF_USE_LEGACY_KERAS=1: it would not see the weights.

    Raises:
        InputError: names the class.

    Example:
        >>> refuse_legacy("optimizer", "adam")
    """
    if type(value).__module__.partition(".")[0] == "tf_keras":
        raise InputError(
            f"`{name}` must come from Keras 3 (`import keras`). Received: a {type(value).__name__} of tf_keras, which "
            "`tf.keras` is when TF_USE_LEGACY_KERAS=1 is set. Unset it before TensorFlow is imported."
        )


def check_symbolic_ids(call: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> None:
    """Refuse symbolic ids of a float dtype, which `keras.Input` gives them by default, before Keras traces the call.

    Raises:
        InputError: names the argument and its dtype.
    """
    given = args[0] if args and isinstance(args[0], Mapping) else {"input_ids": args[0] if args else None}
    for name, value in {**given, **kwargs}.items():
        is_float = isinstance(value, keras.KerasTensor) and "float" in value.dtype
        if is_float and name.endswith("_ids") and name in inspect.signature(call).parameters:
            raise InputError(
                f"`{name}` must hold integers. Received: a symbolic tensor of {value.dtype}. Make it with "
                "`keras.Input(shape, dtype='int32')`."
            )


def _padded(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Inputs with ragged ids, token types, positions and labels [b, (s)] as tensors [b, s], and the ids' mask."""
    dense = dict(inputs)
    ids: Any = inputs.get("input_ids")
    for name, value in inputs.items():
        if not isinstance(value, tf.RaggedTensor):
            continue
        if value.shape.rank != 2 or not isinstance(ids, tf.RaggedTensor):
            raise _ragged_error(name, f"of shape {value.shape}, beside `input_ids` of {type(ids).__name__}")
        if in_xla():
            raise _ragged_error(name, "in a graph that XLA compiles, which knows no ragged tensors")
        if tf.executing_eagerly() and value.row_lengths().numpy().tolist() != ids.row_lengths().numpy().tolist():
            raise _ragged_error(name, "whose rows have other lengths than those of `input_ids`")
        dense[name] = value.to_tensor(tf.cast(IGNORE_INDEX if name == "labels" else 0, value.dtype))
    if dense.get("attention_mask") is None:
        dense["attention_mask"] = tf.sequence_mask(ids.row_lengths(), dtype=tf.int32)
    return dense


def _ragged_error(name: str, received: str) -> InputError:
    return InputError(
        f"`{name}` may be ragged as [batch, (sequence)], by name, beside ragged `input_ids` of the same lengths. "
        f"Received: a RaggedTensor {received}. Otherwise pass `ids.to_tensor()` with an `attention_mask`, or the "
        "packed sequences: `input_ids=ids.flat_values, cu_seqlens=ids.row_splits`."
    )


def _refuse_lists(name: str, value: Any) -> None:
    """Refuse texts, and numbers in lists, as a tokenizer makes them without `return_tensors`."""
    first, depth = value, 0
    while isinstance(first, list | tuple) and first:
        first, depth = first[0], depth + 1
    if name == "input_ids" and (
        isinstance(first, str) or (isinstance(first, np.ndarray | tf.Tensor) and is_text(first))
    ):
        raise InputError(TEXT)
    if depth and isinstance(first, int | float) and name.endswith(_TENSORS):
        raise InputError(
            f"`{name}` must be a tensor or an array. Received: lists of numbers. Give the tokenizer "
            "`padding=True, return_tensors='tf'`, or make a tensor with `tf.constant`."
        )


def _only_tensor(outputs: ModelOutput, dtype: Any = None, name: str | None = None, as_ref: bool = False) -> Any:
    if len(outputs) != 1:
        raise InputError(
            f"A {type(outputs).__name__} with several tensors cannot be converted to one. Take one by name, such as "
            f"`outputs.{next(iter(outputs), 'logits')}`. Received: {', '.join(outputs) or 'no tensors'}."
        )
    return tf.convert_to_tensor(outputs[0], dtype, name=name)


def _flatten(mapping: Any) -> tuple[list[Any], tuple[str, ...], tuple[str, ...]]:
    names = tuple(mapping)  # optree's types ask for a function of any collection
    return list(mapping.values()), names, names


def _unflatten(kind: type[Any], names: tuple[str, ...], values: Any) -> Any:
    return kind(zip(names, values, strict=True))
