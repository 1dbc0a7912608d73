"""Batches without their padding: taken out once before the embeddings, put back once after the last layer.

Between the two the layers see only real tokens, one sequence behind the other. Notation: n sequences of up to s
places, t real tokens in all.

TensorFlow has no attention for sequences of several lengths, and a graph knows no lengths. So the sequences are packed
in the order of their lengths, and attention pads `GROUPS` groups of like lengths: on mixed lengths a tenth faster than
the whole batch padded, forward and backward, and as fast as a loop over the sequences, which is slow for many short
ones.
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
class Places:
    """Where tokens stand in a layout with padding, or in another order.

    Attributes:
        shape: [n, s], or [t] where they only stand in another order; sizes, or scalar tensors.
        indices: [t] int32, the place of each token in the flattened layout.
    """

    shape: tuple[Any, ...]
    indices: Tensor

    def pack(self, states: Tensor) -> Tensor:
        """[*shape, ...] to [t, ...]."""
        rest = tf.shape(states)[len(self.shape) :]
        return _take(tf.reshape(states, tf.concat([[-1], rest], 0)), self.indices)

    def unpack(self, states: Tensor) -> Tensor:
        """[t, ...] to [*shape, ...], zero where there is padding."""
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
class Packing(Places):
    """Where the real tokens of a batch stand.

    Attributes:
        positions: [t] int32, each token's place in its own row.
        sizes: [GROUPS] int32, the tokens of each group.
        groups: where each group's tokens stand in rows as wide as its longest sequence.
    """

    positions: Tensor
    sizes: Tensor
    groups: tuple[Places, ...]


def pack_mask(attention_mask: Tensor) -> Packing:
    """The packing of a padded batch.

    Args:
        attention_mask: [n, s], non-zero for real tokens, in any places.
    """
    real = attention_mask != tf.zeros((), attention_mask.dtype)
    lengths = tf.reduce_sum(tf.cast(real, tf.int32), 1)
    order = tf.argsort(lengths, stable=True)
    found = tf.where(tf.gather(real, order))  # (t, 2): row of the sorted batch, place
    rows, places = tf.gather(order, found[:, 0]), tf.cast(found[:, 1], tf.int32)
    shape = _sizes(attention_mask)
    return Packing(shape, rows * shape[1] + places, places, *_groups(tf.gather(lengths, order)))


def pack_lengths(cu_seqlens: Tensor, tokens: Any) -> Packing:
    """The packing of a batch that came packed: its sequences in the order of their lengths.

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


def _groups(lengths: Tensor) -> tuple[Tensor, tuple[Places, ...]]:
    """How many tokens each group of sequences has, and where they stand; `lengths` [n] are sorted."""
    count, sizes, groups = tf.size(lengths), [], []
    for group in range(GROUPS):
        own = lengths[group * count // GROUPS : (group + 1) * count // GROUPS]
        width = tf.reduce_max(tf.concat([own, [1]], 0))  # 1 for a group of no, or of empty, sequences
        real = tf.reshape(tf.sequence_mask(own, width), [-1])
        sizes.append(tf.reduce_sum(own))
        groups.append(Places((tf.size(own), width), tf.cast(tf.where(real)[:, 0], tf.int32)))
    return tf.stack(sizes), tuple(groups)


Inputs = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Layout:
    """How the tokens of one call lie while the layers work on them.

    Attributes:
        inputs: ids, token types, positions and embeddings as the embeddings take them; [b, s], or packed [t].
        attention_mask: of padded inputs, where not all may look everywhere.
        packing: of packed inputs.
        restore: from the layers' states to those that the caller sees.
    """

    inputs: Inputs
    attention_mask: Tensor | None
    packing: Packing | None
    restore: Callable[[Tensor], Tensor]


def lay_out(
    inputs: Inputs, attention_mask: Tensor | None, cu_seqlens: Tensor | None, *, needs_all: bool, causal: bool
) -> Layout:
    """Take padding out where that may be done.

    Args:
        inputs: the call's ids, token types, positions and embeddings, None where not given.
        attention_mask: the call's.
        cu_seqlens: the call's, of inputs that came packed.
        needs_all: whether every position must be computed: for attention probabilities or a cache.
        causal: whether a token looks at earlier ones only.
    """
    needs_all = needs_all or in_xla()
    if cu_seqlens is not None:
        if needs_all:
            return _one_row(inputs, cu_seqlens, causal)
        ids, types, positions, embeds = inputs
        tokens = _sizes(ids if ids is not None else embeds)[0]
        packing = pack_lengths(cu_seqlens, tokens)
    elif attention_mask is None or len(attention_mask.shape) != 2:
        return Layout(inputs, attention_mask, None, _as_it_is)
    elif _is_all_real(attention_mask):
        return Layout(inputs, None, None, _as_it_is)
    elif not needs_all:
        packing = pack_mask(attention_mask)
    else:

        def without_padding(states: Tensor) -> Tensor:
            real = attention_mask[:, -_sizes(states)[1] :]
            real = tf.expand_dims(real != tf.zeros((), real.dtype), -1)
            return tf.where(real, states, tf.zeros((), states.dtype))

        return Layout(inputs, attention_mask, None, without_padding)

    def packed(tensor: Tensor | None) -> Tensor | None:
        if tensor is None:
            return None
        # A single row of positions stands for all rows.
        leading, rest = tf.stack(packing.shape), tf.shape(tensor)[len(packing.shape) :]
        return packing.pack(tf.broadcast_to(tensor, tf.concat([leading, rest], 0)))

    ids, types, positions, embeds = map(packed, inputs)
    positions = packing.positions if positions is None else positions
    return Layout((ids, types, positions, embeds), None, packing, packing.unpack)


def _is_all_real(attention_mask: Tensor) -> bool:
    """Whether a mask is known to mask nothing; in a graph it is not known."""
    return tf.executing_eagerly() and bool(tf.reduce_all(attention_mask != tf.zeros((), attention_mask.dtype)))


def _one_row(inputs: Inputs, cu_seqlens: Tensor, causal: bool) -> Layout:
    """Packed inputs as a batch of one row, where a mask of pairs keeps the sequences apart; no shape is unknown."""
    ids, types, positions, embeds = inputs
    tokens = _sizes(ids if ids is not None else embeds)[0]
    places, starts = tf.range(tokens), tf.cast(cu_seqlens, tf.int32)
    sequence = tf.searchsorted(starts, places, side="right") - 1
    pairs = sequence[:, None] == sequence
    if causal:
        pairs = pairs & (places <= places[:, None])
    if positions is None:
        positions = places - tf.gather(starts, sequence)
    row = [None if each is None else each[None] for each in (ids, types, positions, embeds)]
    return Layout((row[0], row[1], row[2], row[3]), pairs[None], None, _first_row)


def _as_it_is(states: Tensor) -> Tensor:
    return states


def _first_row(states: Tensor) -> Tensor:
    return states[0]


def first_tokens(states: Tensor, attention_mask: Tensor | None, cu_seqlens: Tensor | None = None) -> Tensor:
    """The state of every sequence's first real token.

    Args:
        states: [b, s, e], or packed [t, e].
        attention_mask: as the model took it. A [b, past + s] mask says where a row's first real token stands; without
            one, and in a row without real tokens, it is the first position.
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
    """Packed states [t, ...] as rows [n, s, ...], zero where there is padding, and the mask [n, s] of real tokens.

    The rows are t wide and not as wide as the longest: XLA knows no other width.
    """
    starts = tf.cast(cu_seqlens, tf.int32)
    tokens = _sizes(states[0])[0]
    places = starts[:-1, None] + tf.range(tokens)  # (n, t)
    mask = places < starts[1:, None]
    places = tf.where(mask, places, 0)
    return [tf.where(mask, tf.gather(each, places), tf.zeros((), each.dtype)) for each in states], mask


@tf.custom_gradient
def _take(states: Tensor, indices: Tensor) -> tuple[Tensor, Callable[[Tensor], tuple[Tensor, None]]]:
    """Rows of `states`; no row twice, so the gradient is a scatter and not the slow sum of `tf.gather`'s own."""

    def gradient(upstream: Tensor) -> tuple[Tensor, None]:
        return tf.scatter_nd(indices[:, None], upstream, tf.shape(states)), None

    return tf.gather(states, indices), gradient


def _sizes(tensor: Tensor) -> tuple[Any, ...]:
    """A tensor's sizes, scalar tensors where a graph does not know them."""
    dynamic = tf.shape(tensor)
    return tuple(dynamic[axis] if size is None else size for axis, size in enumerate(tensor.shape))
