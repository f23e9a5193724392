import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from index.search.int8_copy import Int8Copy

numbers = st.floats(-1000, 1000, width=32)


@given(st.data(), st.integers(1, 40), st.integers(1, 6), st.integers(-25, 12))
def test_whatever_is_not_proposed_lies_beyond_the_bound(
    data: st.DataObject, n: int, dimension: int, exponent: int
) -> None:
    """At any scale, down to where squares underflow, for queries inside and far outside of the vectors' range."""
    scale = np.float32(10.0**exponent)
    vectors = data.draw(arrays(np.float32, (n, dimension), elements=numbers)) * scale
    query = data.draw(arrays(np.float32, (1, dimension), elements=numbers)) * scale
    proposed = data.draw(st.integers(1, n))
    rows, bound = Int8Copy(vectors).propose(query, proposed, None)
    assert len(set(rows.tolist())) == proposed
    left_out = np.setdiff1d(np.arange(n), rows)
    distances = np.sqrt(((vectors[left_out].astype(np.float64) - query) ** 2).sum(axis=1))
    assert (distances >= bound).all()


def test_the_bound_is_tight_enough_to_be_of_use() -> None:
    """Unit vectors: a step is about 0.6 / 255 per number at 64 dimensions, so 8 bits hide about 0.0007 * 8 = 0.005."""
    vectors = np.random.default_rng(0).normal(size=(500, 64)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    rows, bound = Int8Copy(vectors).propose(vectors[:1], 50, None)
    distances = np.linalg.norm(vectors.astype(np.float64) - vectors[0], axis=1)
    assert 0 < np.sort(distances)[50] - bound < 0.03
    assert set(np.argsort(distances)[:20].tolist()) <= set(rows.tolist())
