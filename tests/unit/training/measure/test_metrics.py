"""Laws of the metrics and of the bootstrap."""

from __future__ import annotations

import itertools
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.measure.metrics import CUTOFFS, UserBootstrap, gains, hits, metric_table

position_lists = st.lists(st.integers(-1, 60), min_size=1, max_size=40).map(
    lambda values: np.array(values, dtype=np.int64)
)


@given(positions=position_lists)
def test_bounds_monotone_and_equal_at_one(positions):
    for measure in (hits, gains):
        values = [measure(positions, k) for k in CUTOFFS]
        assert all(((value >= 0) & (value <= 1)).all() for value in values)
        assert all((low <= high).all() for low, high in itertools.pairwise(values))
    assert (hits(positions, 1) == gains(positions, 1)).all()
    assert (gains(positions, 10) <= hits(positions, 10)).all()


@given(positions=position_lists)
def test_ndcg_is_the_textbook_form(positions):
    """With one relevant item the ideal gain is 1, so NDCG = sum of rel_i / log2(i + 2) over the first k."""
    for position, gain in zip(positions, gains(positions, 10), strict=True):
        relevance = [float(at == position) for at in range(10)]
        assert gain == pytest.approx(sum(r / np.log2(at + 2) for at, r in enumerate(relevance)))


@given(positions=position_lists)
def test_the_interval_is_inside_the_range_and_a_point_without_variance(positions):
    users = [str(at) for at in range(len(positions))]
    for name, interval in metric_table(positions, UserBootstrap(users, resamples=200)).items():
        assert 0 <= interval.low <= interval.high <= 1, name
    same = UserBootstrap(users, resamples=50).interval(np.full(len(users), 0.25))
    assert (same.low, same.high) == pytest.approx((0.25, 0.25))


def test_whole_users_are_drawn():
    """Ten users of 50 equal windows each carry ten observations, not 500: as wide as with one window each."""
    values = np.array([0.0, 1.0] * 5)
    single = UserBootstrap([str(user) for user in range(10)]).interval(values)
    many = UserBootstrap([str(user) for user in range(10) for _ in range(50)]).interval(np.repeat(values, 50))
    assert (many.mean, many.low, many.high) == pytest.approx((single.mean, single.low, single.high))
    naive = UserBootstrap([str(at) for at in range(500)]).interval(np.repeat(values, 50))
    assert many.high - many.low > 3 * (naive.high - naive.low)


def test_coverage_of_the_interval():
    """Of 300 samples of 80 users with mean 0.3, about 95 % of the intervals hold 0.3; below 90 % it is broken."""
    draw = np.random.default_rng(0)
    users = [str(user) for user in range(80)]
    bootstrap = UserBootstrap(users, resamples=500)
    inside = 0
    for _ in range(300):
        interval = bootstrap.interval((draw.random(80) < 0.3).astype(np.float64))
        inside += interval.low <= 0.3 <= interval.high
    assert 0.90 <= inside / 300 <= 0.99


def test_refuses_lengths_that_do_not_fit():
    with pytest.raises(ValueError, match="expected 2 values, got 3"):
        UserBootstrap(["a", "b"]).interval(np.zeros(3))


def test_the_draws_are_those_of_one_call_however_few_are_made_at_once(monkeypatch):
    """Brute force: all resamples at once, [50, 7], then a mean over the windows of the users drawn."""
    owner = np.array([0, 0, 1, 2, 3, 4, 4, 4, 5, 6])
    values = np.random.default_rng(1).random(len(owner))
    drawn = np.random.default_rng(3).multinomial(7, np.full(7, 1 / 7), size=50)
    means = (drawn[:, owner] @ values) / drawn[:, owner].sum(axis=1)
    expected = np.quantile(means, [0.025, 0.975])
    for at_once in (1, 21, 10_000):
        monkeypatch.setattr("training.measure.metrics._DRAWN_AT_ONCE", at_once)
        found = UserBootstrap([str(user) for user in owner], resamples=50, seed=3).interval(values)
        assert (found.low, found.high) == pytest.approx(tuple(expected), abs=1e-12)


def test_memory_does_not_grow_with_the_resamples():
    """Of 200,000 users, 40 resamples at once take 64 MB; the windows and their sums take about 20."""
    users = [f"{user:06d}" for user in range(200_000)]
    values = np.ones(len(users))
    tracemalloc.start()
    try:
        UserBootstrap(users, resamples=40).interval(values)
        assert tracemalloc.get_traced_memory()[1] < 40e6
    finally:
        tracemalloc.stop()


def test_several_rows_have_the_intervals_that_each_has_alone():
    bootstrap = UserBootstrap(["a", "b", "b", "c"], resamples=50)
    rows = [np.array([0.0, 1.0, 0.5, 0.2]), np.array([1.0, 0.0, 0.0, 1.0])]
    assert bootstrap.intervals(rows) == [bootstrap.interval(values) for values in rows]
