"""FlatIndex against brute force. Small whole numbers as coordinates make ties frequent and float arithmetic exact."""

from pathlib import Path

import faiss
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray

from index.ranking.ranking import POOL
from index.search import flat
from index.search.flat import FlatIndex
from index.search.int8_copy import Int8Copy
from index.search.search import Rows, Vectors

coordinates = st.integers(-3, 3).map(np.float32)


def brute_force(
    vectors: NDArray[np.float32], queries: NDArray[np.float32], k: int, allowed: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    difference = queries[:, None, :].astype(np.float64) - vectors[None, :, :].astype(np.float64)
    distances = np.sqrt((difference**2).sum(axis=2)).astype(np.float32)
    rows = np.arange(len(vectors)) if allowed is None else np.flatnonzero(allowed)
    order = rows[np.argsort(distances[:, rows], axis=1, kind="stable")[:, :k]]
    return np.take_along_axis(distances, order, axis=1), order


@st.composite
def searches(draw: st.DrawFn) -> tuple[NDArray[np.float32], NDArray[np.float32], int, NDArray[np.bool_]]:
    n, dimension, queries = draw(st.integers(1, 60)), draw(st.integers(1, 4)), draw(st.integers(1, 30))
    return (
        draw(arrays(np.float32, (n, dimension), elements=coordinates)),
        draw(arrays(np.float32, (queries, dimension), elements=coordinates)),
        draw(st.integers(1, 70)),
        draw(arrays(np.bool_, n)),
    )


@given(searches())
def test_equals_brute_force_with_ties_by_row(
    search: tuple[NDArray[np.float32], NDArray[np.float32], int, NDArray[np.bool_]],
) -> None:
    vectors, queries, k, allowed = search
    index = FlatIndex.build(vectors)
    for mask in (None, allowed):
        distances, rows = index.search(queries, k, allowed=mask)
        expected_distances, expected_rows = brute_force(vectors, queries, k, mask)
        np.testing.assert_array_equal(distances, expected_distances)
        np.testing.assert_array_equal(rows, expected_rows)


@given(searches(), st.floats(-30, 12))
def test_equals_brute_force_at_any_scale_and_route(
    search: tuple[NDArray[np.float32], NDArray[np.float32], int, NDArray[np.bool_]], exponent: float
) -> None:
    """One query (scan) and all together (product); the 8-bit copy is there from the first row on."""
    vectors, queries, k, allowed = search
    scale = np.float32(10.0**exponent)
    vectors, queries = vectors * scale, queries * scale
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(flat, "_INT8_FROM", 0)
        patch.setattr(flat, "_INT8_ROWS_PER_K", 0)
        index = FlatIndex.build(vectors)
        for mask in (None, allowed):
            expected_distances, expected_rows = brute_force(vectors, queries, k, mask)
            for part in (slice(0, 1), slice(None)):
                distances, rows = index.search(queries[part], k, allowed=mask)
                np.testing.assert_array_equal(distances, expected_distances[part])
                np.testing.assert_array_equal(rows, expected_rows[part])


@pytest.mark.parametrize("n", [1, 3, 4, 300])
@pytest.mark.parametrize("share", [0.001, 0.02, 0.5, 0.999, 1.0])
def test_every_route_equals_brute_force_on_many_rows(n: int, share: float) -> None:
    """12,000 rows, with near duplicates and one long vector: scans, the 8-bit copy, copied and masked products."""
    generator = np.random.default_rng(4)
    vectors = generator.normal(size=(12_000, 6)).astype(np.float32)
    vectors[6000:8000] = vectors[:2000] * np.float32(1 + 1e-7)
    vectors[77] *= 100
    queries = (vectors[:n] + 1e-3 * generator.normal(size=(n, 6))).astype(np.float32)
    allowed = generator.random(12_000) < share
    distances, rows = FlatIndex.build(vectors).search(queries, 10, allowed=allowed)
    expected_distances, expected_rows = brute_force(vectors, queries, 10, allowed)
    np.testing.assert_array_equal(distances, expected_distances)
    np.testing.assert_array_equal(rows, expected_rows)


def test_the_8_bit_copy_proposes_all_that_a_fusion_looks_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its pool with hidden rows among it, of 12,000 rows."""
    index = FlatIndex.build(np.random.default_rng(6).normal(size=(12_000, 6)).astype(np.float32))
    query, asked = index.vectors(np.array([7])), list[int]()
    propose = Int8Copy.propose

    def noted(copy: Int8Copy, query: Vectors, n: int, parameters: None) -> tuple[Rows, float]:
        asked.append(n)
        return propose(copy, query, n, parameters)

    monkeypatch.setattr(Int8Copy, "propose", noted)
    _, rows = index.search(query, 2 * POOL + 16)
    assert asked == [2 * (2 * POOL + 16) + 12]
    assert rows[0].tolist() == brute_force(index.matrix, query, 2 * POOL + 16, None)[1][0].tolist()


def test_near_duplicates_that_eight_bits_cannot_tell_apart_are_still_told_apart() -> None:
    """Rows 1e-4 apart, where a step of the 8-bit copy is 1/128: it proposes any of them, and its bound says so."""
    vectors = np.zeros((12_000, 4), dtype=np.float32)
    vectors[:, 0] = np.random.default_rng(5).permutation(12_000) * np.float32(1e-4)
    vectors[0, 1] = 2.0
    distances, rows = FlatIndex.build(vectors).search(vectors[5:6], 9)
    expected_distances, expected_rows = brute_force(vectors, vectors[5:6], 9)
    np.testing.assert_array_equal(distances, expected_distances)
    np.testing.assert_array_equal(rows, expected_rows)


def test_more_equal_vectors_than_spare_candidates_are_still_ordered_by_row() -> None:
    """500 rows at distance 5 (a 3-4-5 triangle), one at 0: the answer is that one, then rows 0, 1, 2, ..."""
    vectors = np.tile(np.array([[3, 4]], dtype=np.float32), (501, 1))
    vectors[300] = 0
    distances, rows = FlatIndex.build(vectors).search(np.zeros((30, 2), dtype=np.float32), 5)
    assert distances.tolist() == [[0, 5, 5, 5, 5]] * 30
    assert rows.tolist() == [[300, 0, 1, 2, 3]] * 30


def test_near_duplicates_far_from_the_origin_are_measured_without_cancellation() -> None:
    """The products that FAISS's batch formula subtracts are around 1e6 here, where float32 steps by 0.06: differences
    of 1e-3 vanish in it. Measured directly they are exact to the rounding of the coordinates."""
    generator = np.random.default_rng(0)
    vectors = (1000 + generator.normal(scale=1e-3, size=(300, 8))).astype(np.float32)
    distances, rows = FlatIndex.build(vectors).search(vectors[:40], 3)
    expected_distances, expected_rows = brute_force(vectors, vectors[:40], 3)
    np.testing.assert_array_equal(distances, expected_distances)
    np.testing.assert_array_equal(rows, expected_rows)
    assert rows[:, 0].tolist() == list(range(40))
    assert not distances[:, 0].any()


def test_an_answer_does_not_depend_on_its_batch() -> None:
    generator = np.random.default_rng(1)
    vectors, queries = (generator.normal(size=(n, 16)).astype(np.float32) for n in (500, 64))
    index = FlatIndex.build(vectors)
    distances, rows = index.search(queries, 10)
    for place in range(0, 64, 9):
        one_distances, one_rows = index.search(queries[place : place + 1], 10)
        np.testing.assert_array_equal(one_distances[0], distances[place])
        np.testing.assert_array_equal(one_rows[0], rows[place])


def test_permuting_vectors_permutes_rows() -> None:
    generator = np.random.default_rng(2)
    vectors, queries = (generator.normal(size=(n, 8)).astype(np.float32) for n in (200, 25))
    new_row_of = generator.permutation(200)
    permuted = np.empty_like(vectors)
    permuted[new_row_of] = vectors
    distances, rows = FlatIndex.build(vectors).search(queries, 7)
    other_distances, other_rows = FlatIndex.build(permuted).search(queries, 7)
    np.testing.assert_array_equal(other_distances, distances)
    np.testing.assert_array_equal(other_rows, new_row_of[rows])


def test_k_is_cut_to_the_allowed_rows() -> None:
    index = FlatIndex.build(np.eye(4, dtype=np.float32))
    query = np.zeros((2, 4), dtype=np.float32)
    allowed = np.array([False, True, False, True])
    assert index.search(query, 9)[1].shape == (2, 4)
    assert index.search(query, 9, allowed=allowed)[1].tolist() == [[1, 3], [1, 3]]
    assert index.search(query, 9, allowed=np.zeros(4, dtype=bool))[1].shape == (2, 0)
    assert index.search(query[:0], 3)[0].shape == (0, 3)


def test_write_then_read_is_identity(tmp_path: Path) -> None:
    vectors = np.random.default_rng(3).normal(size=(20, 5)).astype(np.float32)
    FlatIndex.build(vectors).write(tmp_path / "vectors.faiss")
    read = FlatIndex.read(tmp_path / "vectors.faiss")
    assert (len(read), read.dimension) == (20, 5)
    np.testing.assert_array_equal(read.vectors(np.array([7, 3])), vectors[[7, 3]])


def test_files_that_hold_no_flat_l2_index_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    path.write_bytes(b"nonsense")
    with pytest.raises(ValueError, match="not a FAISS index"):
        FlatIndex.read(path)
    for other, said in ((faiss.IndexFlatIP(3), "expected IndexFlatL2"), (faiss.IndexFlatL2(3), "holds no vectors")):
        faiss.write_index(other, str(path))
        with pytest.raises(ValueError, match=said):
            FlatIndex.read(path)


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "vectors.faiss"
    FlatIndex.build(np.eye(50, dtype=np.float32)).write(path)
    for part in (0, 10, 5000):
        path.write_bytes(path.read_bytes()[:part])
        with pytest.raises(ValueError, match="not a FAISS index"):
            FlatIndex.read(path)


def test_the_callers_openmp_width_is_left_as_it_was() -> None:
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(before + 1)
    try:
        FlatIndex.build(np.eye(3, dtype=np.float32)).search(np.eye(3, dtype=np.float32), 1)
        assert faiss.omp_get_max_threads() == before + 1
    finally:
        faiss.omp_set_num_threads(before)


@pytest.mark.parametrize("vectors", [np.zeros((0, 3)), np.zeros((3, 0)), np.zeros(3)])
def test_no_vectors_are_refused(vectors: NDArray[np.float32]) -> None:
    with pytest.raises(ValueError, match="both positive"):
        FlatIndex.build(vectors)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_values_whose_distance_is_no_number_are_refused(value: float) -> None:
    vectors = np.zeros((4, 2), dtype=np.float32)
    vectors[2, 1] = value
    with pytest.raises(ValueError, match=r"vectors must be finite .* row 2"):
        FlatIndex.build(vectors)
    with pytest.raises(ValueError, match=r"queries must be finite .* row 2"):
        FlatIndex.build(np.eye(2, dtype=np.float32)).search(vectors, 1)


def test_wrong_shapes_name_what_was_allowed() -> None:
    index = FlatIndex.build(np.eye(3, dtype=np.float32))
    query = np.zeros((1, 3), dtype=np.float32)
    with pytest.raises(ValueError, match=r"\[n, 3\], got shape \(1, 2\)"):
        index.search(query[:, :2], 1)
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        index.search(query, 0)
    with pytest.raises(ValueError, match=r"allowed must be \[3\]"):
        index.search(query, 1, allowed=np.ones(2, dtype=bool))
