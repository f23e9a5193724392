from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.search.flat import FlatIndex
from index.search.kind import (
    SearchKind,
    SearchRequest,
    build_search,
    describe_search,
    read_search,
    recall_of,
    sample_queries,
    write_search,
)
from index.search.product_codes import ProductCodesIndex


def titles_like(n: int) -> NDArray[np.float32]:
    """Series of five about 30 genres, in 16 dimensions."""
    generator = np.random.default_rng(0)
    genres = generator.normal(size=(30, 16))
    series = genres[generator.integers(30, size=n // 5)] + 0.5 * generator.normal(size=(n // 5, 16))
    return (series[np.arange(n) // 5] + 0.2 * generator.normal(size=(n, 16))).astype(np.float32)


def test_small_catalogs_are_searched_exactly() -> None:
    kinds: tuple[SearchKind, ...] = ("auto", "flat", "pq")
    for kind in kinds:
        search, facts = build_search(titles_like(900), SearchRequest(kind))
        assert isinstance(search, FlatIndex)
        expected = {"kind": "flat", "recall_at_10": 1.0}
        assert describe_search(facts) == (
            "flat (exact) instead of pq, which needs 1,000 titles" if kind == "pq" else "flat (exact)"
        )
        assert facts == (expected | {"instead_of": "pq"} if kind == "pq" else expected)


def test_large_catalogs_get_the_automatic_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.search.kind.FLAT_UP_TO", 1500)
    assert build_search(titles_like(1500), SearchRequest())[1]["kind"] == "flat"
    assert build_search(titles_like(2000), SearchRequest(recall_floor=0.9))[1]["kind"] == "pq"


def test_the_floor_holds_and_the_manifest_says_by_how_much(tmp_path: Path) -> None:
    vectors = titles_like(2000)
    search, facts = build_search(vectors, SearchRequest("pq", 0.9))
    assert isinstance(search, ProductCodesIndex)
    assert (facts["kind"], facts["breadth"], facts["queries"]) == ("pq", search.breadth, 256)
    assert facts["recall_at_10"] >= 0.9
    queries = sample_queries(search.flat, 256)
    exact, _ = search.flat.search(queries, 10)
    assert recall_of(search, queries, exact) == facts["recall_at_10"]
    write_search(tmp_path, search)
    read = read_search(tmp_path, facts)
    for ours, theirs in zip(search.search(queries, 10), read.search(queries, 10), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_floor_out_of_reach_falls_back_to_exact_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first breadth is already half of the broadest, so no wider one is tried."""
    monkeypatch.setattr(ProductCodesIndex, "broadest", property(lambda _: 2))
    vectors = np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32)
    search, facts = build_search(vectors, SearchRequest("pq", 1.0))
    assert isinstance(search, FlatIndex)
    assert (facts["kind"], facts["instead_of"], facts["recall_at_10"]) == ("flat", "pq", 1.0)
    assert facts["recall_reached"] < 1


def test_facts_that_name_no_kind_are_refused(tmp_path: Path) -> None:
    write_search(tmp_path, FlatIndex.build(titles_like(50)))
    for facts in ({}, {"kind": "hnsw", "breadth": 16}, {"kind": "pq"}, {"kind": "pq", "breadth": "wide"}):
        with pytest.raises(ValueError, match="must be flat, or pq with a breadth"):
            read_search(tmp_path, facts)
    with pytest.raises(ValueError, match="not a FAISS index"):
        read_search(tmp_path, {"kind": "pq", "breadth": 3})


def test_arguments_out_of_range_name_what_is_allowed() -> None:
    for floor in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"recall_floor must be in \(0, 1\]"):
            SearchRequest(recall_floor=floor)
    with pytest.raises(ValueError, match="auto, flat, pq, got 'hnsw'"):
        SearchRequest("hnsw")  # type: ignore[arg-type]
