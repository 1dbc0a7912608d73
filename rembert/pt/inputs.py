"""Checks of a call's tensors; the rules themselves stand in `rembert.common.checks`."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from rembert.common.checks import (
    IGNORE_INDEX,
    check_choice_shapes,
    check_indices,
    check_input_shapes,
    check_label_shape,
    check_labels,
)
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.pt.cache import Cache, cached_length


def check_inputs(config: RemBertConfig, *, past_key_values: Cache | None, **tensors: Tensor | None) -> None:
    """Refuse arguments of the base model that do not go together, or indices outside their tables.

    Raises:
        InputError: see `rembert.common.checks`. Values are not looked at inside compiled graphs.
    """
    check_input_shapes(
        config,
        **{name: _shape(name, tensor) for name, tensor in tensors.items()},
        cached_layers=None if past_key_values is None else len(past_key_values),
        cached_length=cached_length(past_key_values),
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
        if _values_can_be_read(indices):
            check_indices(name, *_range(indices), size, setting)


def check_choices(**tensors: Tensor | None) -> None:
    """Refuse inputs of a multiple-choice model that are not [batch, choices, sequence].

    Raises:
        InputError: see `rembert.common.checks`.
    """
    check_choice_shapes(**{name: _shape(name, tensor) for name, tensor in tensors.items()})


def check_class_labels(name: str, labels: Tensor, count: int, what: str, shape: tuple[int, ...], meaning: str) -> None:
    """Refuse class labels of the wrong shape, or outside [0, count - 1] and not -100.

    Raises:
        InputError: see `rembert.common.checks`. Values are not looked at inside compiled graphs.
    """
    check_label_shape(name, tuple(labels.shape), shape, meaning)
    check_integers(name, labels)
    if _values_can_be_read(labels):
        counted = labels[labels != IGNORE_INDEX]
        if counted.numel():
            check_labels(name, *_range(counted), count, what)


def check_token_labels(labels: Tensor, count: int, what: str, *inputs: Tensor | None) -> None:
    """Refuse labels that are not [b, s] as the first given of `inputs`, or outside [0, count - 1] and not -100.

    Raises:
        InputError: see `rembert.common.checks`.
    """
    given = next((tensor for tensor in inputs if tensor is not None), None)
    if given is not None:  # the base model refuses a call without inputs
        check_class_labels("labels", labels, count, what, tuple(given.shape[:2]), "[batch, sequence]")


def check_positions(name: str, positions: Tensor | None, *inputs: Tensor | None) -> None:
    """Refuse answer positions that are not integers [b] (or [b, 1]); any value is allowed.

    Raises:
        InputError: quotes the shape or dtype.
    """
    given = next((tensor for tensor in inputs if tensor is not None), None)
    if positions is None or given is None:
        return
    batch = given.shape[0]
    wanted = (batch, 1) if positions.ndim == 2 else (batch,)
    check_label_shape(name, tuple(positions.shape), wanted, "[batch]")
    check_integers(name, positions)


def check_integers(name: str, tensor: Tensor) -> None:
    """Refuse a tensor that does not hold integers.

    Raises:
        InputError: quotes the dtype.
    """
    if not is_integer(tensor):
        dtype = str(tensor.dtype).removeprefix("torch.")
        raise InputError(f"`{name}` must hold integers. Received: a tensor of {dtype}.")


def is_integer(tensor: Tensor) -> bool:
    """Whether a tensor's dtype is an integer one (bool is not)."""
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


def _shape(name: str, tensor: Any) -> tuple[int, ...] | None:
    if tensor is None:
        return None
    if not isinstance(tensor, Tensor):
        raise InputError(f"`{name}` must be a torch.Tensor. Received: {type(tensor).__name__}.")
    return tuple(tensor.shape)


def _values_can_be_read(tensor: Tensor) -> bool:
    # Reading values would break a graph in two while it is traced, and a meta tensor has none.
    tracing = torch.compiler.is_compiling() or torch.jit.is_tracing()
    return not tracing and tensor.device.type != "meta" and tensor.numel() > 0


def _range(tensor: Tensor) -> tuple[int, int]:
    low, high = torch.aminmax(tensor)
    return int(low), int(high)
