"""A call's tensors: unpacked from dicts and tuples, and checked by the rules in `rembert.common.checks`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from rembert.common import checks as common_checks
from rembert.common.checks import (
    IGNORE_INDEX,
    check_cache_form,
    check_choice_shapes,
    check_head_mask,
    check_indices,
    check_input_shapes,
    check_label_shape,
    check_labels,
    check_logits_at,
    check_logits_at_shape,
)
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.packed_checks import check_packed_lengths
from rembert.common.shapes import Shape
from rembert.tf.cache import Cache

Tensor = Any

TEXT = "`input_ids` must hold token ids. Received: text. Pass `tokenizer(texts, padding=True, return_tensors='tf')`."


def accepts_structures(call: Callable[..., Any]) -> Callable[..., Any]:
    """Let a model's `call` take its arguments as one dict by name, or as one sequence in order, as Keras passes them.

    Raises:
        InputError: a key is not an argument, an argument is given twice, or there are too many values.
    """
    names = argument_names(call)

    @functools.wraps(call)
    def unpacking(self: Any, input_ids: Any = None, *args: Any, **kwargs: Any) -> Any:
        if isinstance(input_ids, Mapping | tuple | list):
            given = by_name(type(self).__name__, input_ids, names)
            return call(self, **_together(given, {**dict(zip(names[1:], args, strict=False)), **kwargs}))
        return call(self, input_ids, *args, **kwargs)

    return unpacking


def argument_names(call: Callable[..., Any]) -> list[str]:
    """The names of a model's arguments, in their order."""
    return [name for name in inspect.signature(call).parameters if name != "self"]


def by_name(model: str, inputs: Any, names: list[str]) -> dict[str, Any]:
    """The values of one dict or sequence by argument name."""
    if isinstance(inputs, Mapping):
        unknown = [str(name) for name in inputs if name not in names]
        if unknown:
            raise InputError(
                f"The inputs of {model} may have the keys {', '.join(names)}. Received also: {', '.join(unknown)}."
            )
        return dict(inputs)
    if len(inputs) > len(names):
        raise InputError(f"{model} takes at most {len(names)} inputs. Received: {len(inputs)}.")
    return dict(zip(names, inputs, strict=False))


def _together(given: dict[str, Any], named: dict[str, Any]) -> dict[str, Any]:
    """Inputs and arguments; what Keras adds by itself (`training`) gives way to the same key among the inputs."""
    twice = [name for name, value in named.items() if value is not None and name != "training" and name in given]
    if twice:
        raise InputError(f"`{twice[0]}` was given twice: among the inputs and as an argument of its own.")
    return {**named, **given}


def check_inputs(
    config: RemBertConfig,
    *,
    past_key_values: Cache | None,
    head_mask: None = None,
    max_seqlen: int | None = None,
    **tensors: Tensor | None,
) -> None:
    """Refuse arguments of the base model that contradict each other, or indices outside their tables.

    Raises:
        InputError: see `rembert.common.checks`. Values are not checked inside graphs.
    """
    check_head_mask(head_mask)
    if past_key_values is not None:
        check_cache_form(past_key_values)
    check_input_shapes(
        config,
        **{name: _shape(name, tensor) for name, tensor in tensors.items()},
        cached_layers=None if past_key_values is None else len(past_key_values),
        cached_length=past_key_values[0][0].shape[2] if past_key_values else 0,
    )
    for name, size, setting in (
        ("input_ids", config.vocab_size, "vocab_size"),
        ("token_type_ids", config.type_vocab_size, "type_vocab_size"),
        ("position_ids", config.max_position_embeddings, "max_position_embeddings"),
    ):
        indices = tensors[name]
        if indices is None:
            continue
        check_integers(name, indices)
        values = _values(indices)
        if values is not None and values.size:
            check_indices(name, int(values.min()), int(values.max()), size, setting)
    cu_seqlens = tensors.get("cu_seqlens")
    if cu_seqlens is not None:
        check_integers("cu_seqlens", cu_seqlens)
        values = _values(cu_seqlens)
        if values is not None:
            given = next(each for each in (tensors["input_ids"], tensors["inputs_embeds"]) if each is not None)
            limit = config.max_position_embeddings if tensors["position_ids"] is None else None
            check_packed_lengths(values.tolist(), given.shape[0], max_seqlen, limit)
    elif max_seqlen is not None:
        check_packed_lengths(None, 0, max_seqlen, None)


def check_cache(config: RemBertConfig, past_key_values: Cache | None, dtype: str, *inputs: Tensor | None) -> None:
    """Refuse a cache whose tensors do not fit the model, the batch of the first given of `inputs`, or each other.

    Raises:
        InputError: see `rembert.common.checks`.
    """
    if past_key_values is None:
        return
    layers = [
        [(_shape("past_key_values", tensor) or (), tf.as_dtype(tensor.dtype).name) for tensor in layer]
        for layer in past_key_values
    ]
    given = next((tensor for tensor in inputs if tensor is not None), None)
    common_checks.check_cache(config, None if given is None else given.shape[0], layers, dtype)


def check_choices(**tensors: Tensor | None) -> None:
    """Refuse inputs of a multiple-choice model that are not [batch, choices, sequence].

    Raises:
        InputError: see `rembert.common.checks`.
    """
    check_choice_shapes(**{name: _shape(name, tensor) for name, tensor in tensors.items()})


def check_class_labels(name: str, labels: Tensor, count: int | None, what: str, shape: Shape, meaning: str) -> None:
    """Refuse class labels of the wrong shape, or outside [0, count - 1] and not -100.

    Raises:
        InputError: see `rembert.common.checks`. Values are not checked inside graphs.
    """
    check_tensor(name, labels)
    check_label_shape(name, tuple(labels.shape), shape, meaning)
    check_integers(name, labels)
    values = _values(labels)
    if values is not None and count is not None:
        counted = values[values != IGNORE_INDEX]
        if counted.size:
            check_labels(name, int(counted.min()), int(counted.max()), count, what)


def check_token_labels(labels: Tensor, count: int, what: str, *inputs: Tensor | None) -> None:
    """Refuse labels that are not [b, s] as the first given of `inputs`, or outside [0, count - 1] and not -100.

    Raises:
        InputError: see `rembert.common.checks`.
    """
    given = next((tensor for tensor in inputs if tensor is not None), None)
    if given is not None:  # the base model refuses a call without inputs
        wanted = tuple(given.shape if is_integer(given) else given.shape[:-1])
        meaning = "[tokens]" if len(wanted) == 1 else "[batch, sequence]"
        check_class_labels("labels", labels, count, what, wanted, meaning)


def check_prediction(
    labels: Tensor | None,
    logits_at: Tensor | None,
    count: int,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
) -> None:
    """Refuse labels and `logits_at` of a language model that do not fit each other and the inputs.

    Raises:
        InputError: see `rembert.common.checks`. Values are not checked inside graphs.
    """
    if input_ids is None and inputs_embeds is None:
        return  # refused by the base model
    leading = tuple(input_ids.shape) if input_ids is not None else tuple(inputs_embeds.shape[:-1])  # type: ignore[union-attr]
    shape, meaning = leading, "[tokens]" if len(leading) == 1 else "[batch, sequence]"
    if logits_at is not None:
        shape, meaning = _shape("logits_at", logits_at) or (), "of `logits_at`"
        check_logits_at_shape(shape, leading)
        check_integers("logits_at", logits_at)
        values = _values(logits_at)
        if values is not None and values.size and leading[-1] is not None:
            check_logits_at(int(values.min()), int(values.max()), leading[-1])
    if labels is not None:
        check_class_labels("labels", labels, count, "tokens", shape, meaning)


def check_positions(name: str, positions: Tensor | None, batch: int | None) -> None:
    """Refuse answer positions that are not integers [b] (or [b, 1]); any value is allowed.

    Raises:
        InputError: quotes the shape or dtype.
    """
    if positions is None:
        return
    check_tensor(name, positions)
    wanted = (batch, 1) if len(positions.shape) == 2 else (batch,)
    check_label_shape(name, tuple(positions.shape), wanted, "[batch]")
    check_integers(name, positions)


def count_sequences(input_ids: Tensor | None, inputs_embeds: Tensor | None, cu_seqlens: Tensor | None) -> int | None:
    """The number of sequences in a call, for the check of its labels; None if unknown or refused later."""
    if cu_seqlens is not None:
        known = hasattr(cu_seqlens, "shape") and len(cu_seqlens.shape) == 1 and cu_seqlens.shape[0] is not None
        return cu_seqlens.shape[0] - 1 if known else None
    given = input_ids if input_ids is not None else inputs_embeds
    return getattr(given, "shape", (None,))[0]


def check_tensor(name: str, value: Any) -> None:
    """Refuse what is not a tensor or an array, texts, and ragged tensors, which a model's call pads before.

    Raises:
        InputError: names its type.
    """
    if isinstance(value, tf.RaggedTensor):
        raise InputError(f"`{name}` must be a dense tensor. Received: a RaggedTensor. Pad it with `to_tensor`.")
    if not hasattr(value, "shape") or not hasattr(value, "dtype"):
        raise InputError(f"`{name}` must be a tensor or an array. Received: {type(value).__name__}.")
    if name == "input_ids" and is_text(value):
        raise InputError(TEXT)


def is_text(value: Any) -> bool:
    """Whether a tensor or an array holds strings."""
    return tf.as_dtype(value.dtype) == tf.string


def check_integers(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that does not hold integers.

    Raises:
        InputError: quotes the dtype.
    """
    if not is_integer(tensor):
        raise InputError(f"`{name}` must hold integers. Received: a tensor of {tf.as_dtype(tensor.dtype).name}.")


def is_integer(tensor: Tensor) -> bool:
    """Whether a tensor's dtype is an integer one (bool is not)."""
    return tf.as_dtype(tensor.dtype).is_integer


def _shape(name: str, tensor: Any) -> Shape | None:
    if tensor is None:
        return None
    check_tensor(name, tensor)
    return tuple(tensor.shape)


def _values(tensor: Tensor) -> np.ndarray | None:
    """The numbers of an eager tensor; None inside a graph."""
    if isinstance(tensor, np.ndarray):
        return tensor
    return tensor.numpy() if isinstance(tensor, tf.Tensor) and tf.executing_eagerly() else None
