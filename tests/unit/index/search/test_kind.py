from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from index.search import kind as choice
from index.search.approximate import ApproximateIndex, ApproximateKind
from index.search.flat import FlatIndex
from index.search.kind import (
    SearchKind,
    build_search,
    describe_search,
    read_search,
    recall_of,
    sample_queries,
    write_search,
)

KINDS: tuple[ApproximateKind, ...] = ("hnsw", "ivf", "sq", "pq")


def titles_like(n: int) -> NDArray[np.float32]:
    """Series of five about 30 genres, in 16 dimensions."""
    generator = np.random.default_rng(0)
    genres = generator.normal(size=(30, 16))
    series = genres[generator.integers(30, size=n // 5)] + 0.5 * generator.normal(size=(n // 5, 16))
    return (series[np.arange(n) // 5] + 0.2 * generator.normal(size=(n, 16))).astype(np.float32)


def test_small_catalogs_are_searched_exactly() -> None:
    for kind in ("auto", "flat", "pq"):
        search, facts = build_search(titles_like(900), kind=kind)
        assert isinstance(search, FlatIndex)
        expected = {"kind": "flat", "recall_at_10": 1.0}
        assert describe_search(facts) == (
            "flat (exact) instead of pq, which needs 1,000 titles" if kind == "pq" else "flat (exact)"
        )
        assert facts == (expected | {"instead_of": "pq"} if kind == "pq" else expected)


def test_large_catalogs_get_the_automatic_kind(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "FLAT_UP_TO", 1500)
    assert build_search(titles_like(1500))[1]["kind"] == "flat"
    assert build_search(titles_like(2000), recall_floor=0.9)[1]["kind"] == "pq"


@pytest.mark.parametrize("kind", KINDS)
def test_the_floor_holds_and_the_manifest_says_by_how_much(kind: SearchKind, tmp_path: Path) -> None:
    vectors = titles_like(2000)
    search, facts = build_search(vectors, kind=kind, recall_floor=0.9)
    assert isinstance(search, ApproximateIndex)
    assert (facts["kind"], facts["breadth"], facts["queries"]) == (kind, search.breadth, 256)
    assert facts["recall_at_10"] >= 0.9
    queries = sample_queries(search.flat, 256)
    exact, _ = search.flat.search(queries, 10)
    assert recall_of(search, queries, exact) == facts["recall_at_10"]
    write_search(tmp_path, search)
    read = read_search(tmp_path, facts)
    for ours, theirs in zip(search.search(queries, 10), read.search(queries, 10), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_a_floor_out_of_reach_falls_back_to_exact_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """One list of many is all that a breadth of 1 looks at, and wider than half of all is no search but a scan."""
    monkeypatch.setattr(ApproximateIndex, "broadest", property(lambda _: 2))
    search, facts = build_search(np.random.default_rng(0).normal(size=(2000, 16)).astype(np.float32), kind="ivf")
    assert isinstance(search, FlatIndex)
    assert (facts["kind"], facts["instead_of"], facts["recall_at_10"]) == ("flat", "ivf", 1.0)
    assert facts["recall_reached"] < 0.98


def test_manifests_of_before_there_were_kinds_mean_flat(tmp_path: Path) -> None:
    write_search(tmp_path, FlatIndex.build(titles_like(50)))
    assert isinstance(read_search(tmp_path, "exact L2"), FlatIndex)


def test_facts_that_name_no_kind_are_refused(tmp_path: Path) -> None:
    write_search(tmp_path, FlatIndex.build(titles_like(50)))
    for facts in ({}, {"kind": "tree"}, {"kind": "ivf"}, {"kind": "ivf", "breadth": "wide"}):
        with pytest.raises(ValueError, match="names no kind of search with a breadth"):
            read_search(tmp_path, facts)
    with pytest.raises(ValueError, match="not a FAISS index"):
        read_search(tmp_path, {"kind": "ivf", "breadth": 3})


def test_arguments_out_of_range_name_what_is_allowed() -> None:
    for floor in (0.0, 1.1):
        with pytest.raises(ValueError, match=r"recall_floor must be in \(0, 1\]"):
            build_search(titles_like(50), recall_floor=floor)
    with pytest.raises(ValueError, match="auto, flat, hnsw, ivf, sq, pq, got 'tree'"):
        build_search(titles_like(50), kind="tree")  # type: ignore[arg-type]
