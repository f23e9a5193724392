"""Laws of the metrics and of the bootstrap."""

from __future__ import annotations

import itertools

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
def test_the_interval_holds_the_mean_and_is_a_point_without_variance(positions):
    users = [str(at) for at in range(len(positions))]
    for name, interval in metric_table(positions, UserBootstrap(users, resamples=200)).items():
        assert interval.low - 1e-12 <= interval.mean <= interval.high + 1e-12, name
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
