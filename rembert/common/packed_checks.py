"""Checks of packed inputs: sequences without padding, concatenated, with their boundaries in `cu_seqlens`."""

from __future__ import annotations

from itertools import pairwise

from rembert.common.config import RemBertConfig
from rembert.common.errors import InputError
from rembert.common.shapes import Shape, check_shape


def check_packed_shapes(
    config: RemBertConfig,
    cu_seqlens: Shape,
    *,
    input_ids: Shape | None,
    inputs_embeds: Shape | None,
    token_type_ids: Shape | None,
    position_ids: Shape | None,
    refused: dict[str, bool],
) -> None:
    """Refuse packed inputs with shapes that contradict each other.

    Args:
        config: the model's.
        cu_seqlens: its shape.
        input_ids, inputs_embeds, token_type_ids, position_ids: their shapes; None if not given.
        refused: whether each argument that packed inputs exclude was given, by name.

    Raises:
        InputError: quotes the shape, or the name of an excluded argument.
    """
    for name, given in refused.items():
        if given:
            raise InputError(
                f"Packed inputs (`cu_seqlens`) take no `{name}`: every token is real and attends to its own sequence. "
                f"Received: both `cu_seqlens` and `{name}`. Omit one of them."
            )
    check_shape("cu_seqlens", cu_seqlens, (None,), "[sequences + 1]")
    if cu_seqlens[0] is not None and cu_seqlens[0] < 2:
        raise InputError(
            "`cu_seqlens` must hold the start of every sequence and the end of the last: at least two numbers. "
            f"Received: the shape {list(cu_seqlens)}."
        )
    if input_ids is not None:
        check_shape("input_ids", input_ids, (None,), "[tokens] beside `cu_seqlens`")
        tokens = input_ids[0]
    elif inputs_embeds is not None:
        width = config.input_embedding_size
        check_shape("inputs_embeds", inputs_embeds, (None, width), f"[tokens, {width}] beside `cu_seqlens`")
        tokens = inputs_embeds[0]
    for name, shape in (("token_type_ids", token_type_ids), ("position_ids", position_ids)):
        if shape is not None:
            check_shape(name, shape, (tokens,), "[tokens] beside `cu_seqlens`")


def check_packed_lengths(cu_seqlens: list[int] | None, tokens: int, max_seqlen: int | None, limit: int | None) -> None:
    """Refuse invalid boundaries of packed sequences.

    Args:
        cu_seqlens: the boundaries; None if not given.
        tokens: the number of packed tokens.
        max_seqlen: the length of the longest sequence as the caller gave it, or None.
        limit: the largest length that positions from 0 allow; None if positions were given.

    Raises:
        InputError: quotes the boundary or length that does not fit.
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
                "`cu_seqlens` must increase: every sequence has at least one token. Received: "
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
    """The number of choices in packed inputs of a multiple-choice model.

    Args:
        sequences: the number of packed sequences; the choices of a question follow each other.
        batch: the number of questions, from the labels; None without labels.
        num_choices: as given by the caller, or None.

    Raises:
        InputError: neither is given, or the number of sequences is not their product.

    Example:
        >>> check_packed_choices(sequences=6, batch=2, num_choices=None)
        3
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
