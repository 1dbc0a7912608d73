"""Batches of rows of similar lengths: for training shuffled and repeatable, for prediction streamed and in order.

Rows of similar lengths need little padding. Sorting all rows would fix the order of training and hold a whole file in
memory, so rows are sorted within windows of some batches.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import TypeVar

import numpy as np

from rembert.common.arguments import check_argument, integer, optional
from rembert.common.errors import InputError

Item = TypeVar("Item")
Result = TypeVar("Result")

_WINDOW = 50  # batches


class LengthGroupedBatches:
    """The batches of an epoch as lists of row indexes: a `batch_sampler` of a PyTorch `DataLoader`, or, in TensorFlow,
    the source of `tf.data.Dataset.from_generator`.

    The batches depend on the arguments and the epoch only, so all processes and both frameworks see the same ones.

    Args:
        lengths: of all rows.
        batch_size: the number of rows in a batch; the last batch may have fewer.
        seed: of the order.
        epoch: the epoch's number; `set_epoch` changes it.
        group: whether a batch has rows of similar lengths; otherwise rows are only shuffled.
        drop_last: whether to drop the last batch if it has fewer rows.

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
        """Choose the epoch of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        whole, rest = divmod(len(self.lengths), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        order = rng.permutation(len(self.lengths))
        batches = _split(order, self.batch_size)
        if self.group:
            window = self.batch_size * _WINDOW
            grouped = [_by_length(order[at : at + window], self.lengths) for at in range(0, len(order), window)]
            batches = [batch for part in grouped for batch in _split(part, self.batch_size)]
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
    """The result of `run` for each item, in the items' order; `run` is called with batches of similar lengths.

    Items stream: a window of them is read, sorted by length and run before the next one is read.

    Args:
        items: to be run.
        run: takes a batch, returns a result for each of its items.
        length: of an item.
        batch_size: the maximum number of items in a batch.
        max_tokens: the maximum of a batch's items times its longest item's length; a longer item runs alone.
        window: the number of items held at once; by default fifty batches.

    Raises:
        InputError: `batch_size`, `max_tokens` or `window` is less than 1.
    """
    check_batch_size(batch_size)
    window = batch_size * _WINDOW if window is None else window
    check_argument("max_tokens", max_tokens, optional(integer(at_least=1)))
    check_argument("window", window, integer(at_least=1))
    source = iter(items)
    while held := list(islice(source, window)):
        results: list[Result | None] = [None] * len(held)
        for batch in sorted_batches([length(item) for item in held], batch_size, max_tokens):
            for index, result in zip(batch, run([held[index] for index in batch]), strict=True):
                results[index] = result
        yield from results  # type: ignore[misc]  # none is None any more


def sorted_batches(lengths: Sequence[int], batch_size: int, max_tokens: int | None) -> Iterator[list[int]]:
    """Batches of indexes, sorted by length, longest first, as large as `batch_size` and `max_tokens` allow.

    Args:
        lengths: of all rows.
        batch_size: the maximum number of rows in a batch.
        max_tokens: the maximum of rows times the longest row's length; a longer row is a batch alone.
    """
    sizes = np.asarray(lengths, np.int64)
    order = _by_length(np.arange(len(sizes)), sizes)
    start = 0
    while start < len(order):
        rows = batch_size
        if max_tokens is not None:
            rows = min(rows, max(1, max_tokens // max(int(sizes[order[start]]), 1)))
        yield order[start : start + rows].tolist()
        start += rows


def without_first(skip: int, examples: Iterable[Item]) -> Iterator[Item]:
    """The examples after the first `skip`, whose results are known.

    Raises:
        InputError: there are fewer.
    """
    source = iter(examples)
    count = sum(1 for _ in islice(source, skip))
    if count < skip:
        raise InputError(f"`skip` must be at most the number of examples, {count}. Received: `skip={skip}`.")
    yield from source


def check_batch_size(batch_size: int) -> None:
    """Refuse a batch size of less than 1.

    Raises:
        InputError: quotes it.
    """
    check_argument("batch_size", batch_size, integer(at_least=1))


def _by_length(order: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Row indexes, longest first, so that a lack of memory shows at once; the sort is stable."""
    return order[np.argsort(-lengths[order], kind="stable")]


def _split(order: np.ndarray, size: int) -> list[np.ndarray]:
    return [order[at : at + size] for at in range(0, len(order), size)]
