"""Bootstrap intervals and the paired comparison: against all resamples of a small sample, SciPy, the normal limit."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from rembert.bleurt import statistics
from rembert.bleurt.statistics import compare_systems, mean_interval
from rembert.common.errors import InputError


def test_resamples_are_equally_likely() -> None:
    values = np.array([0.1, 0.5, 1.7])
    every = sorted(float(np.mean(drawn)) for drawn in product(values, repeat=3))  # 27, each with probability 1/27
    means = statistics._resampled_means(values, 100_000, seed=1)
    for mean in set(every):
        share = np.isclose(means, mean).mean()
        likely = np.isclose(every, mean).mean()
        assert abs(share - likely) < 5 * np.sqrt(likely * (1 - likely) / len(means))


def test_the_interval_equals_that_of_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    values = np.random.default_rng(0).gamma(2.0, size=200)
    found = mean_interval(values, resamples=20_000, confidence=0.9, seed=3)
    expected = stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, confidence_level=0.9, method="percentile", rng=4
    ).confidence_interval
    width = expected.high - expected.low
    assert found.mean == pytest.approx(values.mean())
    assert abs(found.low - expected.low) < 0.03 * width
    assert abs(found.high - expected.high) < 0.03 * width


def test_many_values_are_binned() -> None:
    values = np.random.default_rng(0).normal(0.6, 0.2, 100_000)
    found = mean_interval(values, resamples=400, seed=0)
    half = 1.959964 * values.std() / np.sqrt(len(values))  # the normal limit
    assert found.mean == values.mean()
    assert found.low == pytest.approx(values.mean() - half, abs=0.15 * half)
    assert found.high == pytest.approx(values.mean() + half, abs=0.15 * half)
    centres, sizes = statistics._binned(values)
    assert sizes.sum() == len(values)
    assert (centres * sizes).sum() == pytest.approx(values.sum(), rel=1e-12)
    assert np.average((centres - values.mean()) ** 2, weights=sizes) == pytest.approx(values.var(), rel=1e-6)


def test_equal_values_give_an_interval_of_width_zero() -> None:
    for count in (1, 5, 70_000):
        found = mean_interval(np.full(count, 0.25), resamples=10)
        assert found.low == found.mean == found.high == 0.25


def test_the_seed_determines_the_interval() -> None:
    values = np.random.default_rng(0).normal(size=50)
    assert mean_interval(values, seed=1) == mean_interval(values, seed=1)
    assert mean_interval(values, seed=1) != mean_interval(values, seed=2)


def test_systems_are_resampled_together() -> None:
    # What both have in common is far larger than their difference: only a paired comparison sees it.
    rng = np.random.default_rng(0)
    common = rng.normal(0, 10, 500)
    first, second = common + 0.05 + rng.normal(0, 0.1, 500), common + rng.normal(0, 0.1, 500)
    found = compare_systems(first, second, resamples=2000)
    assert found.difference.mean == pytest.approx((first - second).mean())
    assert found.difference.low > 0
    assert found.p_value == pytest.approx(1 / 2001)
    assert found.wins == 1.0
    swapped = compare_systems(second, first, resamples=2000)
    assert (swapped.p_value, swapped.wins) == (found.p_value, 0.0)
    assert swapped.difference.low == pytest.approx(-found.difference.high)


def test_equal_systems_do_not_differ() -> None:
    values = np.random.default_rng(0).normal(size=100)
    found = compare_systems(values, values)
    assert (found.difference.mean, found.p_value, found.wins) == (0.0, 1.0, 0.0)


def test_p_values_of_equal_systems_are_uniform() -> None:
    rng = np.random.default_rng(0)
    found = [
        compare_systems(rng.normal(size=80), rng.normal(size=80), resamples=200, seed=number).p_value
        for number in range(400)
    ]
    assert np.mean(np.array(found) < 0.1) == pytest.approx(0.1, abs=0.05)
    assert np.mean(np.array(found) < 0.5) == pytest.approx(0.5, abs=0.08)


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        ([], {}, "at least one score"),
        ([1.0], {"resamples": 0}, "`resamples` must be an integer of 1 or more"),
        ([1.0], {"resamples": 1.5}, "`resamples` must be an integer of 1 or more"),
        ([1.0], {"confidence": 1.0}, r"`confidence` must be a number in \(0, 1\)"),
    ],
)
def test_wrong_values_are_refused(values: list[float], options: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        mean_interval(np.array(values), **options)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=message):
        compare_systems(np.array(values), np.array(values), **options)  # type: ignore[arg-type]


def test_systems_of_different_lengths_are_refused() -> None:
    with pytest.raises(InputError, match="Received: 2 and 1 scores"):
        compare_systems(np.zeros(2), np.zeros(1))
