from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from index.ranking.grounding import Grounder
from index.search.flat import FlatIndex
from index.search.search import Mask, Rows, Vectors
from tests.unit.index.letter_encoder import LetterEncoder

words = st.text("abc", min_size=1, max_size=4)
catalogs = st.lists(words, min_size=1, max_size=12, unique=True)


def make_grounder(titles: list[str], encoder: LetterEncoder | None = None) -> Grounder:
    catalog = Catalog.from_items(Item(str(number), title) for number, title in enumerate(titles))
    index = FlatIndex.build(LetterEncoder().encode(catalog.titles))
    return Grounder(catalog, index, encoder or LetterEncoder())


def test_the_nearest_title_is_found_with_distance_and_margin() -> None:
    """aab counts (2, 1): from aaab (3, 1) it is 1 away, from b (0, 1) 2, from bbb (0, 3) sqrt(4 + 4)."""
    ranking = make_grounder(["bbb", "b", "aaab"]).rank(["aab"], 3)[0]
    assert ranking.rows.tolist() == [2, 1, 0]
    assert ranking.distances.tolist() == pytest.approx([1, 2, 8**0.5])
    grounding = ranking.grounding
    assert (grounding.generation, grounding.match, grounding.row) == ("aab", "nearest", 2)
    assert (grounding.distance, grounding.margin) == (1, 1)


def test_an_exact_title_comes_first_even_before_its_anagrams_and_needs_no_encoder() -> None:
    """abc, bca and cab have one vector, so all three are 0 away; the one that was written comes first."""
    encoder = LetterEncoder()
    ranking = make_grounder(["abc", "bca", "cab", "a"], encoder).rank([" CAB "], 3)[0]
    assert ranking.rows.tolist() == [2, 0, 1]
    assert not ranking.distances.any()
    assert (ranking.grounding.match, ranking.grounding.row, ranking.grounding.margin) == ("exact", 2, 0)
    assert encoder.encoded == []


def test_an_exact_title_comes_first_also_when_more_anagrams_than_k_lie_before_it() -> None:
    ranking = make_grounder(["abc", "bca", "cab"]).rank(["cab"], 1)[0]
    assert ranking.rows.tolist() == [2]
    assert ranking.distances.tolist() == [0]


def test_filters_change_the_ranking_but_not_what_the_text_stands_for() -> None:
    grounder = make_grounder(["abc", "bca", "a", "b"])
    allowed = np.array([True, False, True, True])
    ranking = grounder.rank(["bca", "aa"], 2, allowed=allowed)
    assert ranking[0].rows.tolist() == [0, 2]
    assert (ranking[0].grounding.match, ranking[0].grounding.row) == ("exact", 1)
    assert ranking[1].rows.tolist() == [2, 0]
    assert grounder.rank(["a"], 4, allowed=np.zeros(4, dtype=bool))[0].rows.tolist() == []


@given(st.data())
def test_a_filter_ranks_as_a_catalog_of_the_allowed_titles_would(data: st.DataObject) -> None:
    """However many are hidden: one search for both ends, or a second with the filter inside."""
    titles = data.draw(st.lists(words, min_size=1, max_size=60, unique=True))
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(titles), max_size=len(titles))))
    text, k = data.draw(st.text("abcd", max_size=5)), data.draw(st.integers(1, 12))
    grounder = make_grounder(titles)
    filtered, free = grounder.rank([text], k, allowed=allowed)[0], grounder.rank([text], len(titles))[0]
    kept = allowed[free.rows]
    assert filtered.rows.tolist() == free.rows[kept][:k].tolist()
    assert filtered.distances.tolist() == free.distances[kept][:k].tolist()
    assert filtered.grounding == free.grounding


@pytest.mark.parametrize(("hidden", "reach"), [(0, 20), (1, 21), (10, 30), (40, 40), (200, 56), (201, 2)])
def test_a_search_reaches_past_hidden_titles_no_further_than_they_are_many(hidden: int, reach: int) -> None:
    """For 20 of 400 titles: 40 hidden ones are 2 of 20 if they lie anywhere, so twice that and 16 are looked past.

    Those that lie farthest are hidden, so one search is enough, unless more than half are hidden.
    """
    titles = ["a" * n for n in range(1, 401)]
    grounder, asked = make_grounder(titles), list[int]()
    search = grounder.index.search

    def noted(queries: Vectors, k: int, **options: Any) -> tuple[Vectors, Rows]:
        asked.append(k)
        return search(queries, k, **options)

    grounder.index.search = noted  # type: ignore[method-assign]
    allowed = np.arange(400) < 400 - hidden
    assert grounder.rank(["a"], 20, allowed=allowed)[0].rows.tolist() == list(range(20))
    assert asked == ([reach] if hidden <= 200 else [reach, 20])


def test_an_exact_title_that_an_approximate_search_misses_is_0_away() -> None:
    """The search does not find aa, whether all titles are allowed or some."""

    class Missing(FlatIndex):
        def search(self, queries: Vectors, k: int, *, allowed: Mask | None = None) -> Any:
            seen = np.array([True, False, True, True]) & (True if allowed is None else allowed)
            return super().search(queries, k, allowed=seen)

    titles = ["a", "aa", "aaa", "aaaaa"]
    catalog = Catalog.from_items(Item(title, title) for title in titles)
    grounder = Grounder(catalog, Missing(FlatIndex.build(LetterEncoder().encode(titles)).storage), LetterEncoder())
    for allowed in (None, np.array([True, True, True, False])):
        [ranking] = grounder.rank(["aa"], 2, allowed=allowed)
        assert (ranking.grounding.match, ranking.grounding.distance, ranking.grounding.margin) == ("exact", 0.0, 1.0)
        assert (ranking.rows.tolist(), ranking.distances.tolist()) == ([1, 0], [0.0, 1.0])


def test_unknown_texts_are_encoded_once_and_together() -> None:
    encoder = LetterEncoder()
    rankings = make_grounder(["a", "b"], encoder).rank(["aa", "a", "bb", "aa", ""], 1)
    assert encoder.encoded == [["aa", "bb", ""]]
    assert [int(ranking.rows[0]) for ranking in rankings] == [0, 0, 1, 0, 0]


def test_a_text_met_lately_is_not_encoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("index.ranking.grounding._REMEMBERED", 2)
    encoder = LetterEncoder()
    grounder = make_grounder(["a", "b"], encoder)
    first = grounder.rank(["aa", "bb"], 1)
    again = grounder.rank(["bb", "aa"], 1)
    assert encoder.encoded == [["aa", "bb"]]
    assert (again[1].vector == first[0].vector).all()
    grounder.rank(["ab"], 1)  # bb, met the longest ago, makes room
    grounder.rank(["aa", "bb"], 1)
    assert encoder.encoded == [["aa", "bb"], ["ab"], ["bb"]]


def test_a_catalog_of_one_title_has_no_margin() -> None:
    assert make_grounder(["a"]).rank(["b"], 5)[0].grounding.margin is None


def test_nothing_to_ground_gives_nothing() -> None:
    assert make_grounder(["a"]).rank([], 5) == []


@given(catalogs, st.lists(words, min_size=1, max_size=5), st.integers(1, 12))
def test_distances_ascend_and_are_true_distances(titles: list[str], texts: list[str], k: int) -> None:
    vectors = LetterEncoder().encode(titles)
    for ranking in make_grounder(titles).rank(texts, k):
        query = LetterEncoder().encode([ranking.grounding.generation])[0]
        distances = np.sqrt(((vectors[ranking.rows] - query) ** 2).sum(axis=1))
        np.testing.assert_allclose(ranking.distances, distances, rtol=1e-6)
        assert len(set(ranking.rows.tolist())) == len(ranking.rows) == min(k, len(titles))
        assert (np.diff(ranking.distances) >= 0).all()
        every = np.sort(np.sqrt(((vectors - query) ** 2).sum(axis=1)))
        assert ranking.grounding.distance == pytest.approx(every[0])
        assert ranking.grounding.margin == (pytest.approx(every[1] - every[0], abs=1e-6) if len(titles) > 1 else None)


@given(st.permutations(["aaa", "b", "cccccc", "aabbb"]), words)
def test_permuting_titles_permutes_rows(titles: list[str], text: str) -> None:
    """Equal distances are ordered by row, and rows are what is permuted: so distances are compared title by title."""
    ranking = make_grounder(titles).rank([text], 4)[0]
    sorted_ranking = make_grounder(sorted(titles)).rank([text], 4)[0]
    np.testing.assert_array_equal(ranking.distances, sorted_ranking.distances)
    by_title = dict(zip([titles[row] for row in ranking.rows], ranking.distances.tolist(), strict=True))
    by_sorted_title = dict(
        zip([sorted(titles)[row] for row in sorted_ranking.rows], sorted_ranking.distances.tolist(), strict=True)
    )
    assert by_title == by_sorted_title


def test_parts_of_different_sizes_are_refused() -> None:
    catalog = Catalog.from_items([Item("0", "a")])
    with pytest.raises(ValueError, match="the index has 2 rows, the catalog 1"):
        Grounder(catalog, FlatIndex.build(np.eye(2, 26, dtype=np.float32)), LetterEncoder())
    with pytest.raises(ValueError, match="dimension 3, the encoder 26"):
        Grounder(catalog, FlatIndex.build(np.zeros((1, 3), dtype=np.float32)), LetterEncoder())
