"""The request path, with answers worked out by hand from tests.tiny_shop."""

import asyncio
import contextlib
import sqlite3
from pathlib import Path

import httpx
import pytest

from clients.http.client import AsyncClient
from serving import recommender
from serving.errors import (
    AdapterForbiddenError,
    DeadlineError,
    OverloadedError,
    StoreUnavailableError,
    UnknownAdapterError,
)
from serving.events.event_store import Decision
from serving.http.app import create_app
from serving.schema import ArmReason, Degraded, Filters, HistorySource, Match, RecommendRequest, ScoreType, Source
from tests.unit.serving.conftest import ADAPTER_IDS, Rig, find_decision


async def test_an_inline_history_is_read_oldest_first_and_grounded(rig: Rig) -> None:
    """soft writes "Zork"; among rows not seen, by letters' distance from Zork = {z,o,r,k}:

    Zork 0; Doom {d,o:2,m}: sqrt(z+o+r+k+d+m = 6); Pong {p,o,n,g}: sqrt(6); Portal, Tetris, Myst farther.
    The history (i8 and the title "doom") is excluded, so Zork is followed by Myst sqrt(8), then Portal
    {p,o,r,t,a,l}: z,k,p,t,a,l = sqrt(6) — nearer than Myst.
    """
    answer = await rig.service.recommender.recommend(RecommendRequest(history=["i8", " doom "], k=3), request_id="r")
    assert [(item.item_id, item.rank) for item in answer.items] == [("i7", 1), ("i5", 2), ("i4", 3)]
    assert [item.score for item in answer.items] == pytest.approx([0.0, -(6**0.5), -(8**0.5)])
    assert {item.source for item in answer.items} == {Source.GENERATED}
    assert {item.score_type for item in answer.items} == {ScoreType.NEGATIVE_L2_DISTANCE}
    groundings = [item.grounding for item in answer.items if item.grounding]
    assert [grounding.match for grounding in groundings] == [Match.EXACT, Match.NEAREST, Match.NEAREST]
    assert {grounding.generation for grounding in groundings} == {"Zork"}
    assert rig.engine.prompts == [(ADAPTER_IDS["soft"], rig.renderer.render(["Pong", "Doom"]).ids)]
    assert answer.adapter == ADAPTER_IDS["soft"]
    assert (answer.experiment.arm_assigned, answer.experiment.arm_served) == (None, None)
    assert answer.experiment.reason is ArmReason.NO_USER
    assert answer.history.source is HistorySource.INLINE
    assert answer.degraded == []
    assert answer.usage.prompt_tokens == len(rig.engine.prompts[0][1])
    assert answer.usage.completion_tokens == len("Zork") + 2  # the quote and the end


async def test_stored_history_comes_from_the_store_then_from_the_cache(rig: Rig) -> None:
    request = RecommendRequest(user_id="ann", k=2)
    first = await rig.service.recommender.recommend(request, request_id="r1")
    second = await rig.service.recommender.recommend(request, request_id="r2")
    assert (first.history.source, second.history.source) == (HistorySource.STORE, HistorySource.CACHE)
    assert first.items == second.items
    # max_history is 2: the oldest of ann's three is dropped, the order is that of time
    assert (first.history.used, first.history.dropped, first.history.unknown) == (2, 1, 0)
    assert rig.engine.prompts[0][1] == rig.renderer.render(["Doom", "Myst", "Portal"]).ids


async def test_an_unknown_user_gets_labelled_popularity_and_still_an_arm(rig: Rig) -> None:
    """Popularity: Portal 2; Doom and Myst 1 each, ties by row. Quake is not available."""
    answer = await rig.service.recommender.recommend(RecommendRequest(user_id="new", k=3), request_id="r")
    assert [(item.item_id, item.score) for item in answer.items] == [("i5", 2.0), ("i2", 1.0), ("i4", 1.0)]
    assert {item.source for item in answer.items} == {Source.POPULARITY}
    assert {item.score_type for item in answer.items} == {ScoreType.INTERACTION_COUNT}
    assert all(item.grounding is None for item in answer.items)
    assert answer.adapter is None
    assert answer.experiment.arm_assigned in {"sft", "soft"}
    assert answer.experiment.arm_served is None
    assert answer.experiment.reason is ArmReason.NO_HISTORY
    assert answer.degraded == [Degraded.NO_HISTORY]
    assert rig.engine.prompts == []


async def test_unknown_entries_are_counted_and_not_shown_to_the_model(rig: Rig) -> None:
    answer = await rig.service.recommender.recommend(RecommendRequest(history=["??", "i8", "Nope"]), request_id="r1")
    assert (answer.history.used, answer.history.dropped, answer.history.unknown) == (1, 0, 2)
    assert rig.engine.prompts[0][1] == rig.renderer.render(["Pong"]).ids
    nothing = await rig.service.recommender.recommend(RecommendRequest(history=["??"]), request_id="r2")
    assert nothing.degraded[0] is Degraded.UNKNOWN_HISTORY
    assert (nothing.history.used, nothing.history.unknown) == (0, 1)


async def test_a_title_that_no_prompt_can_hold_is_skipped_and_hides_nothing(rig: Rig) -> None:
    """Room for 4 letters: Portal (i5) and Tetris (i1) take 6, Doom and Pong 4. A skipped one still counts as seen."""
    rig.make_room(4)
    for number, history in enumerate((["i8", "i5"], ["i5", "i8", "i1"], ["i1", "i2", "i8"])):
        request = RecommendRequest(history=history, k=6)
        answer = await rig.service.recommender.recommend(request, request_id=f"r{number}")
        assert (answer.history.used, answer.history.dropped) == (1, len(history) - 1)
        assert answer.degraded == [Degraded.FEWER_THAN_K] * (len(answer.items) < 6)
        assert not {item.item_id for item in answer.items} & set(history)
    assert [ids for _, ids in rig.engine.prompts] == [rig.renderer.render(["Pong"]).ids] * 3


async def test_a_history_that_no_prompt_can_hold_is_answered_by_popularity(rig: Rig) -> None:
    """Nobody is asked to write from an empty prompt. Popularity without Portal (seen): Doom and Myst, 1 each."""
    rig.make_room(4)
    async with rig.admission.slot(), rig.admission.slot():  # all there are: the answer needs none
        for history in (["i5", "i1"], ["??", "i5"]):
            answer = await rig.service.recommender.recommend(
                RecommendRequest(history=history, k=2, explain=True), request_id=f"r {history[0]}"
            )
            assert [(item.item_id, item.score) for item in answer.items] == [("i2", 1.0), ("i4", 1.0)]
            assert {item.source for item in answer.items} == {Source.POPULARITY}
            assert answer.degraded == [Degraded.NO_HISTORY]
            assert (answer.adapter, answer.experiment.reason) == (None, ArmReason.NO_HISTORY)
            known = sum(entry != "??" for entry in history)
            assert (answer.history.used, answer.history.dropped) == (0, known)
            assert answer.history.unknown == len(history) - known
            assert answer.usage.prompt_tokens == 0
    assert rig.engine.prompts == []


async def test_items_of_one_title_follow_each_other_in_catalog_order(rig: Rig) -> None:
    rig.write("soft", "Tetris")
    answer = await rig.service.recommender.recommend(RecommendRequest(history=["i8"], k=2), request_id="r1")
    assert [(item.item_id, item.title) for item in answer.items] == [("i1", "Tetris"), ("i3", "TETRIS")]
    assert [item.rank for item in answer.items] == [1, 2]
    one = await rig.service.recommender.recommend(RecommendRequest(history=["i8"], k=1), request_id="r2")
    assert [item.item_id for item in one.items] == ["i1"]
    other = await rig.service.recommender.recommend(
        RecommendRequest(history=["i8"], k=1, exclude_item_ids=["i1", "no such item"]), request_id="r3"
    )
    assert [item.item_id for item in other.items] == ["i3"]


@pytest.mark.parametrize("entry", ["i1", "i3", "tetris"])
async def test_another_edition_of_a_seen_title_is_seen_too(rig: Rig, entry: str) -> None:
    rig.write("soft", "Tetris")
    every = RecommendRequest(history=[entry], k=8, filters=Filters(available_only=False))
    answer = await rig.service.recommender.recommend(every, request_id="r")
    assert {item.item_id for item in answer.items} == {"i2", "i4", "i5", "i6", "i7", "i8"}


async def test_exclude_seen_false_lets_the_history_return(rig: Rig) -> None:
    answer = await rig.service.recommender.recommend(
        RecommendRequest(history=["i7"], k=1, exclude_seen=False), request_id="r"
    )
    assert [item.item_id for item in answer.items] == ["i7"]


async def test_filters_keep_items_of_any_named_category_and_say_when_too_few_are_left(rig: Rig) -> None:
    request = RecommendRequest(history=["i8"], k=5, filters=Filters(category=["adventure", "action"]))
    answer = await rig.service.recommender.recommend(request, request_id="r1")
    assert {item.item_id for item in answer.items} == {"i2", "i4", "i5", "i7"}
    assert answer.degraded == [Degraded.FEWER_THAN_K]
    every = request.model_copy(update={"filters": Filters(category=["action"], available_only=False)})
    answer = await rig.service.recommender.recommend(every, request_id="r2")
    assert {item.item_id for item in answer.items} == {"i2", "i5", "i6"}
    none = request.model_copy(update={"filters": Filters(category=["nope"])})
    answer = await rig.service.recommender.recommend(none, request_id="r3")
    assert answer.items == []
    assert answer.degraded == [Degraded.FEWER_THAN_K]


async def test_an_empty_generation_falls_back_by_name(rig: Rig) -> None:
    rig.write("soft", "")
    answer = await rig.service.recommender.recommend(RecommendRequest(history=["i8"], k=1), request_id="r")
    assert [item.source for item in answer.items] == [Source.POPULARITY]
    assert answer.degraded == [Degraded.EMPTY_GENERATION]
    assert (answer.adapter, answer.experiment.reason) == (None, ArmReason.EMPTY_GENERATION)


async def test_a_user_keeps_its_arm_and_its_adapter(rig: Rig) -> None:
    arms = set()
    for number in range(3):
        answer = await rig.service.recommender.recommend(RecommendRequest(user_id="ann"), request_id=f"r{number}")
        arm = answer.experiment.arm_served
        assert arm is not None
        assert answer.experiment.arm_assigned == arm
        assert answer.experiment.reason is ArmReason.ASSIGNED
        assert answer.adapter == ADAPTER_IDS[arm]
        arms.add(arm)
    assert len(arms) == 1


async def test_a_requested_adapter_leaves_the_experiment(rig: Rig) -> None:
    for number, name in enumerate(("sft", ADAPTER_IDS["sft"])):
        request = RecommendRequest(user_id="ann", adapter=name, k=1)
        answer = await rig.service.recommender.recommend(request, request_id=f"r{number}")
        assert answer.adapter == ADAPTER_IDS["sft"]
        assert answer.experiment.arm_assigned is not None
        assert (answer.experiment.arm_served, answer.experiment.reason) == (None, ArmReason.ADAPTER_REQUESTED)
    with pytest.raises(UnknownAdapterError, match="sft@1111"):
        await rig.service.recommender.recommend(RecommendRequest(user_id="ann", adapter="nope"), request_id="r")


async def test_naming_an_adapter_needs_permission(rig: Rig) -> None:
    rig.service.arms._allow_override = False
    with pytest.raises(AdapterForbiddenError, match="ALLOW_ADAPTER_OVERRIDE"):
        await rig.service.recommender.recommend(RecommendRequest(user_id="ann", adapter="sft"), request_id="r")


async def test_the_decision_is_stored_before_the_answer_leaves(rig: Rig, tmp_path: Path) -> None:
    request = RecommendRequest(user_id="ann", k=2, explain=True)
    answer = await rig.service.recommender.recommend(request, request_id="r1")
    decision = find_decision(tmp_path / "events.db", "r1")
    assert decision is not None
    assert [item["item_id"] for item in decision["items"]] == [item.item_id for item in answer.items]
    assert decision["arm_served"] == answer.experiment.arm_served
    assert decision["adapter_id"] == answer.adapter
    assert tuple(decision["details"]["prompt_ids"]) == rig.engine.prompts[0][1]
    await rig.service.recommender.recommend(request, request_id="r2", record=False)
    assert find_decision(tmp_path / "events.db", "r2") is None


@pytest.mark.parametrize("failure", [StoreUnavailableError("the disk is full"), RuntimeError("a bug")])
async def test_a_decision_that_cannot_be_stored_does_not_cost_the_answer(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, failure: Exception
) -> None:
    """A caller who got 503 here asked again, up to four times, and each time the model wrote. Over HTTP: one call."""

    def fail(decision: Decision) -> None:
        raise failure

    monkeypatch.setattr(rig.store, "record_decision", fail)
    app = create_app(contextlib.nullcontext(rig.service))
    async with app.router.lifespan_context(app), AsyncClient(transport=httpx.ASGITransport(app)) as client:
        answer = await client.recommend(RecommendRequest(history=["i8"], k=1))
    assert [item.item_id for item in answer.items] == ["i7"]
    assert answer.degraded == [Degraded.DECISION_NOT_RECORDED]
    assert len(rig.engine.prompts) == 1


async def test_an_answer_does_not_wait_for_a_locked_store(
    rig: Rig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another process writes. What it takes longer than the answer waits, the decision is stored late or never."""
    monkeypatch.setattr(recommender, "_RECORD_TIMEOUT_S", 0.05)
    with contextlib.closing(sqlite3.connect(tmp_path / "events.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        answer = await rig.service.recommender.recommend(RecommendRequest(history=["i8"], k=1), request_id="r")
        other.rollback()
    assert [item.item_id for item in answer.items] == ["i7"]
    assert answer.degraded == [Degraded.DECISION_NOT_RECORDED]
    rig.store.writes.close()  # no call is left behind


async def test_past_the_deadline_generation_is_cancelled(rig: Rig, tmp_path: Path) -> None:
    rig.engine.gate.clear()
    with pytest.raises(DeadlineError, match="20 ms"):
        await rig.service.recommender.recommend(RecommendRequest(history=["i8"], timeout_ms=20), request_id="r")
    assert rig.engine.cancelled == len(rig.engine.prompts)  # 1, or 0 where 20 ms were over before
    assert find_decision(tmp_path / "events.db", "r") is None


async def test_a_full_queue_refuses_at_once(rig: Rig) -> None:
    """Two places and one to wait: of five at once, two are refused."""
    rig.engine.gate.clear()
    request = RecommendRequest(history=["i8"])
    tasks = {asyncio.create_task(rig.service.recommender.recommend(request, request_id=f"r{n}")) for n in range(5)}
    under_way = tasks
    while len(under_way) > 3:
        _, under_way = await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
    rig.engine.gate.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, OverloadedError)]
    assert len(refused) == 2
    assert refused[0].retry_after_s == 3
    assert (await rig.service.recommender.recommend(request, request_id="later")).items  # the places are free again
