import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from index.search import matmul_search as products
from index.search.matmul_search import propose


@given(st.data(), st.integers(1, 60), st.integers(1, 9), st.integers(1, 40))
def test_the_best_scores_are_found_however_the_blocks_fall(
    data: st.DataObject, rows: int, queries: int, block: int
) -> None:
    """Whole numbers, so scores are exact; rows of infinite half squares are left out; a query's worst comes first."""
    whole = st.integers(-3, 3).map(np.float32)
    vectors = data.draw(arrays(np.float32, (rows, 2), elements=whole))
    texts = data.draw(arrays(np.float32, (queries, 2), elements=whole))
    left_out = data.draw(arrays(np.bool_, rows))
    left_out[data.draw(st.integers(0, rows - 1))] = False
    half_squares = np.where(left_out, np.float32(np.inf), (vectors**2).sum(axis=1) / 2)
    n = data.draw(st.integers(1, int((~left_out).sum())))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(products, "_BLOCK", block)
        patch.setattr(products, "_QUERIES", 4)
        scores, found = propose(vectors, half_squares, texts, n)
    expected = texts @ vectors.T - half_squares
    np.testing.assert_array_equal(np.take_along_axis(expected, found, axis=1), scores)
    np.testing.assert_array_equal(np.sort(scores, axis=1), np.sort(expected, axis=1)[:, rows - n :])
    assert (scores[:, :1] <= scores).all()
    assert all(len(set(row.tolist())) == n for row in found)
