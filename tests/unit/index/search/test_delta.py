"""Two parts and empty rows, against brute force over all of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.search.delta import DeltaSearch
from index.search.flat import FlatIndex


def brute_force(
    vectors: NDArray[np.float32], query: NDArray[np.float32], k: int, alive: NDArray[np.bool_]
) -> tuple[list[float], list[int]]:
    distances = np.sqrt(((vectors.astype(np.float64) - query) ** 2).sum(axis=1)).astype(np.float32)
    rows = sorted(np.flatnonzero(alive).tolist(), key=lambda row: (distances[row], row))[:k]
    return distances[rows].tolist(), rows


@given(st.data())
def test_search_is_brute_force_over_what_is_there(data: st.DataObject) -> None:
    """Small whole numbers, so that distances tie within a part and across both."""
    draw = data.draw
    sizes = [draw(st.integers(1, 12)), *draw(st.lists(st.integers(0, 5), max_size=3))]
    rows = sum(sizes)
    numbers = draw(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=rows + 2, max_size=rows + 2))
    vectors = np.array(numbers[:rows], dtype=np.float32)
    queries = np.array(numbers[rows:], dtype=np.float32)
    empty = frozenset(draw(st.sets(st.integers(0, rows - 1))))
    index = DeltaSearch(FlatIndex.build(vectors[: sizes[0]]), None, frozenset())
    for size in sizes[1:]:
        index = index.extended(vectors[len(index) : len(index) + size], frozenset())
    index = index.extended(vectors[:0], empty)
    alive = np.array([row not in empty for row in range(rows)])
    allowed = draw(st.none() | st.lists(st.booleans(), min_size=rows, max_size=rows).map(np.array))
    k = draw(st.integers(1, rows + 2))
    distances, found = index.search(queries, k, allowed=allowed)
    passing = alive if allowed is None else alive & allowed
    for place, query in enumerate(queries):
        assert (distances[place].tolist(), found[place].tolist()) == brute_force(vectors, query, k, passing)
    np.testing.assert_array_equal(index.vectors(np.arange(rows)[::-1]), vectors[::-1])
    assert (len(index), index.dimension) == (rows, 3)


def test_more_empty_rows_than_are_overfetched_are_masked() -> None:
    vectors = np.arange(600, dtype=np.float32)[:, None]
    index = DeltaSearch(FlatIndex.build(vectors), None, frozenset(range(300)))
    distances, rows = index.search(np.zeros((1, 1), dtype=np.float32), 2)
    assert (distances.tolist(), rows.tolist()) == ([[300.0, 301.0]], [[300, 301]])


def test_a_mask_of_another_size_is_refused() -> None:
    index = DeltaSearch(FlatIndex.build(np.eye(3, dtype=np.float32)), np.eye(3, dtype=np.float32))
    with pytest.raises(ValueError, match=r"allowed must be \[6\], got shape \(3,\)"):
        index.search(np.zeros((1, 3), dtype=np.float32), 1, allowed=np.ones(3, dtype=np.bool_))
