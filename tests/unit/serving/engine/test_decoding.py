"""Every way to write and to rank, through the request path, with a fake engine that likes one title."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from index.ranking.ranking_spec import FusionWeights, RankingSpec
from serving.engine.decoding import AdapterDecoder, choose_decoding, choose_ranking, titles_ranked
from serving.engine.title_tries import TitleTries
from serving.errors import SettingsError
from serving.schema import Degraded, Filters, Match, RecommendedItem, RecommendRequest, ScoreType, Source
from tests.tiny_shop import ITEMS, TEMPLATE, tiny_catalog
from tests.unit.serving.conftest import ADAPTER_IDS, Rig, find_decision
from training.adapter import Decoding
from training.generation.decoding import LISTED
from training.prompt import PromptRenderer

LIKELIHOOD = RankingSpec("likelihood")
FUSION = RankingSpec("fusion", FusionWeights(log_prob=1.0, distance=0.1, popularity=0.5, unwritten=1.0))
EVERY_TITLE = Decoding("constrained_beam", 42, 7)


async def ask(rig: Rig, **request: Any) -> list[RecommendedItem]:
    asked = RecommendRequest.model_validate({"history": ["i8"], **request})
    return (await rig.service.recommender.recommend(asked, request_id="r", record=False)).items


def log_prob(rig: Rig, title: str, liked: str = "Zork") -> float:
    """What the fake engine's model thinks of a title."""
    ids, path = rig.renderer.completion_ids(title), rig.renderer.completion_ids(liked)
    return sum(rig.engine._nats(path, ids[:at], token) for at, token in enumerate(ids))


async def test_constrained_beams_rank_every_open_title_by_its_log_probability(rig: Rig) -> None:
    """History: Pong. Quake is not available, so six titles are open; Tetris is two items."""
    rig.decode(EVERY_TITLE, LIKELIHOOD)
    items = await ask(rig, k=10)
    open_items = [item for item in ITEMS if item.item_id not in ("i6", "i8")]
    order = {"TETRIS": "Tetris"}
    scores = {item.item_id: log_prob(rig, order.get(item.title, item.title)) for item in open_items}
    expected = sorted(scores, key=lambda item_id: (-scores[item_id], item_id))
    assert [item.item_id for item in items] == expected
    for item in items:
        assert item.score == pytest.approx(scores[item.item_id])
        assert (item.score_type, item.source) == (ScoreType.LOG_PROBABILITY, Source.GENERATED)
        assert item.grounding is not None
        assert (item.grounding.match, item.grounding.distance) == (Match.CONSTRAINED, 0.0)
        assert item.grounding.log_prob == item.score
        assert item.grounding.ambiguity == (2 if item.item_id in ("i1", "i3") else 1)
        assert (item.grounding.margin is None) == (item.rank > 1)


@pytest.mark.parametrize("width", [1, 2, 7])
async def test_k_survive_filters_and_exclusions(rig: Rig, width: int) -> None:
    """puzzle or adventure: Tetris (i1, i3), Myst, Portal, Zork; without Zork and i1, and with Portal seen: i3 and Myst.

    The model likes Zork, which may not be given: the search goes round it.
    """
    rig.decode(Decoding("constrained_beam", 42, width), LIKELIHOOD)
    items = await ask(
        rig, history=["i5"], k=2, filters={"category": ["puzzle", "adventure"]}, exclude_item_ids=["i7", "i1"]
    )
    assert {item.item_id for item in items} == {"i3", "i4"}
    assert items[0].score_type is ScoreType.LOG_PROBABILITY


async def test_a_narrow_beam_is_filled_up_with_neighbours_that_say_so(rig: Rig) -> None:
    rig.decode(Decoding("constrained_beam", 42, 1), LIKELIHOOD)
    items = await ask(rig, k=5)
    assert (items[0].item_id, items[0].source) == ("i7", Source.GENERATED)
    rest = [item for item in items if item.source is Source.NEIGHBOUR]
    assert len(items) == 5
    assert 3 <= len(rest) <= 4
    for item in rest:
        assert item.score_type is ScoreType.NEGATIVE_L2_DISTANCE
        assert item.grounding is not None
        assert item.grounding.log_prob is None
        assert (item.grounding.match, item.grounding.generation) == (Match.NEAREST, "Zork")
        assert item.score == -item.grounding.distance
    assert len({item.item_id for item in items}) == 5


@pytest.mark.parametrize("decoding", [EVERY_TITLE, Decoding("greedy", 42)])
async def test_where_nothing_may_be_given_nobody_is_asked_to_write(rig: Rig, decoding: Decoding) -> None:
    rig.decode(decoding, LIKELIHOOD)
    request = RecommendRequest(history=["i8"], filters=Filters(category=["nope"]))
    async with rig.admission.slot(), rig.admission.slot():  # all there are
        answer = await rig.service.recommender.recommend(request, request_id="r", record=False)
    assert (answer.items, answer.degraded) == ([], [Degraded.FEWER_THAN_K])
    assert rig.engine.prompts == []
    assert (answer.history.used, answer.history.dropped, answer.usage.completion_tokens) == (0, 1, 0)


async def test_a_fusion_reads_what_was_written_and_scores_the_rest_too(rig: Rig) -> None:
    """Zork was written; Portal, unwritten, has the floor's log-probability, its distance sqrt(6) and 2 interactions."""
    rig.decode(Decoding("constrained_beam", 42, 1), FUSION)
    items = {item.item_id: item for item in await ask(rig, k=10)}
    assert len(items) == 6
    assert {item.score_type for item in items.values()} == {ScoreType.FUSION}
    zork = items["i7"]
    assert zork.score == pytest.approx(log_prob(rig, "Zork"))
    assert zork.grounding is not None
    assert zork.grounding.match is Match.CONSTRAINED


async def test_where_all_titles_are_too_long_the_model_writes_freely(rig: Rig, tmp_path: Path) -> None:
    """Of at most four tokens are Doom, Myst, Zork and Pong, rows 1, 2, 5 and 6; Tetris and Portal, rows 0 and 3, are
    longer: what is written is then tied to them by distance.
    """
    short = PromptRenderer(replace(TEMPLATE, max_title_tokens=4), rig.renderer.tokenizer, end_id=256)
    tries = TitleTries.open(tmp_path, tiny_catalog(), short)
    decoder = AdapterDecoder(rig.engine, ADAPTER_IDS["soft"], short, EVERY_TITLE)
    written = {}
    for rows in ((0, 3), (0, 1, 3, 5)):
        titles = tries.allowed_titles(np.isin(np.arange(7), rows))
        decoded = await decoder.write([1], k=3, catalog=tiny_catalog(), titles=titles, request_id="r")
        assert decoded.written is not None
        assert decoded.unconstrained == (rows == (0, 3))
        written[rows] = decoded.written
    assert (written[0, 3].rows, written[0, 3].texts) == (None, ("Zork",))
    assert (written[0, 1, 3, 5].rows, written[0, 1, 3, 5].texts) == ((5, 1), ("Zork", "Doom"))


async def test_an_answer_says_that_its_text_was_not_confined_to_the_catalog(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if every title that may be given were too long: the search has nothing to find."""
    rig.decode(EVERY_TITLE, LIKELIHOOD)
    request, recommend = RecommendRequest(history=["i8"], k=2), rig.service.recommender.recommend
    assert (await recommend(request, request_id="constrained", record=False)).degraded == []
    allowed_titles = TitleTries.allowed_titles
    monkeypatch.setattr(
        TitleTries, "allowed_titles", lambda tries, *_: allowed_titles(tries, np.zeros(7, dtype=np.bool_))
    )
    answer = await recommend(request, request_id="free", record=False)
    assert answer.degraded == [Degraded.UNCONSTRAINED]
    assert [item.grounding.match for item in answer.items if item.grounding] == [Match.EXACT, Match.NEAREST]


async def test_greedy_decoding_ties_its_text_to_the_catalog(rig: Rig) -> None:
    """Zork, quote and end: six tokens of 1 nat."""
    decoding, log_prob = Decoding("greedy", 42), -6.0
    rig.decode(decoding, LIKELIHOOD)
    first, second = await ask(rig, k=2)
    assert first.item_id == "i7"
    assert first.score == pytest.approx(log_prob)
    assert first.grounding is not None
    assert first.grounding.match is Match.EXACT
    assert (second.source, second.score_type) == (Source.NEIGHBOUR, ScoreType.NEGATIVE_L2_DISTANCE)
    rig.decode(decoding, RankingSpec("l2"))
    by_distance = await ask(rig, k=2)
    assert [item.score_type for item in by_distance] == [ScoreType.NEGATIVE_L2_DISTANCE] * 2
    assert by_distance[0].grounding is not None
    assert by_distance[0].grounding.log_prob == pytest.approx(log_prob)
    rig.write("soft", "")
    assert {item.source for item in await ask(rig, k=2)} == {Source.POPULARITY}


@pytest.mark.parametrize(("limit", "labels"), [(1.4, [Degraded.HALLUCINATED_TITLE]), (1.5, []), (None, [])])
@pytest.mark.parametrize("ranking", [RankingSpec("l2"), LIKELIHOOD])
async def test_a_title_far_from_the_catalog_is_labelled_and_its_nearest_are_kept(
    rig: Rig, tmp_path: Path, ranking: RankingSpec, limit: float | None, labels: list[Degraded]
) -> None:
    """Zorq lies at sqrt(2) from Zork: one letter gone, another come."""
    rig.decode(Decoding("greedy", 42), ranking)
    soft = rig.service.arms.adapters["soft"]
    rig.service.arms._default = replace(soft, hallucination_distance=limit)
    rig.write("soft", "Zorq")
    answer = await rig.service.recommender.recommend(RecommendRequest(history=["i8"], k=2), request_id="r")
    assert answer.degraded == labels
    assert answer.items[0].item_id == "i7"
    decision = find_decision(tmp_path / "events.db", "r")
    assert decision is not None
    assert decision["degraded"] == [label.value for label in labels]


async def test_what_was_confined_to_the_catalog_is_no_hallucination(rig: Rig) -> None:
    rig.decode(EVERY_TITLE, LIKELIHOOD)
    soft = rig.service.arms.adapters["soft"]
    rig.service.arms._default = replace(soft, hallucination_distance=-1.0)
    answer = await rig.service.recommender.recommend(RecommendRequest(history=["i8"], k=2), request_id="r")
    assert answer.degraded == []


async def test_a_search_that_is_cancelled_is_cancelled_in_the_engine(rig: Rig) -> None:
    rig.decode(EVERY_TITLE, LIKELIHOOD)
    rig.engine.gate.clear()
    running = asyncio.create_task(ask(rig))
    await rig.engine.waiting.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    assert rig.engine.cancelled == 1


async def test_explain_keeps_the_titles_with_their_log_probabilities(rig: Rig, tmp_path: Any) -> None:
    rig.decode(EVERY_TITLE, LIKELIHOOD)
    request = RecommendRequest(history=["i8"], k=2, explain=True)
    await rig.service.recommender.recommend(request, request_id="explained")
    decision = find_decision(tmp_path / "events.db", "explained")
    assert decision is not None
    best, second = decision["details"]["titles"]
    assert best == ["Zork", pytest.approx(log_prob(rig, "Zork"))]
    assert second[1] < best[1]
    assert decision["details"]["is_proven"] is True
    rig.decode(Decoding("greedy", 42), LIKELIHOOD)
    await rig.service.recommender.recommend(request, request_id="free")
    freely = find_decision(tmp_path / "events.db", "free")
    assert freely is not None
    assert freely["details"]["is_proven"] is None


def test_settings_override_the_manifest_and_a_fusion_needs_weights() -> None:
    manifest = Decoding("constrained_beam", 42, 20)
    assert choose_decoding(manifest, None, None) == manifest
    assert choose_decoding(manifest, None, 5) == Decoding("constrained_beam", 42, 5)
    assert choose_decoding(Decoding("greedy", 42), "constrained_beam", None) == manifest
    assert choose_decoding(manifest, "greedy", 5) == Decoding("greedy", 42, 1)
    assert choose_ranking("a@1", FUSION, None) == choose_ranking("a@1", FUSION, "fusion") == FUSION
    assert choose_ranking("a@1", FUSION, "l2") == RankingSpec("l2", FUSION.weights)
    assert choose_ranking("a@1", RankingSpec("likelihood", FUSION.weights), "fusion") == FUSION
    with pytest.raises(SettingsError, match=r"a@1 ranks by likelihood and has no weights.* SOFTREC_RANKING"):
        choose_ranking("a@1", LIKELIHOOD, "fusion")
    assert [titles_ranked(choice) for choice in (RankingSpec("l2"), LIKELIHOOD, FUSION)] == [1, None, LISTED]
