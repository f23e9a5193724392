"""What an answer says of where each of its items came from."""

import numpy as np
import pytest

from index.catalog.catalog import Catalog, Item
from index.catalog.slots import SlotArrays
from index.ranking.grounding import Grounder
from index.ranking.ranking import POOL, Ranker, Written
from index.ranking.ranking_spec import FusionWeights, RankingSpec
from index.search.flat import FlatIndex
from serving.answer import ranked_items
from serving.schema import Filters, Match, RecommendedItem, ScoreType, Source
from serving.snapshots.candidates import select_candidates
from tests.unit.serving.conftest import LetterEncoder

TITLES = [*("a" * n for n in range(1, POOL + 3)), "zz", "Zoo"]
POPULAR = POOL + 1  # the row of POOL + 2 letters a, two beyond the nearest that a fusion looks at


def rank(choice: RankingSpec, written: Written, k: int) -> dict[str, RecommendedItem]:
    catalog = Catalog.from_items(Item(str(row), title) for row, title in enumerate(TITLES))
    popularity = np.zeros(len(TITLES), dtype=np.int64)
    popularity[[0, POPULAR]] = 5, 1000
    ranker = Ranker(Grounder(catalog, FlatIndex.build(LetterEncoder().encode(TITLES)), LetterEncoder()), popularity)
    candidates = select_candidates(SlotArrays.of(catalog), Filters(), [])
    [ranked] = ranker.rank([written], k, choice, allowed=candidates.rows)
    return {item.title: item for item in ranked_items(ranked, written, choice, candidates, k)}


def test_what_a_fusion_took_for_its_popularity_alone_says_so() -> None:
    """a was written and is near itself and popular: the model's. The popular one is 51 away, further than 50 others."""
    choice = RankingSpec("fusion", FusionWeights(0.0, 0.0, 1.0, 0.0))
    items = rank(choice, Written(("A",), (-1.0,)), 2)
    popular, best = items["a" * (POPULAR + 1)], items["a"]
    assert (popular.rank, popular.source, popular.grounding) == (1, Source.POPULARITY, None)
    assert popular.score_type is ScoreType.FUSION
    assert best.source is Source.GENERATED
    assert best.grounding is not None
    assert (best.grounding.generation, best.grounding.match) == ("A", Match.EXACT)


def test_under_l2_every_item_is_tied_to_the_best_text_and_its_score_is_the_distance_shown() -> None:
    items = rank(RankingSpec(), Written(("AAA", "Aa"), (-1.0, -2.0)), 3)
    assert list(items) == ["aaa", "aa", "aaaa"]
    for item in items.values():
        assert item.grounding is not None
        assert (item.grounding.generation, item.score) == ("AAA", -item.grounding.distance)
    matches = [(item.grounding.match, item.grounding.log_prob) for item in items.values() if item.grounding]
    assert matches == [(Match.EXACT, -1.0), (Match.NEAREST, -2.0), (Match.NEAREST, None)]


def test_a_written_title_is_shown_as_the_model_wrote_it_and_a_neighbour_beside_the_best() -> None:
    """Of two spellings of one title the likelier is shown; only of the best text the margin is known: zz to Zoo."""
    written = Written(("zz!", "ZOO", "zoo", "ZZ"), (-1.0, -2.0, -3.0, -4.0))
    items = rank(RankingSpec("likelihood"), written, 3)
    assert list(items) == ["Zoo", "zz", "a"]
    shown = [item.grounding for item in items.values() if item.grounding]
    assert [one.generation for one in shown] == ["ZOO", "ZZ", "zz!"]
    assert [one.match for one in shown] == [Match.EXACT, Match.EXACT, Match.NEAREST]
    assert [one.margin for one in shown] == [None, None, pytest.approx(5**0.5)]
