from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from training.report.rank_correlation import rank_correlation, ranks

NUMBERS = st.lists(st.integers(-50, 50), min_size=4, max_size=20)
PAIRED = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=4, max_size=20)


def slow_ranks(values: list[int]) -> list[float]:
    """How many are smaller, and half of those that are equal but itself."""
    return [sum(b < a for b in values) + (sum(b == a for b in values) - 1) / 2 for a in values]


@given(NUMBERS)
def test_ranks_are_what_counting_gives(values: list[int]):
    assert ranks(values).tolist() == slow_ranks(values)


@given(st.permutations(range(8)))
def test_without_ties_it_is_spearmans_formula(order: list[int]):
    """1 - 6 * sum d^2 / (n (n^2 - 1))."""
    result = rank_correlation(range(8), order)
    assert result.rho == pytest.approx(1 - 6 * sum((a - b) ** 2 for a, b in enumerate(order)) / (8 * 63))
    assert result.n == 8
    assert result.chance == pytest.approx(1 / math.sqrt(7))


@given(PAIRED)
def test_it_is_pearson_of_the_ranks_and_sees_only_the_order(pairs: list[tuple[int, int]]):
    a, b = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    result = rank_correlation(a, b)
    if len(set(a)) == 1 or len(set(b)) == 1:
        assert (result.rho, result.note) == (None, "one of the two never changes")
        return
    x, y = slow_ranks(a), slow_ranks(b)
    mean = (len(a) - 1) / 2
    top = sum((i - mean) * (j - mean) for i, j in zip(x, y, strict=True))
    bottom = math.sqrt(sum((i - mean) ** 2 for i in x) * sum((j - mean) ** 2 for j in y))
    assert result.rho == pytest.approx(top / bottom)
    assert rank_correlation([value**3 for value in a], b).rho == pytest.approx(result.rho)
    assert rank_correlation([-value for value in a], b).rho == pytest.approx(-top / bottom)


def test_fewer_than_four_points_are_too_few():
    result = rank_correlation([1.0, 2.0, 3.0], [1.0, 2.0, 3.0])
    assert (result.rho, result.n) == (None, 3)
    assert "3 points are too few" in result.note
    with pytest.raises(ValueError, match="4 and 3"):
        rank_correlation([1, 2, 3, 4], [1, 2, 3])
