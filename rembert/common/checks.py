"""Checks of a model call's arguments, by shape and by range of values, before any work is done.

Both frameworks call these with plain tuples and ints, so both refuse the same calls with the same words. A dimension
that is not known yet (inside a TensorFlow graph) is None and fits anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from rembert.common.arguments import check_argument, integer, optional
from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError

Shape = tuple[int | None, ...]
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
    """Refuse a call of the base model whose arguments do not go together.

    Args:
        config: the model's.
        cached_layers: length of `past_key_values`, None where it is not given.
        cached_length: positions in the cache; None where unknown.
        The rest: the shapes of the arguments of these names, None where not given.

    Raises:
        InputError: quotes the shapes that disagree.
    """
    if (input_ids is None) == (inputs_embeds is None):
        raise InputError(
            f"Exactly one of `input_ids` and `inputs_embeds` must be given. Received: "
            f"{'neither' if input_ids is None else 'both'}."
        )
    if cu_seqlens is not None:
        _check_packed_shapes(
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
    if input_ids is not None:
        _check_shape("input_ids", input_ids, (None, None), "[batch, sequence]")
        batch, length = input_ids
    elif inputs_embeds is not None:
        width = config.input_embedding_size
        _check_shape("inputs_embeds", inputs_embeds, (None, None, width), f"[batch, sequence, {width}]")
        batch, length = inputs_embeds[:2]
    if length == 0:
        raise InputError("A sequence must have at least one token. Received: a sequence length of 0.")

    total = None if length is None or cached_length is None else length + cached_length
    limit = config.max_position_embeddings
    if position_ids is None and total is not None and total > limit:
        cached = f", {cached_length} of them cached," if cached_length else ""
        raise InputError(
            f"A sequence may have at most `max_position_embeddings={limit}` tokens. Received: {total} tokens{cached} "
            "in a sequence. Truncate it, or split it into windows."
        )
    if token_type_ids is not None:
        _check_shape("token_type_ids", token_type_ids, (batch, length), "[batch, sequence]")
    if position_ids is not None:
        rows = 1 if position_ids[:1] == (1,) else batch
        _check_shape("position_ids", position_ids, (rows, length), "[batch, sequence] or [1, sequence]")
    if attention_mask is not None:
        full = (batch, length, total) if len(attention_mask) == 3 else (batch, total)
        seen = "cached + sequence" if cached_length else "sequence"
        _check_shape("attention_mask", attention_mask, full, f"[batch, {seen}] or [batch, sequence, {seen}]")

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
        _check_shape("encoder_hidden_states", encoder_hidden_states, wanted, f"[batch, source, {config.hidden_size}]")
    if encoder_attention_mask is not None:
        source = encoder_hidden_states[1] if encoder_hidden_states is not None else None
        full = (batch, length, source) if len(encoder_attention_mask) == 3 else (batch, source)
        _check_shape(
            "encoder_attention_mask", encoder_attention_mask, full, "[batch, source] or [batch, sequence, source]"
        )


def _check_packed_shapes(
    config: RemBertConfig,
    cu_seqlens: Shape,
    *,
    input_ids: Shape | None,
    inputs_embeds: Shape | None,
    token_type_ids: Shape | None,
    position_ids: Shape | None,
    refused: dict[str, bool],
) -> None:
    for name, given in refused.items():
        if given:
            raise InputError(
                f"Packed inputs (`cu_seqlens`) take no `{name}`: every token is real, and sees its own sequence. "
                f"Received: both `cu_seqlens` and `{name}`. Leave one out."
            )
    _check_shape("cu_seqlens", cu_seqlens, (None,), "[sequences + 1]")
    if cu_seqlens[0] is not None and cu_seqlens[0] < 2:
        raise InputError(
            "`cu_seqlens` must hold the start of every sequence and the end of the last: at least two numbers. "
            f"Received: the shape {list(cu_seqlens)}."
        )
    if input_ids is not None:
        _check_shape("input_ids", input_ids, (None,), "[tokens] beside `cu_seqlens`")
        tokens = input_ids[0]
    elif inputs_embeds is not None:
        width = config.input_embedding_size
        _check_shape("inputs_embeds", inputs_embeds, (None, width), f"[tokens, {width}] beside `cu_seqlens`")
        tokens = inputs_embeds[0]
    for name, shape in (("token_type_ids", token_type_ids), ("position_ids", position_ids)):
        if shape is not None:
            _check_shape(name, shape, (tokens,), "[tokens] beside `cu_seqlens`")


def check_packed_lengths(cu_seqlens: list[int] | None, tokens: int, max_seqlen: int | None, limit: int | None) -> None:
    """Refuse packed sequences whose lengths do not add up.

    Args:
        cu_seqlens: the boundaries, None where they were not given.
        tokens: packed tokens.
        max_seqlen: the longest sequence's length as the caller gave it, or None.
        limit: the longest length that positions counted from 0 allow; None where positions were given.

    Raises:
        InputError: quotes the boundary, or the length, that does not fit.
    """
    if cu_seqlens is None:
        raise InputError(
            f"`max_seqlen` belongs to packed inputs. Received: `max_seqlen={max_seqlen}` without `cu_seqlens`."
        )
    if cu_seqlens[0] != 0 or cu_seqlens[-1] != tokens:
        raise InputError(
            f"`cu_seqlens` must run from 0 to the number of tokens, here {tokens}. Received: from {cu_seqlens[0]} to "
            f"{cu_seqlens[-1]}."
        )
    lengths = [end - start for start, end in pairwise(cu_seqlens)]
    for index, length in enumerate(lengths):
        if length < 1:
            raise InputError(
                "`cu_seqlens` must rise: every sequence has at least one token. Received: "
                f"{cu_seqlens[index]} and then {cu_seqlens[index + 1]} for sequence {index}."
            )
    longest = max(lengths)
    if max_seqlen is not None and max_seqlen < longest:
        raise InputError(
            f"`max_seqlen` must be at least the longest sequence's length, here {longest}. Received: "
            f"`max_seqlen={max_seqlen}`."
        )
    if limit is not None and longest > limit:
        raise InputError(
            f"A sequence may have at most `max_position_embeddings={limit}` tokens. Received: {longest} tokens "
            "in a sequence. Truncate it, or split it into windows."
        )


def check_packed_choices(sequences: int, batch: int | None, num_choices: int | None) -> int:
    """How many choices packed inputs of a multiple-choice model have.

    Args:
        sequences: packed sequences, the choices of one question behind one another.
        batch: questions, as the labels say it; None without labels.
        num_choices: as the caller gave it, or None.

    Raises:
        InputError: neither is given, or the sequences do not divide among them.
    """
    if num_choices is None and not batch:
        raise InputError("Packed inputs of a multiple-choice model need `num_choices` or `labels`. Received: neither.")
    choices = num_choices if num_choices is not None else sequences // (batch or 1)
    if choices < 1 or sequences % choices or (batch is not None and sequences != batch * choices):
        raise InputError(
            "The sequences of a multiple-choice model must be a multiple of its choices. Received: "
            f"{sequences} sequences, `num_choices={num_choices}`" + ("." if batch is None else f" and {batch} labels.")
        )
    return choices


def check_cache_form(past_key_values: Any) -> None:
    """Refuse a cache that is no tuple, or list, of a tuple of tensors with four dimensions for each layer.

    Raises:
        InputError: says what is there instead.
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
    """Refuse a cache that does not fit the model and the call, or that does not fit together.

    Args:
        config: the model's.
        batch: rows of the call; None where unknown.
        layers: for each layer the shape and dtype of its tensors: key, value, and with cross-attention the source's.
        dtype: that keys and values will have.

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
        for place, (shape, own_dtype) in enumerate(layer):
            name = f"past_key_values[{index}][{place}]"
            wanted = (batch, config.num_attention_heads, length if place < 2 else None, config.head_dim)
            _check_shape(name, shape, wanted, "[batch, heads, cached, width of a head], all layers alike")
            if place == 0:
                length = shape[2]
            elif place == 3:
                _check_shape(name, shape, layer[2][0], "of the source's key")
            if own_dtype != dtype:
                raise InputError(
                    f"`{name}` must be of the dtype that the model computes in, {dtype}. Received: {own_dtype}."
                )


def check_indices(name: str, low: int, high: int, size: int, setting: str) -> None:
    """Refuse indices outside a table.

    Args:
        name: the argument that holds them.
        low, high: the smallest and the largest index.
        size: rows of the table; indices run from 0 to size - 1.
        setting: the configuration's key that gives the size.

    Raises:
        InputError: quotes the index that lies outside.
    """
    if low < 0 or high >= size:
        raise InputError(
            f"`{name}` must lie in [0, {size - 1}], as `{setting}={size}`. Received: {low if low < 0 else high}."
        )


def check_labels(name: str, low: int, high: int, count: int, what: str) -> None:
    """Refuse class labels outside [0, count - 1]. `low` and `high` leave out labels of -100, which are ignored.

    Raises:
        InputError: quotes the label that lies outside, and `what` there are `count` of.
    """
    if low < 0 or high >= count:
        raise InputError(
            f"`{name}` must lie in [0, {count - 1}] for {count} {what}, or be {IGNORE_INDEX} to be ignored. "
            f"Received: {low if low < 0 else high}."
        )


def check_label_shape(name: str, shape: Shape, wanted: Shape, meaning: str) -> None:
    """Refuse labels of another shape than `wanted`, which `meaning` says in words.

    Raises:
        InputError: quotes the shape.
    """
    _check_shape(name, shape, wanted, meaning)


def check_logits_at_shape(shape: Shape, leading: Shape) -> None:
    """Refuse positions of logits that are not [batch, positions].

    Args:
        shape: of the positions.
        leading: [batch, sequence], or [tokens] of packed sequences.

    Raises:
        InputError: quotes the shape.
    """
    meaning = "[positions] beside packed inputs" if len(leading) == 1 else "[batch, positions]"
    _check_shape("logits_at", shape, (*leading[:-1], None), meaning)


def check_logits_at(low: int, high: int, length: int) -> None:
    """Refuse positions of logits outside the sequence of `length` tokens; `low` and `high` are the extremes.

    Raises:
        InputError: quotes the position that lies outside.
    """
    if low < 0 or high >= length:
        raise InputError(
            f"`logits_at` must lie in [0, {length - 1}] for {length} tokens. Received: {low if low < 0 else high}."
        )


def resized_vocabulary(config: RemBertConfig, new_num_tokens: int | None, pad_to_multiple_of: int | None) -> int:
    """How many pieces a vocabulary has after a change of its size.

    Args:
        config: the model's.
        new_num_tokens: pieces wanted, None for as many as there are.
        pad_to_multiple_of: rounds the number up to a multiple of this, where given.

    Raises:
        InputError: a number that is none, or one that would cut off a special piece.
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
                    f"`new_num_tokens` must leave the special pieces in the vocabulary. Received: {size} pieces and "
                    f"`{name}={token}`. Change that key of the configuration first, or keep more pieces."
                )
    return size


def check_choice_shapes(**shapes: Shape | None) -> None:
    """Refuse inputs of a multiple-choice model that are not [batch, choices, sequence] (embeddings: one more).

    Raises:
        InputError: neither ids nor embeddings, or a shape that does not fit, quoted.
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
            _check_shape(name, shape, (None, None, None, None), "[batch, choices, sequence, embedding]")
        elif len(leading) != 3:
            _check_shape(name, shape, (None, None, None), "[batch, choices, sequence]")
        else:
            _check_shape(name, shape, leading, "[batch, choices, sequence]")


def infer_problem_type(config: RemBertConfig, labels_are_integers: bool) -> str:
    """Which loss a sequence classifier takes: the configuration's `problem_type`, or inferred as transformers does.

    One label means regression; integer labels one class each; any other labels several classes each.
    """
    if config.problem_type is not None:
        return config.problem_type
    if config.num_labels == 1:
        return "regression"
    return "single_label_classification" if labels_are_integers else "multi_label_classification"


def _check_shape(name: str, shape: Shape, wanted: Shape, meaning: str) -> None:
    fits = len(shape) == len(wanted) and all(
        want is None or got is None or got == want for got, want in zip(shape, wanted, strict=True)
    )
    if not fits:
        sizes = f", here {list(wanted)}" if any(want is not None for want in wanted) else ""
        raise InputError(f"`{name}` must have the shape {meaning}{sizes}. Received: the shape {list(shape)}.")
