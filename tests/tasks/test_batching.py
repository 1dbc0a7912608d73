"""Batches of like length: every row once, the same ones every time, little padding, order restored."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rembert.common.errors import InputError
from rembert.tasks.batching import LengthGroupedBatches, in_sorted_batches
from tests.frameworks import needs_pt, needs_tf

LENGTHS = st.lists(st.integers(1, 60), min_size=1, max_size=200)


@given(LENGTHS, st.integers(1, 9), st.integers(0, 3), st.booleans())
def test_an_epoch_has_every_row_once(lengths: list[int], size: int, epoch: int, group: bool) -> None:
    batches = LengthGroupedBatches(lengths, size, seed=5, epoch=epoch, group=group)
    found = list(batches)
    assert sorted(itertools.chain(*found)) == list(range(len(lengths)))
    assert len(found) == len(batches)
    assert all(len(batch) == size for batch in found[:-1])
    assert list(LengthGroupedBatches(lengths, size, seed=5, epoch=epoch, group=group)) == found
    whole = LengthGroupedBatches(lengths, size, seed=5, epoch=epoch, group=group, drop_last=True)
    assert list(whole) == [batch for batch in found if len(batch) == size]
    assert len(whole) == len(lengths) // size


def test_epochs_and_seeds_differ() -> None:
    lengths = np.random.default_rng(0).integers(1, 100, 300)
    batches = LengthGroupedBatches(lengths, 8, seed=0)
    first = list(batches)
    batches.set_epoch(1)
    assert list(batches) != first
    assert list(LengthGroupedBatches(lengths, 8, seed=1)) != first


def _padding(batches: list[list[int]], lengths: np.ndarray) -> float:
    """The part of all positions that is padding."""
    positions = sum(len(batch) * int(lengths[batch].max()) for batch in batches)
    return 1 - lengths.sum() / positions


def test_grouping_saves_most_of_the_padding() -> None:
    lengths = np.random.default_rng(0).integers(5, 200, 2000)
    grouped = _padding(list(LengthGroupedBatches(lengths, 16, seed=0)), lengths)
    drawn = _padding(list(LengthGroupedBatches(lengths, 16, seed=0, group=False)), lengths)
    assert grouped < 0.05 < 0.4 < drawn


@given(LENGTHS, st.integers(1, 5), st.sampled_from([None, 1, 40, 500]), st.sampled_from([1, 7, None]))
def test_results_are_in_the_order_of_the_items(
    lengths: list[int], size: int, tokens: int | None, window: int | None
) -> None:
    seen: list[list[tuple[int, int]]] = []

    def run(batch: list[tuple[int, int]]) -> list[int]:
        seen.append(batch)
        return [number for number, _ in batch]

    items = list(enumerate(lengths))
    found = in_sorted_batches(
        iter(items), run, length=lambda item: item[1], batch_size=size, max_tokens=tokens, window=window
    )
    assert list(found) == list(range(len(lengths)))
    for batch in seen:
        assert len(batch) <= size
        assert [length for _, length in batch] == sorted((length for _, length in batch), reverse=True)
        assert tokens is None or len(batch) == 1 or len(batch) * batch[0][1] <= tokens


def test_results_stream() -> None:
    taken = []

    def items() -> Iterator[int]:
        for number in itertools.count():  # without end
            taken.append(number)
            yield number % 7 + 1

    found = in_sorted_batches(items(), lambda batch: batch, length=int, batch_size=2, window=10)
    assert list(itertools.islice(found, 15)) == [number % 7 + 1 for number in range(15)]
    assert len(taken) == 20


def test_sizes_are_checked() -> None:
    with pytest.raises(InputError, match="batch_size=0"):
        LengthGroupedBatches([1], 0, seed=0)
    with pytest.raises(InputError, match="max_tokens=0"):
        list(in_sorted_batches([1], list, length=int, batch_size=1, max_tokens=0))


@needs_pt
@needs_tf
def test_data_loader_and_tf_data_take_the_same_batches() -> None:
    import tensorflow as tf
    import torch

    lengths = [3, 9, 4, 8, 5, 7, 1]
    batches = LengthGroupedBatches(lengths, 3, seed=0)
    loader = torch.utils.data.DataLoader(list(range(7)), batch_sampler=batches, collate_fn=list)
    dataset = tf.data.Dataset.from_generator(lambda: iter(batches), output_signature=tf.TensorSpec([None], tf.int64))
    assert list(loader) == [batch.numpy().tolist() for batch in dataset] == list(batches)
