"""Checks of a call's tensors, by the rules in `rembert.common.checks`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

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
from rembert.pt.cache import Cache, CacheBuffer, CacheView, cached_length
from rembert.pt.torch_internals import has_values, is_dispatched


def check_inputs(
    config: RemBertConfig,
    table: nn.Embedding | None = None,
    *,
    past_key_values: Cache | None,
    head_mask: None = None,
    max_seqlen: int | None = None,
    **tensors: Tensor | None,
) -> None:
    """Refuse arguments of the base model that contradict each other, or indices outside their tables.

    Args:
        config: the model's.
        table: the model's word embeddings, on the device where the tensors must be; None if another call checks that.
        past_key_values: the call's.
        max_seqlen: the call's.
        **tensors: the call's, by argument name.

    Raises:
        InputError: see `rembert.common.checks`. Values are not checked inside compiled graphs.
    """
    check_head_mask(head_mask)
    if past_key_values is not None:
        check_cache_form(past_key_values)
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
        if values_can_be_read(indices):
            check_indices(name, *_range(indices), size, setting)
    if table is not None:
        check_devices(table, **tensors)
    cu_seqlens = tensors.get("cu_seqlens")
    if cu_seqlens is not None:
        check_integers("cu_seqlens", cu_seqlens)
        if values_can_be_read(cu_seqlens):
            given = next(each for each in (tensors["input_ids"], tensors["inputs_embeds"]) if each is not None)
            limit = config.max_position_embeddings if tensors["position_ids"] is None else None
            check_packed_lengths(cu_seqlens.tolist(), given.shape[0], max_seqlen, limit)
    elif max_seqlen is not None:
        check_packed_lengths(None, 0, max_seqlen, None)


def check_devices(table: nn.Embedding, **tensors: Tensor | None) -> None:
    """Refuse tensors on another device than the model.

    Args:
        table: the model's word embeddings.
        **tensors: the call's, by argument name.

    Raises:
        InputError: names the tensor and both devices.
    """
    if is_dispatched(table):
        return  # Accelerate moves weights and inputs at every layer
    device = table.weight.device
    for name, tensor in tensors.items():
        if tensor is not None and tensor.device != device:
            raise InputError(
                f"`{name}` must be on the model's device, {device}. Received: a tensor on {tensor.device}. Move it "
                f"with `{name}.to(model.device)`, or the model with `model.to({str(tensor.device)!r})`."
            )


def check_label_devices(input_ids: Tensor | None, inputs_embeds: Tensor | None, **labels: Tensor | None) -> None:
    """Refuse labels on another device than the inputs, which the base model compares with its own.

    Raises:
        InputError: names the tensor and both devices.
    """
    device = getattr(input_ids if input_ids is not None else inputs_embeds, "device", None)
    for name, tensor in labels.items():
        if isinstance(tensor, Tensor) and device is not None and tensor.device != device:
            raise InputError(
                f"`{name}` must be on the device of the inputs, {device}. Received: a tensor on {tensor.device}. Move "
                f"it with `{name}.to({str(device)!r})`."
            )


def check_cache(
    config: RemBertConfig, past_key_values: Cache | None, dtype: torch.dtype, *inputs: Tensor | None
) -> None:
    """Refuse a cache whose tensors do not fit the model, the batch of the first given of `inputs`, or each other.

    Raises:
        InputError: see `rembert.common.checks`.
    """
    if past_key_values is None or any(
        isinstance(layer[0], CacheBuffer | CacheView) for layer in past_key_values if layer
    ):
        return  # generation allocates its own cache to fit, and the owner of a view checks it
    layers = [
        [(_shape("past_key_values", tensor) or (), _name(tensor.dtype)) for tensor in layer]
        for layer in past_key_values
    ]
    given = next((tensor for tensor in inputs if tensor is not None), None)
    common_checks.check_cache(config, None if given is None else given.shape[0], layers, _name(dtype))


def check_choices(**tensors: Tensor | None) -> None:
    """Refuse inputs of a multiple-choice model that are not [batch, choices, sequence].

    Raises:
        InputError: see `rembert.common.checks`.
    """
    check_choice_shapes(**{name: _shape(name, tensor) for name, tensor in tensors.items()})


def check_class_labels(name: str, labels: Tensor, count: int, what: str, shape: tuple[int, ...], meaning: str) -> None:
    """Refuse class labels of the wrong shape, or outside [0, count - 1] and not -100.

    Raises:
        InputError: see `rembert.common.checks`. Values are not checked inside compiled graphs.
    """
    check_tensor(name, labels)
    check_label_shape(name, tuple(labels.shape), shape, meaning)
    check_integers(name, labels)
    if values_can_be_read(labels):
        counted = labels[labels.long() != IGNORE_INDEX]  # in a byte, -100 would be 156
        if counted.numel():
            check_labels(name, *_range(counted), count, what)


def check_token_labels(
    labels: Tensor, count: int, what: str, input_ids: Tensor | None, inputs_embeds: Tensor | None
) -> None:
    """Refuse labels that are not [b, s] (packed: [t]) as the inputs are, or outside [0, count - 1] and not -100.

    Raises:
        InputError: see `rembert.common.checks`.
    """
    if input_ids is None and inputs_embeds is None:
        return  # refused by the base model
    check_label_devices(input_ids, inputs_embeds, labels=labels)
    wanted = tuple(input_ids.shape) if input_ids is not None else tuple(inputs_embeds.shape[:-1])  # type: ignore[union-attr]
    check_class_labels("labels", labels, count, what, wanted, "[tokens]" if len(wanted) == 1 else "[batch, sequence]")


def check_prediction(
    labels: Tensor | None,
    logits_at: Tensor | None,
    count: int,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
) -> None:
    """Refuse labels and `logits_at` of a language model that do not fit each other and the inputs.

    Raises:
        InputError: see `rembert.common.checks`. Values are not checked inside compiled graphs.
    """
    if input_ids is None and inputs_embeds is None:
        return  # refused by the base model
    if input_ids is not None:
        check_tensor("input_ids", input_ids)
    check_label_devices(input_ids, inputs_embeds, labels=labels, logits_at=logits_at)
    leading = tuple(input_ids.shape) if input_ids is not None else tuple(inputs_embeds.shape[:-1])  # type: ignore[union-attr]
    shape, meaning = leading, "[tokens]" if len(leading) == 1 else "[batch, sequence]"
    if logits_at is not None:
        shape, meaning = _shape("logits_at", logits_at) or (), "of `logits_at`"
        check_logits_at_shape(shape, leading)
        check_integers("logits_at", logits_at)
        if values_can_be_read(logits_at):
            check_logits_at(*_range(logits_at), leading[-1])
    if labels is not None:
        check_class_labels("labels", labels, count, "tokens", shape, meaning)


def kept_positions(
    logits_to_keep: int | Tensor,
    logits_at: Tensor | None,
    input_ids: Tensor | None,
    inputs_embeds: Tensor | None,
    cu_seqlens: Tensor | None,
) -> Tensor | None:
    """The positions [b, k] that have logits, or None for all; see `RemBertForCausalLM.forward`.

    Raises:
        InputError: they are chosen twice, do not go with packed inputs, or are a mask of booleans, which may choose
            another number in each row.
    """
    given = input_ids if input_ids is not None else inputs_embeds
    if given is None or (isinstance(logits_to_keep, int) and logits_to_keep == 0):
        return logits_at
    if logits_at is not None or cu_seqlens is not None:
        other = "`logits_at`" if logits_at is not None else "packed inputs (`cu_seqlens`), which take `logits_at`"
        raise InputError(f"`logits_to_keep` does not go with {other}. Received: both.")
    batch, length = given.shape[:2]
    if isinstance(logits_to_keep, int):
        logits_to_keep = torch.arange(max(length - logits_to_keep, 0), length, device=given.device)
    check_tensor("logits_to_keep", logits_to_keep)
    if logits_to_keep.dtype == torch.bool:
        raise InputError("`logits_to_keep` must be a number or positions. Received: booleans. Use `logits_at`.")
    positions = logits_to_keep.expand(batch, -1)
    return torch.where(positions < 0, positions + length, positions)  # negative ones count from the end


def check_positions(name: str, positions: Tensor | None, batch: int | None) -> None:
    """Refuse answer positions that are not integers [b] (or [b, 1]); any value is allowed.

    Raises:
        InputError: quotes the shape or dtype.
    """
    if positions is None or batch is None:
        return
    check_tensor(name, positions)
    wanted = (batch, 1) if positions.ndim == 2 else (batch,)
    check_label_shape(name, tuple(positions.shape), wanted, "[batch]")
    check_integers(name, positions)


def count_sequences(input_ids: Tensor | None, inputs_embeds: Tensor | None, cu_seqlens: Tensor | None) -> int | None:
    """The number of sequences in a call, for the check of its labels; None for a call that the base model refuses."""
    if cu_seqlens is not None:
        return cu_seqlens.shape[0] - 1 if isinstance(cu_seqlens, Tensor) and cu_seqlens.ndim == 1 else None
    given = input_ids if input_ids is not None else inputs_embeds
    if given is None:
        return None
    check_tensor("input_ids" if given is input_ids else "inputs_embeds", given)
    return given.shape[0]


def check_tensor(name: str, value: Any) -> None:
    """Refuse what is not a tensor.

    Raises:
        InputError: names its type.
    """
    if isinstance(value, Mapping):
        raise InputError(f"`{name}` must be a torch.Tensor. Received: a mapping. Unpack it: `model(**batch)`.")
    if not isinstance(value, Tensor):
        raise InputError(f"`{name}` must be a torch.Tensor. Received: {type(value).__name__}.")


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


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _shape(name: str, tensor: Any) -> tuple[int, ...] | None:
    if tensor is None:
        return None
    check_tensor(name, tensor)
    return tuple(tensor.shape)


def values_can_be_read(tensor: Tensor) -> bool:
    """Whether a tensor's values can be read: in a graph that is being traced, reading them would break it in two."""
    if torch.compiler.is_compiling() or torch.jit.is_tracing() or tensor.device.type == "meta":
        return False
    if not has_values(tensor) or not tensor.numel():
        return False
    return not (tensor.is_cuda and torch.cuda.is_current_stream_capturing())


def _range(tensor: Tensor) -> tuple[int, int]:
    low, high = torch.stack(torch.aminmax(tensor)).tolist()  # one wait for the device
    return low, high
