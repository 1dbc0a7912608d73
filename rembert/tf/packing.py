"""Packing: padding is removed once, before the embeddings, and restored once, after the last layer.

In between the layers see only real tokens, all sequences concatenated. Notation: n sequences of up to s positions, t
real tokens in total.

TensorFlow has no attention kernel for sequences of different lengths, and inside a graph lengths are not known.
Therefore the sequences are packed in order of their lengths, and attention pads groups of similar lengths, `GROUPS` of
them or, if a batch is known to be small, fewer: on mixed lengths this is a tenth faster than padding the whole batch,
forward and backward, and as fast as a loop over the sequences, which is slow for many short ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from rembert.tf.keras_internals import in_xla

Tensor = Any

GROUPS = 4
POSITIONS = 256  # of a batch, for each group: below, the operations of another group take longer than its padding


@dataclass(frozen=True, eq=False)
class TokenIndices:
    """The indices of tokens in a padded layout.

    Attributes:
        shape: [n, s], sizes or scalar tensors; n is 1 for a batch that is already packed.
        indices: [t, 2] int32, the row and the column of each token.
    """

    shape: tuple[Any, ...]
    indices: Tensor

    # The gradient of each of these two operations is the other: no index occurs twice.

    def pack(self, states: Tensor) -> Tensor:
        """[n, s, ...] to [t, ...]."""
        return tf.gather_nd(states, self.indices)

    def unpack(self, states: Tensor) -> Tensor:
        """[t, ...] to [n, s, ...], zeros at padding."""
        rest = states.shape[1:] if None not in tuple(states.shape[1:]) else _sizes(states)[1:]
        padded = tf.scatter_nd(self.indices, states, tf.stack([*self.shape, *rest]))
        known = [size if isinstance(size, int) else None for size in self.shape]
        return tf.ensure_shape(padded, [*known, *states.shape[1:]])


@dataclass(frozen=True, eq=False)
class Group(TokenIndices):
    """The indices of some sequences' tokens in rows as wide as the longest of these sequences.

    Attributes:
        mask: [n, s], True at tokens.
    """

    mask: Tensor


@dataclass(frozen=True, eq=False)
class Packing(TokenIndices):
    """The indices of a batch's real tokens.

    Attributes:
        positions: [t] int32, the position of each token in its own row of the padded batch.
        sizes: [groups] int32, the number of tokens of each group.
        groups: sequences of similar lengths.
    """

    positions: Tensor
    sizes: Tensor
    groups: tuple[Group, ...]


def pack_mask(attention_mask: Tensor) -> Packing:
    """The packing of a padded batch, its sequences in order of their lengths.

    Args:
        attention_mask: [n, s], non-zero at real tokens, which may be anywhere in a row.

    Example:
        >>> packing = pack_mask(tf.constant([[1, 1, 0], [1, 0, 0]]))
        >>> packing.positions.numpy().tolist()
        [0, 0, 1]
        >>> packing.pack(tf.constant([[5, 6, 0], [7, 0, 0]])).numpy().tolist()
        [7, 5, 6]
    """
    real = attention_mask != tf.zeros((), attention_mask.dtype)
    lengths = tf.reduce_sum(tf.cast(real, tf.int32), 1)
    order = tf.argsort(lengths, stable=True)
    # (t, 2): row of the sorted batch, position
    rows, positions = tf.unstack(tf.cast(tf.where(tf.gather(real, order)), tf.int32), axis=1)
    indices = tf.stack([tf.gather(order, rows), positions], 1)
    shape = _sizes(attention_mask)
    return Packing(shape, indices, positions, *_groups(tf.gather(lengths, order), shape))


def pack_lengths(cu_seqlens: Tensor, tokens: Any) -> Packing:
    """The packing of a batch that is already packed: its sequences in order of their lengths.

    Args:
        cu_seqlens: [n + 1] integers from 0 to t.
        tokens: t.
    """
    starts = tf.cast(cu_seqlens, tf.int32)
    lengths = starts[1:] - starts[:-1]
    order = tf.argsort(lengths, stable=True)
    lengths = tf.gather(lengths, order)
    rows = tf.repeat(tf.range(tf.size(lengths)), lengths)
    positions = tf.range(tf.reduce_sum(lengths)) - tf.gather(tf.cumsum(lengths, exclusive=True), rows)
    indices = tf.gather(starts, tf.gather(order, rows)) + positions
    shape = 1, tokens
    return Packing(shape, tf.stack([tf.zeros_like(indices), indices], 1), positions, *_groups(lengths, shape))


def _groups(lengths: Tensor, shape: tuple[Any, ...]) -> tuple[Tensor, tuple[Group, ...]]:
    """The number of tokens of each group of sequences, and the groups.

    Args:
        lengths: [n], sorted.
        shape: of the batch; scalar tensors for sizes that a graph does not know.
    """
    is_known = all(isinstance(size, int) for size in shape)
    parts = min(GROUPS, 1 + math.prod(shape) // POSITIONS) if is_known else GROUPS
    count, sizes, groups = tf.size(lengths), [], []
    for group in range(parts):
        own = lengths[group * count // parts : (group + 1) * count // parts]
        width = tf.reduce_max(tf.concat([own, [1]], 0))  # 1 for a group without tokens
        real = tf.sequence_mask(own, width)
        sizes.append(tf.reduce_sum(own))
        groups.append(Group((tf.size(own), width), tf.cast(tf.where(real), tf.int32), real))
    return tf.stack(sizes), tuple(groups)


Inputs = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True, eq=False)
class Layout:
    """How the tokens of one call are arranged for the layers.

    Attributes:
        inputs: ids, token types, positions and embeddings for the embedding layer; [b, s], or packed [t].
        attention_mask: of padded inputs; None if every query attends to every key.
        packing: of packed inputs.
        restore: maps the layers' states to those that the caller gets.
        arrange: maps those that the caller gets to the layers' states.
    """

    inputs: Inputs
    attention_mask: Tensor | None
    packing: Packing | None
    restore: Callable[[Tensor], Tensor]
    arrange: Callable[[Tensor], Tensor]


def choose_layout(
    inputs: Inputs, attention_mask: Tensor | None, cu_seqlens: Tensor | None, *, compute_all: bool, causal: bool
) -> Layout:
    """Remove padding if the call allows it.

    Args:
        inputs: the call's ids, token types, positions and embeddings; None if not given.
        attention_mask: the call's.
        cu_seqlens: the call's, of inputs that are already packed.
        compute_all: whether every position must be computed: for attention probabilities or a cache.
        causal: whether a token attends to earlier ones only.
    """
    compute_all = compute_all or in_xla()
    if cu_seqlens is not None:
        if compute_all:
            return _one_row(inputs, cu_seqlens, causal)
        inputs = _as_rows(inputs)
        packing = pack_lengths(cu_seqlens, _sizes(inputs[0] if inputs[0] is not None else inputs[3])[1])
    elif attention_mask is None or len(attention_mask.shape) != 2:
        return Layout(inputs, attention_mask, None, _identity, _identity)
    elif _is_all_real(attention_mask):
        return Layout(inputs, None, None, _identity, _identity)
    elif not compute_all:
        packing = pack_mask(attention_mask)
    else:

        def zero_padding(states: Tensor) -> Tensor:
            real = attention_mask[:, -_sizes(states)[1] :]
            real = tf.expand_dims(real != tf.zeros((), real.dtype), -1)
            return tf.where(real, states, tf.zeros((), states.dtype))

        return Layout(inputs, attention_mask, None, zero_padding, _identity)

    ids, types, positions, embeds = inputs
    if positions is None:
        positions = packing.positions
    else:  # a single row of positions applies to all rows
        positions = packing.pack(tf.broadcast_to(positions, tf.stack(packing.shape)))
    ids, types, embeds = (None if each is None else packing.pack(each) for each in (ids, types, embeds))
    restore, arrange = packing.unpack, packing.pack
    if cu_seqlens is not None:
        restore, arrange = lambda states: packing.unpack(states)[0], lambda states: packing.pack(states[None])
    return Layout((ids, types, positions, embeds), None, packing, restore, arrange)


def _one_row(inputs: Inputs, cu_seqlens: Tensor, causal: bool) -> Layout:
    """Packed inputs as a batch of one row, with a [1, t, t] mask that separates the sequences; no shape is unknown."""
    ids, types, positions, embeds = inputs
    tokens, starts = tf.range(_sizes(ids if ids is not None else embeds)[0]), tf.cast(cu_seqlens, tf.int32)
    sequence = tf.searchsorted(starts, tokens, side="right") - 1
    pairs = sequence[:, None] == sequence
    if causal:
        pairs = pairs & (tokens <= tokens[:, None])
    if positions is None:
        positions = tokens - tf.gather(starts, sequence)
    return Layout(_as_rows((ids, types, positions, embeds)), pairs[None], None, _first_row, _as_row)


def _identity(states: Tensor) -> Tensor:
    return states


def _first_row(states: Tensor) -> Tensor:
    return states[0]


def _as_rows(inputs: Inputs) -> Inputs:
    ids, types, positions, embeds = (None if each is None else each[None] for each in inputs)
    return ids, types, positions, embeds


def _as_row(states: Tensor) -> Tensor:
    return states[None]


def first_tokens(states: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None = None) -> Tensor:
    """The state of every sequence's first real token.

    Args:
        states: [b, s, e], or packed [t, e].
        attention_mask: as the model received it. A [b, past + s] mask determines the first real token of each row;
            without one, and in a row without real tokens, it is the first position.
        cu_seqlens: [n + 1] of packed states.

    Returns:
        [b, e], or [n, e].
    """
    if cu_seqlens is not None:
        return tf.gather(states, tf.cast(cu_seqlens[:-1], tf.int32))
    if attention_mask is None or len(attention_mask.shape) != 2:
        return states[:, 0]
    real = attention_mask[:, -_sizes(states)[1] :]
    first = tf.argmax(tf.cast(real != tf.zeros((), real.dtype), tf.int32), 1)
    return tf.gather(states, first, batch_dims=1)


def pad_packed(states: tuple[Tensor, ...], cu_seqlens: Tensor) -> tuple[list[Tensor], Tensor]:
    """Packed states [t, ...] as rows [n, t, ...], zeros at padding, and the mask [n, t] of real tokens.

    The rows are t wide, not as wide as the longest sequence: XLA knows no other width.
    """
    starts = tf.cast(cu_seqlens, tf.int32)
    tokens = _sizes(states[0])[0]
    indices = starts[:-1, None] + tf.range(tokens)  # (n, t)
    mask = indices < starts[1:, None]
    indices = tf.where(mask, indices, 0)
    return [tf.where(mask, tf.gather(each, indices), tf.zeros((), each.dtype)) for each in states], mask


def _is_all_real(attention_mask: Tensor) -> bool:
    """Whether a mask is known to mask nothing; inside a graph this is not known."""
    return tf.executing_eagerly() and bool(tf.reduce_all(attention_mask != tf.zeros((), attention_mask.dtype)))


def _sizes(tensor: Tensor) -> tuple[Any, ...]:
    """A tensor's sizes; scalar tensors for those that a graph does not know."""
    if None not in tuple(tensor.shape):
        return tuple(tensor.shape)
    dynamic = tf.shape(tensor)
    return tuple(dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape))
