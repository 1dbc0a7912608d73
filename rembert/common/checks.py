"""Checks of a model call's arguments, by shape and by range of values, before any work is done.

Both frameworks pass plain tuples and ints, so that both refuse the same calls with the same messages. A size that is
not known yet (inside a TensorFlow graph) is None and matches every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rembert.common.arguments import check_argument, integer, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.packed_checks import check_packed_shapes
from rembert.common.shapes import Shape, check_shape

IGNORE_INDEX = -100


def check_input_shapes(
    config: RemBertConfig,
    *,
    input_ids: Shape | None,
    inputs_embeds: Shape | None,
    attention_mask: Shape | None = None,
    token_type_ids: Shape | None = None,
    position_ids: Shape | None = None,
    encoder_hidden_states: Shape | None = None,
    encoder_attention_mask: Shape | None = None,
    cu_seqlens: Shape | None = None,
    cached_layers: int | None = None,
    cached_length: int | None = 0,
) -> None:
    """Refuse a call of the base model with arguments that contradict each other.

    Args:
        config: the model's.
        cached_layers: length of `past_key_values`; None if not given.
        cached_length: positions in the cache; None if unknown.
        Others: the shapes of the arguments of the same names; None if not given.

    Raises:
        InputError: quotes the shapes that contradict each other.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise InputError(
            f"Exactly one of `input_ids` and `inputs_embeds` must be given. Received: "
            f"{'neither' if input_ids is None else 'both'}."
        )
    if cu_seqlens is not None:
        check_packed_shapes(
            config,
            cu_seqlens,
            input_ids=input_ids,
            inputs_embeds=inputs_embeds,
            token_type_ids=token_type_ids,
            position_ids=position_ids,
            refused={
                "attention_mask": attention_mask is not None,
                "past_key_values": cached_layers is not None,
                "encoder_hidden_states": encoder_hidden_states is not None,
                "encoder_attention_mask": encoder_attention_mask is not None,
            },
        )
        return
    batch, length = _batch_and_length(config, input_ids, inputs_embeds)
    total = None if length is None or cached_length is None else length + cached_length
    limit = config.max_position_embeddings
    if position_ids is None and total is not None and total > limit:
        cached = f", {cached_length} of them cached," if cached_length else ""
        raise InputError(
            f"A sequence may have at most `max_position_embeddings={limit}` tokens. Received: {total} tokens{cached} "
            "in a sequence. Truncate it, or split it into windows."
        )
    if token_type_ids is not None:
        check_shape("token_type_ids", token_type_ids, (batch, length), "[batch, sequence]")
    if position_ids is not None:
        rows = 1 if position_ids[:1] == (1,) else batch
        check_shape("position_ids", position_ids, (rows, length), "[batch, sequence] or [1, sequence]")
    if attention_mask is not None:
        full = (batch, length, total) if len(attention_mask) == 3 else (batch, total)
        seen = "cached + sequence" if cached_length else "sequence"
        check_shape("attention_mask", attention_mask, full, f"[batch, {seen}] or [batch, sequence, {seen}]")
    _check_decoder_shapes(config, (batch, length), encoder_hidden_states, encoder_attention_mask, cached_layers)


def _batch_and_length(config: RemBertConfig, input_ids: Shape | None, inputs_embeds: Shape | None) -> Shape:
    """The first two sizes of the inputs, after a check of their shape."""
    if input_ids is not None:
        check_shape("input_ids", input_ids, (None, None), "[batch, sequence]")
        shape = input_ids
    else:
        assert inputs_embeds is not None  # the caller has checked that one is given
        width = config.input_embedding_size
        check_shape("inputs_embeds", inputs_embeds, (None, None, width), f"[batch, sequence, {width}]")
        shape = inputs_embeds[:2]
    if shape[1] == 0:
        raise InputError("A sequence must have at least one token. Received: a sequence length of 0.")
    return shape


def _check_decoder_shapes(
    config: RemBertConfig,
    leading: Shape,
    encoder_hidden_states: Shape | None,
    encoder_attention_mask: Shape | None,
    cached_layers: int | None,
) -> None:
    """The checks of the arguments that only a decoder takes, with inputs of the shape `leading`, [batch, sequence]."""
    batch, length = leading
    if cached_layers is not None and not config.is_decoder:
        raise InputError("`past_key_values` needs a model with `is_decoder=True`. Received: `is_decoder=False`.")
    if cached_layers is not None and cached_layers != config.num_hidden_layers:
        raise InputError(
            "`past_key_values` must have one entry for each layer. Received: "
            f"{cached_layers} entries for `num_hidden_layers={config.num_hidden_layers}`."
        )
    for name, shape in (
        ("encoder_hidden_states", encoder_hidden_states),
        ("encoder_attention_mask", encoder_attention_mask),
    ):
        if shape is not None and not config.add_cross_attention:
            raise InputError(
                f"`{name}` needs a model with cross-attention. Received: `add_cross_attention=False`. Set "
                "`is_decoder=True` and `add_cross_attention=True` in the configuration."
            )
    if encoder_hidden_states is not None:
        wanted = (batch, None, config.hidden_size)
        check_shape("encoder_hidden_states", encoder_hidden_states, wanted, f"[batch, source, {config.hidden_size}]")
    if encoder_attention_mask is not None:
        source = encoder_hidden_states[1] if encoder_hidden_states is not None else None
        full = (batch, length, source) if len(encoder_attention_mask) == 3 else (batch, source)
        check_shape(
            "encoder_attention_mask", encoder_attention_mask, full, "[batch, source] or [batch, sequence, source]"
        )


def check_cache_form(past_key_values: Any) -> None:
    """Refuse a cache that is not a tuple or list with a tuple of tensors of four dimensions for each layer.

    Raises:
        InputError: describes the received value.
    """
    received = None if isinstance(past_key_values, tuple | list) else type(past_key_values).__name__
    for index, layer in enumerate(past_key_values if received is None else ()):
        tensors = layer if isinstance(layer, tuple | list) else ()
        shapes = [list(each.shape) if hasattr(each, "shape") else type(each).__name__ for each in tensors]
        if not shapes or not all(isinstance(shape, list) and len(shape) == 4 for shape in shapes):
            received = f"{shapes if tensors else type(layer).__name__} in entry {index}"
            break
    if received is not None:
        raise InputError(
            "`past_key_values` must be a tuple with one tuple (key, value) for each layer, tensors [batch, heads, "
            f"cached, width of a head], as a call with `use_cache=True` returns it. Received: {received}."
        )


def check_cache(
    config: RemBertConfig,
    batch: int | None,
    layers: Sequence[Sequence[tuple[Shape, str]]],
    dtype: str,
) -> None:
    """Refuse a cache that does not fit the model or the call, or with tensors that do not fit each other.

    Args:
        config: the model's.
        batch: rows of the call; None if unknown.
        layers: for each layer the shape and dtype of its tensors: key, value, and with cross-attention those of the
            source.
        dtype: of the keys and values of this call.

    Raises:
        InputError: quotes the tensor that does not fit.
    """
    length: int | None = None
    for index, layer in enumerate(layers):
        if len(layer) not in ((2, 4) if config.add_cross_attention else (2,)):
            raise InputError(
                "Each entry of `past_key_values` must be (key, value), and in a decoder with cross-attention may hold "
                f"the source's key and value too. Received: {len(layer)} tensors in entry {index}."
            )
        for position, (shape, own_dtype) in enumerate(layer):
            name = f"past_key_values[{index}][{position}]"
            wanted = (batch, config.num_attention_heads, length if position < 2 else None, config.head_dim)
            check_shape(name, shape, wanted, "[batch, heads, cached, width of a head], all layers alike")
            if position == 0:
                length = shape[2]
            elif position == 3:
                check_shape(name, shape, layer[2][0], "of the source's key")
            if own_dtype != dtype:
                raise InputError(
                    f"`{name}` must be of the dtype that the model computes in, {dtype}. Received: {own_dtype}."
                )


def check_indices(name: str, low: int, high: int, size: int, setting: str) -> None:
    """Refuse indices outside a table.

    Args:
        name: the argument.
        low, high: the smallest and the largest index.
        size: rows of the table; indices run from 0 to size - 1.
        setting: the configuration's key that gives the size.

    Raises:
        InputError: quotes the index.
    """
    if low < 0 or high >= size:
        raise InputError(
            f"`{name}` must lie in [0, {size - 1}], as `{setting}={size}`. Received: {low if low < 0 else high}."
        )


def check_labels(name: str, low: int, high: int, count: int, what: str) -> None:
    """Refuse class labels outside [0, count - 1]. `low` and `high` do not count labels of -100, which are ignored.

    Raises:
        InputError: quotes the label and the number of classes, which `what` names.
    """
    if low < 0 or high >= count:
        raise InputError(
            f"`{name}` must lie in [0, {count - 1}] for {count} {what}, or be {IGNORE_INDEX} to be ignored. "
            f"Received: {low if low < 0 else high}."
        )


def check_label_shape(name: str, shape: Shape, wanted: Shape, meaning: str) -> None:
    """Refuse labels of another shape than `wanted`, which `meaning` describes.

    Raises:
        InputError: quotes the shape.
    """
    check_shape(name, shape, wanted, meaning)


def check_logits_at_shape(shape: Shape, leading: Shape) -> None:
    """Refuse positions of logits that are not [batch, positions].

    Args:
        shape: of the positions.
        leading: [batch, sequence], or [tokens] of packed sequences.

    Raises:
        InputError: quotes the shape.
    """
    meaning = "[positions] beside packed inputs" if len(leading) == 1 else "[batch, positions]"
    check_shape("logits_at", shape, (*leading[:-1], None), meaning)


def check_logits_at(low: int, high: int, length: int) -> None:
    """Refuse positions of logits outside the sequence of `length` tokens; `low` and `high` are the extremes.

    Raises:
        InputError: quotes the position.
    """
    if low < 0 or high >= length:
        raise InputError(
            f"`logits_at` must lie in [0, {length - 1}] for {length} tokens. Received: {low if low < 0 else high}."
        )


def resized_vocabulary(config: RemBertConfig, new_num_tokens: int | None, pad_to_multiple_of: int | None) -> int:
    """The number of tokens in a vocabulary after a change of its size.

    Args:
        config: the model's.
        new_num_tokens: the new number; None for the current one.
        pad_to_multiple_of: round the number up to a multiple of this.

    Raises:
        InputError: the number is invalid, or would drop a special token.
    """
    for name, number in (("new_num_tokens", new_num_tokens), ("pad_to_multiple_of", pad_to_multiple_of)):
        check_argument(name, number, optional(integer(at_least=1)))
    size = config.vocab_size if new_num_tokens is None else new_num_tokens
    multiple = pad_to_multiple_of or 1
    size = -(-size // multiple) * multiple
    for name in ("pad_token_id", "bos_token_id", "eos_token_id"):
        ids = getattr(config, name)
        for token in ids if isinstance(ids, list | tuple) else [ids]:
            if token is not None and size <= token < config.vocab_size:
                raise InputError(
                    f"`new_num_tokens` must keep the special tokens in the vocabulary. Received: {size} tokens and "
                    f"`{name}={token}`. Change that key of the configuration first, or keep more tokens."
                )
    return size


def check_head_mask(head_mask: Any) -> None:
    """Refuse a mask of attention heads, an argument of transformers 4 that these models have no use for.

    Raises:
        InputError: it is not None.
    """
    if head_mask is not None:
        raise InputError(
            "`head_mask` must be None: attention heads cannot be masked. In a tuple of inputs the order is input_ids, "
            f"attention_mask, token_type_ids, position_ids, head_mask, inputs_embeds. Received: a "
            f"{type(head_mask).__name__}."
        )


def check_table(config: RemBertConfig, shape: tuple[int, int], has_output: bool) -> None:
    """Check a new table of word embeddings.

    Args:
        config: the model's.
        shape: of the table, [rows, width].
        has_output: whether the model has an output table too, with a row for each token.

    Raises:
        InputError: the width is not `input_embedding_size`, or the rows do not fit the output table.
    """
    width = config.input_embedding_size
    if shape[1] != width or (has_output and shape[0] != config.vocab_size):
        rows = config.vocab_size if has_output else "any number"
        raise InputError(
            f"`value` must be a table of {rows} rows and width {width} (`input_embedding_size`). Received: "
            f"{list(shape)}. `resize_token_embeddings` changes input and output tables together."
        )


def check_choice_shapes(**shapes: Shape | None) -> None:
    """Refuse inputs of a multiple-choice model that are not [batch, choices, sequence] (embeddings: one more).

    Raises:
        InputError: there are neither ids nor embeddings, or a shape does not fit; the message quotes it.
    """
    ids, embeds = shapes.get("input_ids"), shapes.get("inputs_embeds")
    if (ids is None) == (embeds is None):
        raise InputError(
            "Exactly one of `input_ids` and `inputs_embeds` must be given. Received: "
            f"{'neither' if ids is None else 'both'}."
        )
    leading: Shape = ids if ids is not None else (embeds or ())[:-1]
    for name, shape in shapes.items():
        if shape is None:
            continue
        if name == "inputs_embeds":
            check_shape(name, shape, (None, None, None, None), "[batch, choices, sequence, embedding]")
        elif len(leading) != 3:
            check_shape(name, shape, (None, None, None), "[batch, choices, sequence]")
        else:
            check_shape(name, shape, leading, "[batch, choices, sequence]")


def infer_problem_type(config: RemBertConfig, labels_are_integers: bool) -> str:
    """The problem type of a sequence classifier: the one of the configuration, or inferred as transformers does.

    A single label means regression, integer labels mean one class each, other labels several classes each.
    """
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "single_label_classification" if labels_are_integers else "multi_label_classification"
