"""Packing: padding is removed once, before the embeddings, and restored once, after the last layer.

In between the layers see only real tokens, all sequences concatenated. Notation: n sequences of up to s positions, t
real tokens in total.

TensorFlow has no attention kernel for sequences of different lengths, and inside a graph lengths are not known.
Therefore the sequences are packed in order of their lengths, and attention pads `GROUPS` groups of similar lengths: on
mixed lengths this is a tenth faster than padding the whole batch, forward and backward, and as fast as a loop over the
sequences, which is slow for many short ones.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from rembert.tf.keras_internals import in_xla

Tensor = Any

GROUPS = 4


@dataclass(frozen=True, eq=False)
class TokenIndices:
    """The indices of tokens in a padded layout, or in another order.

    Attributes:
        shape: [n, s], or [t] if the tokens are only reordered; sizes, or scalar tensors.
        indices: [t] int32, the index of each token in the flattened layout.
    """

    shape: tuple[Any, ...]
    indices: Tensor

    def pack(self, states: Tensor) -> Tensor:
        """[*shape, ...] to [t, ...]."""
        rest = tf.shape(states)[len(self.shape) :]
        return _take(tf.reshape(states, tf.concat([[-1], rest], 0)), self.indices)

    def unpack(self, states: Tensor) -> Tensor:
        """[t, ...] to [*shape, ...], zeros at padding."""
        size = tf.reduce_prod(tf.stack(self.shape))
        rest = tf.shape(states)[1:]
        flat = tf.scatter_nd(self.indices[:, None], states, tf.concat([[size], rest], 0))
        padded = tf.reshape(flat, tf.concat([tf.stack(self.shape), rest], 0))
        known = [size if isinstance(size, int) else None for size in self.shape]
        return tf.ensure_shape(padded, [*known, *states.shape[1:]])

    def mask(self) -> Tensor:
        """[*shape], True at tokens."""
        return self.unpack(tf.ones_like(self.indices)) != 0


@dataclass(frozen=True, eq=False)
class Packing(TokenIndices):
    """The indices of a batch's real tokens.

    Attributes:
        positions: [t] int32, the position of each token in its own row of the padded batch.
        sizes: [GROUPS] int32, the number of tokens of each group.
        groups: the indices of each group's tokens in rows as wide as its longest sequence.
    """

    positions: Tensor
    sizes: Tensor
    groups: tuple[TokenIndices, ...]


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
    found = tf.where(tf.gather(real, order))  # (t, 2): row of the sorted batch, position
    rows, positions = tf.gather(order, found[:, 0]), tf.cast(found[:, 1], tf.int32)
    shape = _sizes(attention_mask)
    return Packing(shape, rows * shape[1] + positions, positions, *_groups(tf.gather(lengths, order)))


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
    return Packing((tokens,), indices, positions, *_groups(lengths))


def _groups(lengths: Tensor) -> tuple[Tensor, tuple[TokenIndices, ...]]:
    """The number of tokens of each group of sequences, and their indices; `lengths` [n] are sorted."""
    count, sizes, groups = tf.size(lengths), [], []
    for group in range(GROUPS):
        own = lengths[group * count // GROUPS : (group + 1) * count // GROUPS]
        width = tf.reduce_max(tf.concat([own, [1]], 0))  # 1 for a group without tokens
        real = tf.reshape(tf.sequence_mask(own, width), [-1])
        sizes.append(tf.reduce_sum(own))
        groups.append(TokenIndices((tf.size(own), width), tf.cast(tf.where(real)[:, 0], tf.int32)))
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
        ids, types, positions, embeds = inputs
        tokens = _sizes(ids if ids is not None else embeds)[0]
        packing = pack_lengths(cu_seqlens, tokens)
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

    def packed(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        # A single row of positions applies to all rows.
        leading, rest = tf.stack(packing.shape), tf.shape(tensor)[len(packing.shape) :]
        return packing.pack(tf.broadcast_to(tensor, tf.concat([leading, rest], 0)))

    ids, types, positions, embeds = map(packed, inputs)
    positions = packing.positions if positions is None else positions
    return Layout((ids, types, positions, embeds), None, packing, packing.unpack, packing.pack)


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
    row = [None if each is None else each[None] for each in (ids, types, positions, embeds)]
    return Layout((row[0], row[1], row[2], row[3]), pairs[None], None, _first_row, _as_row)


def _identity(states: Tensor) -> Tensor:
    return states


def _first_row(states: Tensor) -> Tensor:
    return states[0]


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


@tf.custom_gradient
def _take(states: Tensor, indices: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, None]]]:
    """Rows of `states`, none of them twice: the gradient is a scatter, faster than the sum that `tf.gather` needs."""

    def gradient(upstream: Tensor) -> tuple[Tensor, None]:
        return tf.scatter_nd(indices[:, None], upstream, tf.shape(states)), None

    return tf.gather(states, indices), gradient


def _sizes(tensor: Tensor) -> tuple[Any, ...]:
    """A tensor's sizes; scalar tensors for those that a graph does not know."""
    dynamic = tf.shape(tensor)
    return tuple(dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape))
