"""Checks of a model call's arguments, by shape and by range of values, before any work is done.

Both frameworks call these with plain tuples and ints, so both refuse the same calls with the same words. A dimension
that is not known yet (inside a TensorFlow graph) is None and fits anything.
"""

from __future__ import annotations

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
