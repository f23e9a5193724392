"""Product codes: whatever they miss, what they return is right, is allowed, and is enough."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from index.ranking.ranking import POOL
from index.search.flat import FlatIndex
from index.search.kind import recall_of
from index.search.product_codes import ProductCodesIndex

coordinates = st.integers(-3, 3).map(np.float32)


def random_vectors(n: int, dimension: int = 8, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(n, dimension)).astype(np.float32)


@st.composite
def searches(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], int, NDArray[np.bool_]]:
    n, dimension, queries = draw(st.integers(16, 60)), draw(st.integers(1, 5)), draw(st.integers(0, 5))
    return (
        draw(arrays(np.float32, (n, dimension), elements=coordinates)),
        draw(arrays(np.float32, (queries, dimension), elements=coordinates)),
        draw(st.integers(1, 70)),
        draw(arrays(np.bool_, n)),
    )


@settings(max_examples=25)
@given(searches())
def test_what_comes_back_is_allowed_enough_and_measured(
    search: tuple[NDArray[np.float32], NDArray[np.float32], int, NDArray[np.bool_]],
) -> None:
    """Distinct allowed rows, min(k, allowed) of them, at their true distances, ascending, ties by row."""
    vectors, queries, k, mask = search
    index = ProductCodesIndex.build(FlatIndex.build(vectors))
    for allowed in (None, mask):
        reachable = len(vectors) if allowed is None else int(allowed.sum())
        distances, rows = index.search(queries, k, allowed=allowed)
        assert distances.shape == rows.shape == (len(queries), min(k, reachable))
        for query, near, found in zip(queries, distances, rows, strict=True):
            assert len(set(found.tolist())) == len(found)
            assert allowed is None or allowed[found].all()
            true = np.sqrt(((vectors[found].astype(np.float64) - query) ** 2).sum(axis=1)).astype(np.float32)
            np.testing.assert_array_equal(near, true)
            assert list(zip(near, found, strict=True)) == sorted(zip(near, found, strict=True))


def test_looking_everywhere_finds_the_nearest() -> None:
    vectors, queries = random_vectors(3000), random_vectors(20, seed=1)
    index = ProductCodesIndex.build(FlatIndex.build(vectors))
    index.breadth = 3000
    allowed = np.arange(3000) % 3 > 0
    for mask in (None, allowed):
        expected, expected_rows = index.flat.search(queries, 10, allowed=mask)
        distances, rows = index.search(queries, 10, allowed=mask)
        np.testing.assert_array_equal(distances, expected)
        np.testing.assert_array_equal(rows, expected_rows)


def test_a_filter_that_hides_the_neighbourhood_leaves_k_rows() -> None:
    """Every row near the query is hidden: the codes propose no allowed row, and still k come back."""
    vectors = random_vectors(2000)
    index = ProductCodesIndex.build(FlatIndex.build(vectors))
    _, near = index.flat.search(vectors[:1], 1500)
    allowed = np.ones(2000, dtype=bool)
    allowed[near[0]] = False
    distances, rows = index.search(vectors[:1], 10, allowed=allowed)
    assert rows.shape == (1, 10)
    assert allowed[rows].all()
    assert (np.diff(distances) >= 0).all()


def test_few_allowed_rows_and_a_deep_list_are_answered_exactly() -> None:
    vectors, queries = random_vectors(2000), random_vectors(3, seed=1)
    index = ProductCodesIndex.build(FlatIndex.build(vectors))
    allowed = np.arange(2000) % 50 == 0
    for k, mask in ((10, allowed), (450, None)):
        np.testing.assert_array_equal(
            index.search(queries, k, allowed=mask)[1], index.flat.search(queries, k, allowed=mask)[1]
        )
    assert index.search(queries, 5, allowed=np.zeros(2000, dtype=bool))[1].shape == (3, 0)


@pytest.mark.parametrize("k", [2 * POOL + 16, 2 * POOL + 16 + 256])
def test_what_a_fusion_looks_through_needs_no_exact_search(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pool with hidden rows among it, and as many empty ones as `DeltaSearch` asks past."""
    vectors = random_vectors(3000)
    index = ProductCodesIndex.build(FlatIndex.build(vectors))
    index.breadth = 40
    expected, _ = index.flat.search(vectors[:2], k)
    monkeypatch.setattr(FlatIndex, "search", None)
    distances, _ = index.search(vectors[:2], k)
    assert np.mean(distances <= expected[:, -1:]) > 0.9


def test_write_then_read_is_identity(tmp_path: Path) -> None:
    vectors = random_vectors(500)
    index = ProductCodesIndex.build(FlatIndex.build(vectors))
    index.breadth = 7
    index.write(tmp_path / "search.faiss")
    read = ProductCodesIndex.read(index.flat, tmp_path / "search.faiss", breadth=7)
    assert (len(read), read.dimension, read.breadth) == (500, 8, 7)
    for ours, theirs in zip(index.search(vectors[:9], 5), read.search(vectors[:9], 5), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(read.vectors(np.array([7, 3])), vectors[[7, 3]])


def test_truncated_or_garbled_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.faiss"
    flat = FlatIndex.build(random_vectors(200))
    ProductCodesIndex.build(flat).write(path)
    data = path.read_bytes()
    for broken in (data[: len(data) // 2], data[:3], b"", b"nonsense" * 20):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="not a FAISS index"):
            ProductCodesIndex.read(flat, path, breadth=4)


def test_another_faiss_index_or_other_rows_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "search.faiss"
    flat = FlatIndex.build(random_vectors(200))
    ProductCodesIndex.build(flat).write(path)
    with pytest.raises(ValueError, match="hold 200 vectors of dimension 8, the flat index 100"):
        ProductCodesIndex.read(FlatIndex.build(random_vectors(100)), path, breadth=4)
    with pytest.raises(ValueError, match="breadth must be at least 1, got 0"):
        ProductCodesIndex.read(flat, path, breadth=0)
    flat.write(path)
    with pytest.raises(ValueError, match="need IndexPreTransform, found IndexFlatL2"):
        ProductCodesIndex.read(flat, path, breadth=4)
    with pytest.raises(ValueError, match="at least 16 rows, got 15"):
        ProductCodesIndex.build(FlatIndex.build(random_vectors(15)))


def test_recall_counts_a_tie_as_found_and_a_farther_row_as_missed() -> None:
    """Rows 0, 1, 1, 2 away; of the two nearest at (0, 1), distances 0 and 1 were found either way."""
    flat = FlatIndex.build(np.array([[0], [1], [-1], [2]], dtype=np.float32))
    query = np.zeros((1, 1), dtype=np.float32)
    assert recall_of(flat, query, np.array([[0, 1]], dtype=np.float32)) == 1
    assert recall_of(flat, query, np.array([[0, 0.5]], dtype=np.float32)) == 0.5
