"""Rankings by hand, and their laws: rows are distinct, allowed and as many as there can be; written titles lead."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from index.ranking.grounding import Grounder
from index.ranking.ranking import Ranker, Written
from index.ranking.ranking_spec import FusionWeights, RankingSpec
from index.search.flat import FlatIndex
from tests.unit.index.letter_encoder import LetterEncoder

TITLES = ("a", "aa", "aaa", "b", "bb", "c")
LIKELIHOOD = RankingSpec("likelihood")


def make_ranker(popularity: tuple[int, ...] = (0, 0, 0, 0, 0, 0)) -> Ranker:
    catalog = Catalog.from_items(Item(title, title) for title in TITLES)
    grounder = Grounder(catalog, FlatIndex.build(LetterEncoder().encode(TITLES)), LetterEncoder())
    return Ranker(grounder, np.array(popularity, dtype=np.int64))


def test_likelihood_ranks_what_was_written_and_goes_on_by_distance_to_the_best() -> None:
    """b is the best: bb lies 1 away, then a and c sqrt(2), aa sqrt(5); aaa, sqrt(10), was written."""
    [ranked] = make_ranker().rank([Written(("b", "aaa"), (-1.0, -2.0))], 6, LIKELIHOOD)
    assert ranked.rows.tolist() == [3, 2, 4, 0, 5, 1]
    assert ranked.log_probs[:2].tolist() == [-1, -2]
    assert np.isnan(ranked.log_probs[2:]).all()
    assert ranked.scores.tolist() == pytest.approx([-1, -2, -1, -(2**0.5), -(2**0.5), -(5**0.5)])
    assert ranked.distances.tolist() == pytest.approx([0, 10**0.5, 1, 2**0.5, 2**0.5, 5**0.5])


def test_l2_asks_only_the_best_title_but_tells_what_is_known_of_the_others() -> None:
    [ranked] = make_ranker().rank([Written(("b", "aaa"), (-1.0, -2.0))], 2, RankingSpec())
    assert ranked.rows.tolist() == [3, 4]
    assert ranked.scores.tolist() == [0, -1]
    assert ranked.log_probs[0] == -1
    assert np.isnan(ranked.log_probs[1])


def test_fusion_is_the_weighted_sum() -> None:
    """Of c only popularity is known: log(1 + 7) = log 8, its log-probability is aaa's, its distance to b sqrt(2).

    b: 2 * -1 - 0 + 0 = -2.   c: 2 * -2 - 0.5 * sqrt(2) + 3 log 8 - 1.
    """
    ranker = make_ranker((0, 0, 0, 0, 0, 7))
    weights = FusionWeights(log_prob=2.0, distance=0.5, popularity=3.0, unwritten=1.0)
    [ranked] = ranker.rank([Written(("b", "aaa"), (-1.0, -2.0))], 6, RankingSpec("fusion", weights))
    scores = dict(zip(ranked.rows.tolist(), ranked.scores.tolist(), strict=True))
    assert scores[3] == pytest.approx(-2)
    assert scores[5] == pytest.approx(-4 - 0.5 * 2**0.5 + 3 * np.log(8) - 1)
    assert ranked.rows[0] == 5


@given(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.integers(0, 3))
def test_a_ranker_of_added_titles_is_the_one_made_anew_without_sorting_again(counts: list[int], added: int) -> None:
    def make(rows: int) -> Ranker:
        titles = ["x" * (row + 1) for row in range(rows)]
        catalog = Catalog.from_items(Item(title, title) for title in titles)
        grounder = Grounder(catalog, FlatIndex.build(LetterEncoder().encode(titles)), LetterEncoder())
        popularity = np.array([*counts, *[0] * added][:rows], dtype=np.int64)
        return Ranker(grounder, popularity)

    before, anew = make(len(counts)), make(len(counts) + added)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("index.ranking.ranking.popularity_order", None)
        grown = before.advance(anew.grounder)
    assert grown.popular.tolist() == anew.popular.tolist()
    weights = FusionWeights(log_prob=1.0, distance=0.5, popularity=2.0, unwritten=1.0)
    written = [Written(("xx", "xxxxx"), (-1.0, -2.0))]
    [one], [other] = (ranker.rank(written, 9, RankingSpec("fusion", weights)) for ranker in (grown, anew))
    assert (one.rows.tolist(), one.scores.tolist()) == (other.rows.tolist(), other.scores.tolist())


def test_bigrecs_gamma_divides_normalised_distances_by_popularity() -> None:
    """From b: b 0, bb 1, a and c sqrt(2), aa sqrt(5), aaa sqrt(10), the farthest. c is the most popular: share 1."""
    ranker = make_ranker((0, 0, 0, 0, 0, 7))
    [ranked] = ranker.rank([Written(("b",), (-1.0,))], 6, RankingSpec(popularity_gamma=2.0))
    assert ranked.rows.tolist() == [3, 5, 4, 0, 1, 2]
    assert ranked.scores[1] == pytest.approx(-((2 / 10) ** 0.5) / 4)
    barely = ranker.rank([Written(("b",), (-1.0,))], 6, RankingSpec(popularity_gamma=1e-12))[0]
    assert barely.rows.tolist() == [3, 4, 5, 0, 1, 2]  # a and c are equally far: popularity decides


@given(st.lists(st.integers(0, 5), min_size=6, max_size=6), st.sampled_from(["a", "bb", "ca", "xyz"]))
def test_ranks_by_gamma_are_those_of_the_ranking(popularity: list[int], text: str) -> None:
    ranker = make_ranker(tuple(popularity))
    written = [Written((text,), (-1.0,))] * 6
    places = ranker.ranks_by_gamma(written, range(6), (0.5, 3.0))
    for gamma, found in zip((0.5, 3.0), places, strict=True):
        [ranked] = ranker.rank(written[:1], 6, RankingSpec(popularity_gamma=gamma))
        assert [ranked.rows.tolist().index(row) for row in range(6)] == found.tolist()


def test_rows_that_decoding_knows_are_not_looked_up() -> None:
    [ranked] = make_ranker().rank([Written(("b", "b"), (-1.0, -2.0), rows=(3, 5))], 2, LIKELIHOOD)
    assert ranked.rows.tolist() == [3, 5]


CHOICES = (
    RankingSpec(),
    LIKELIHOOD,
    RankingSpec("fusion", FusionWeights(1.0, 1.0, 0.5, 0.0)),
    RankingSpec(popularity_gamma=1.0),
)
texts = st.lists(st.text("abc", max_size=3), min_size=1, max_size=5, unique=True)


@given(texts, st.integers(1, 8), st.lists(st.booleans(), min_size=6, max_size=6), st.sampled_from(CHOICES))
def test_every_ranking_gives_distinct_allowed_rows_as_many_as_there_are(
    titles: list[str], k: int, passed: list[bool], choice: RankingSpec
) -> None:
    written = Written(tuple(titles), tuple(-float(place) for place in range(len(titles))))
    allowed = np.array(passed)
    [ranked] = make_ranker((5, 0, 1, 3, 0, 2)).rank([written], k, choice, allowed=allowed)
    rows = ranked.rows.tolist()
    assert len(rows) == len(set(rows)) == min(k, sum(passed))
    assert allowed[ranked.rows].all()
    for values in (ranked.scores, ranked.log_probs, ranked.distances):
        assert len(values) == len(rows)
    if choice.mode == "likelihood":
        listed = [TITLES.index(title) for title in titles if title in TITLES and allowed[TITLES.index(title)]]
        assert rows[: len(listed)] == listed[:k]


def test_a_choice_survives_its_manifest_and_a_wrong_one_is_refused() -> None:
    for choice in CHOICES:
        assert RankingSpec.from_json(choice.to_json()) == choice
    ready = RankingSpec("likelihood", FusionWeights(1.0, 1.0, 0.5, 0.0))
    assert ready.by("fusion") == CHOICES[2]
    assert RankingSpec(popularity_gamma=1.0).by("likelihood") == LIKELIHOOD
    with pytest.raises(ValueError, match="a fusion needs weights"):
        LIKELIHOOD.by("fusion")
    with pytest.raises(ValueError, match="a fusion needs weights"):
        RankingSpec("fusion")
    with pytest.raises(ValueError, match="l2, likelihood, fusion"):
        RankingSpec("cosine")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="2 texts"):
        Written(("a", "b"), (1.0,))
