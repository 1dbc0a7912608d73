"""Packing: padding is removed once, before the embeddings, and restored once, after the last layer.

In between the layers see only real tokens, all sequences concatenated. Notation: n sequences of up to s positions, t
real tokens in total.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Packing:
    """The indices of a batch's real tokens.

    Attributes:
        cu_seqlens: [n + 1] int32; sequence i is the packed tokens from cu_seqlens[i] to cu_seqlens[i + 1].
        indices: [t] int64, the index of each packed token in the flattened padded batch, [n × s].
        lengths: number of real tokens of each sequence, on the host.
        width: s.
    """

    cu_seqlens: Tensor
    indices: Tensor
    lengths: tuple[int, ...]
    width: int

    @property
    def max_length(self) -> int:
        """Number of real tokens of the longest sequence."""
        return max(self.lengths)

    @property
    def positions(self) -> Tensor:
        """[t], the position of each token in its own row of the padded batch."""
        return self.indices % self.width

    def pack(self, states: Tensor) -> Tensor:
        """[n, s, ...] to [t, ...]."""
        return states.flatten(0, 1).index_select(0, self.indices)

    def unpack(self, states: Tensor) -> Tensor:
        """[t, ...] to [n, s, ...], zeros at padding."""
        padded = states.new_zeros(len(self.lengths) * self.width, *states.shape[1:])
        return padded.index_copy(0, self.indices, states).unflatten(0, (len(self.lengths), self.width))

    def mask(self) -> Tensor:
        """[n, s], True at real tokens."""
        return self.unpack(torch.ones_like(self.indices, dtype=torch.bool))


@dataclass(frozen=True)
class GraphPacking(Packing):
    """A packing inside an exported graph, where no value is known: `lengths` is empty.

    Attributes:
        real: [n, s], True at real tokens.
        packed: [n, s] int64, the index of each position's packed token, t at padding.
    """

    real: Tensor
    packed: Tensor

    @property
    def positions(self) -> Tensor:
        """[t], the position of each token in its own row of the padded batch."""
        return self.pack(torch.arange(self.width, device=self.real.device).expand(self.real.shape))

    def unpack(self, states: Tensor) -> Tensor:
        """[t, ...] to [n, s, ...], zeros at padding."""
        return torch.cat([states, states.new_zeros(1, *states.shape[1:])])[self.packed]

    def mask(self) -> Tensor:
        """[n, s], True at real tokens."""
        return self.real


def pack_in_graph(attention_mask: Tensor) -> GraphPacking:
    """The packing of a padded batch while a graph is traced, with t known only when the graph runs."""
    real = attention_mask != 0
    lengths = real.sum(1)
    indices = real.flatten().nonzero().squeeze(1)
    packed = real.flatten().long().cumsum(0).unflatten(0, real.shape) - 1
    cu_seqlens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
    packed = packed.where(real, indices.shape[0])
    return GraphPacking(cu_seqlens, indices, (), real.shape[1], real, packed)


_in_graphs = ContextVar("_in_graphs", default=False)


@contextlib.contextmanager
def padding_removed_in_graphs() -> Iterator[None]:
    """Let graphs that are traced meanwhile remove padding as eager calls do, by operators of unknown size."""
    token = _in_graphs.set(True)
    try:
        yield
    finally:
        _in_graphs.reset(token)


def _is_removed_in_graphs() -> bool:
    return not torch.compiler.is_dynamo_compiling() and _in_graphs.get()  # Dynamo reads no context variable


def pack_mask(attention_mask: Tensor) -> Packing:
    """The packing of a padded batch. The mask's values are read.

    Args:
        attention_mask: [n, s], non-zero at real tokens, which may be anywhere in a row.

    Example:
        >>> packing = pack_mask(torch.tensor([[1, 1, 0], [1, 0, 0]]))
        >>> packing.cu_seqlens.tolist(), packing.positions.tolist()
        ([0, 2, 3], [0, 1, 0])
        >>> packing.pack(torch.tensor([[5, 6, 0], [7, 0, 0]])).tolist()
        [5, 6, 7]
    """
    real = attention_mask != 0
    lengths = real.sum(1)
    counts = tuple(lengths.tolist())
    # With the count given, a GPU is synchronised only once.
    indices = torch.nonzero_static(real.flatten(), size=sum(counts)).squeeze(1)
    cu_seqlens = torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int()
    return Packing(cu_seqlens, indices, counts, real.shape[1])


def pack_lengths(cu_seqlens: Tensor) -> Packing:
    """The packing of a batch that is already packed; padded, it would be as wide as its longest sequence.

    Args:
        cu_seqlens: [n + 1] integers from 0 to t. Its values are read.
    """
    cu_seqlens = cu_seqlens.long()  # narrower integers lack some operations
    lengths = cu_seqlens.diff()
    counts = tuple(lengths.tolist())
    width = max(counts)
    rows, tokens = (torch.arange(size, device=cu_seqlens.device) for size in (len(counts), sum(counts)))
    row = torch.repeat_interleave(rows, lengths, output_size=sum(counts))
    indices = tokens + row * width - cu_seqlens[row]
    return Packing(cu_seqlens.int(), indices, counts, width)


def reads_when_run() -> bool:
    """Whether `torch.compile` makes a graph, where attention is an operator that reads the lengths."""
    is_exporting = getattr(torch.compiler, "is_exporting", bool)  # PyTorch 2.6 does not tell
    return torch.compiler.is_dynamo_compiling() and not is_exporting()


Inputs = tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]


@dataclass(frozen=True)
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
    inputs: Inputs,
    attention_mask: Tensor | None,
    cu_seqlens: Tensor | None,
    *,
    compute_all: bool,
    can_read: bool,
    causal: bool,
) -> Layout:
    """Remove padding if the call allows it.

    Args:
        inputs: the call's ids, token types, positions and embeddings; None if not given.
        attention_mask: the call's.
        cu_seqlens: the call's, of inputs that are already packed.
        compute_all: whether every position must be computed: for attention probabilities or a cache.
        can_read: whether values can be read; they cannot inside a graph.
        causal: whether a token attends to earlier ones only.
    """
    if cu_seqlens is not None:
        if not compute_all and reads_when_run():
            return _unread(inputs, cu_seqlens)
        if compute_all or not can_read:
            return _one_row(inputs, cu_seqlens, causal)
        packing = pack_lengths(cu_seqlens)
        ids, types, positions, embeds = inputs
        positions = packing.positions if positions is None else positions
        return Layout((ids, types, positions, embeds), None, packing, _identity, _identity)
    if attention_mask is None or attention_mask.ndim != 2:
        return Layout(inputs, attention_mask, None, _identity, _identity)
    if can_read and compute_all and bool((attention_mask != 0).all()):
        return Layout(inputs, None, None, _identity, _identity)
    if not compute_all and (can_read or _is_removed_in_graphs()):
        packing = pack_mask(attention_mask) if can_read else pack_in_graph(attention_mask)
        if can_read and sum(packing.lengths) == attention_mask.numel():
            return Layout(inputs, None, None, _identity, _identity)
        # A single row of positions applies to all rows.
        rows = [None if each is None else each.expand(*attention_mask.shape, *each.shape[2:]) for each in inputs]
        ids, types, positions, embeds = (None if each is None else packing.pack(each) for each in rows)
        if positions is None:
            positions = packing.positions
        return Layout((ids, types, positions, embeds), None, packing, packing.unpack, packing.pack)

    def zero_padding(states: Tensor) -> Tensor:
        padding = attention_mask[:, -states.shape[1] :] == 0
        return states.masked_fill(padding[..., None], 0.0)

    return Layout(inputs, attention_mask, None, zero_padding, _identity)


def _unread(inputs: Inputs, cu_seqlens: Tensor) -> Layout:
    """Packed inputs in a graph whose attention reads the lengths when it runs; the packing has none."""
    ids, types, positions, embeds = inputs
    if positions is None:
        positions = _sequences(inputs, cu_seqlens)[2]
    packing = Packing(cu_seqlens, positions, (), 0)
    return Layout((ids, types, positions, embeds), None, packing, _identity, _identity)


def _sequences(inputs: Inputs, cu_seqlens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Of packed tokens, each [t]: the index, the sequence, and the position in it; no value is read."""
    count = next(each.shape[0] for each in (inputs[0], inputs[3]) if each is not None)
    tokens, starts = torch.arange(count, device=cu_seqlens.device), cu_seqlens.long()
    sequence = torch.searchsorted(starts, tokens, right=True) - 1
    return tokens, sequence, tokens - starts[sequence]


def _one_row(inputs: Inputs, cu_seqlens: Tensor, causal: bool) -> Layout:
    """Packed inputs as a batch of one row, with a [1, t, t] mask that separates the sequences; no value is read."""
    ids, types, positions, embeds = inputs
    tokens, sequence, own_positions = _sequences(inputs, cu_seqlens)
    pairs = sequence[:, None] == sequence
    if causal:
        pairs = pairs & (tokens <= tokens[:, None])
    if positions is None:
        positions = own_positions
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
        return states.index_select(0, cu_seqlens[:-1].long())
    if attention_mask is None or attention_mask.ndim != 2:
        return states[:, 0]
    first = (attention_mask[:, -states.shape[1] :] != 0).int().argmax(1)
    return states.gather(1, first[:, None, None].expand(-1, 1, states.shape[2])).squeeze(1)
