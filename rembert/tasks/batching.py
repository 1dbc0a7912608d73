"""Batches of rows of like length, for training (shuffled, repeatable) and for prediction (streamed, in order).

Little is padded where the rows of a batch are about as long as each other. Sorting all rows would take the chance out
of training, and the memory of a whole file, so rows are grouped inside windows of a number of batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from rembert.common.arguments import check_argument, integer, optional

Item = TypeVar("Item")
Result = TypeVar("Result")

_WINDOW = 50  # batches


class LengthGroupedBatches:
    """The batches of an epoch as lists of row numbers: a `batch_sampler` of a PyTorch `DataLoader`, or, in
    TensorFlow, the source of `tf.data.Dataset.from_generator`.

    A function of its arguments and the epoch alone, so every process and both frameworks see the same batches.

    Args:
        lengths: of all rows.
        batch_size: rows of a batch; the last one may have fewer.
        seed: draws the order.
        epoch: the number of the epoch; `set_epoch` changes it.
        group: whether rows of like length come together; otherwise the order is drawn alone.
        drop_last: leave a batch of fewer rows out.

    Raises:
        InputError: `batch_size` is less than 1.
    """

    def __init__(
        self,
        lengths: Sequence[int],
        batch_size: int,
        *,
        seed: int,
        epoch: int = 0,
        group: bool = True,
        drop_last: bool = False,
    ) -> None:
        check_batch_size(batch_size)
        self.lengths = np.asarray(lengths, np.int64)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = epoch
        self.group = group
        self.drop_last = drop_last

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch whose batches the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        batches = _cut(order, self.batch_size)
        if self.group:
            window = self.batch_size * _WINDOW
            grouped = [_by_length(order[at : at + window], self.lengths) for at in range(0, len(order), window)]
            batches = [batch for part in grouped for batch in _cut(part, self.batch_size)]
        short = [batch for batch in batches if len(batch) < self.batch_size]
        batches = batches[: len(batches) - len(short)]
        if self.group:
            batches = [batches[number] for number in rng.permutation(len(batches))]
        for batch in batches if self.drop_last else [*batches, *short]:
            yield batch.tolist()


def in_sorted_batches(
    items: Iterable[Item],
    run: Callable[[list[Item]], Sequence[Result]],
    *,
    length: Callable[[Item], int],
    batch_size: int,
    max_tokens: int | None = None,
    window: int | None = None,
) -> Iterator[Result]:
    """The results of `run` for each item, in the items' order, while `run` sees batches of like length.

    Items stream: a window of them is read, sorted by length, run, and given back in order before the next is read.

    Args:
        items: whatever has a length.
        run: takes a batch, gives a result for each of its items.
        length: of an item.
        batch_size: items of a batch at most.
        max_tokens: the batch's items times its longest item's length at most; an item that is longer runs alone.
        window: items held at once; by default fifty batches.

    Raises:
        InputError: `batch_size`, `max_tokens` or `window` is less than 1.
    """
    check_batch_size(batch_size)
    window = batch_size * _WINDOW if window is None else window
    check_argument("max_tokens", max_tokens, optional(integer(at_least=1)))
    check_argument("window", window, integer(at_least=1))
    source = iter(items)
    while held := list(islice(source, window)):
        lengths = np.array([length(item) for item in held], np.int64)
        results: list[Result | None] = [None] * len(held)
        for batch in _budgeted(_by_length(np.arange(len(held)), lengths), lengths, batch_size, max_tokens):
            for index, result in zip(batch, run([held[index] for index in batch]), strict=True):
                results[index] = result
        yield from results  # type: ignore[misc]  # every place has been filled


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch size of less than 1.

    Raises:
        InputError: quotes it.
    """
    check_argument("batch_size", batch_size, integer(at_least=1))


def _by_length(order: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Row numbers, the longest first, so that a lack of memory shows at once; equal ones stay in order."""
    return order[np.argsort(-lengths[order], kind="stable")]


def _cut(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[at : at + size] for at in range(0, len(order), size)]


def _budgeted(order: np.ndarray, lengths: np.ndarray, size: int, max_tokens: int | None) -> Iterator[list[int]]:
    """Batches of sorted rows, the longest first: as many as `size` and `max_tokens` allow."""
    at = 0
    while at < len(order):
        rows = size
        if max_tokens is not None:
            rows = min(size, max(1, max_tokens // max(int(lengths[order[at]]), 1)))
        yield order[at : at + rows].tolist()
        at += rows
