"""The catalog changed over HTTP while it recommends."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest

from index.catalog.catalog import Catalog, write_catalog
from index.catalog.changes import Change
from index.live.live import LiveIndex
from index.live.versions import build_index
from index.ranking.ranking_spec import RankingSpec
from index.workspace import Workspace
from serving.http.app import create_app
from serving.schema import Degraded, Event, EventsRequest, EventType, ItemBody, ItemResponse, RecommendRequest
from serving.snapshots import snapshots
from serving.snapshots.item_editor import ItemEditor
from tests.tiny_shop import ITEMS
from tests.unit.serving.conftest import LetterEncoder, Rig
from training.adapter import Decoding


@pytest.fixture
async def http(rig: Rig) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(contextlib.nullcontext(rig.service))
    transport = httpx.ASGITransport(app)
    async with app.router.lifespan_context(app), httpx.AsyncClient(transport=transport, base_url="http://test") as made:
        yield made


async def recommended(http: httpx.AsyncClient, **request: Any) -> dict[str, Any]:
    answer = await http.post("/recommend", json={"history": ["i8"], "k": 8} | request)
    assert answer.status_code == 200, answer.text
    body: dict[str, Any] = answer.json()
    return body


def ids(answer: dict[str, Any]) -> list[str]:
    return [item["item_id"] for item in answer["items"]]


async def test_the_next_answer_knows_what_was_changed(http: httpx.AsyncClient, rig: Rig) -> None:
    rig.write("soft", "Zelda")
    before = await recommended(http)
    assert before["items"][0]["grounding"]["match"] == "nearest"
    assert "+" not in before["index"]["version"]

    put = await http.put("/items/shelf 3/z", json={"title": " Zelda\n", "category": "action|new"})
    assert put.status_code == 200, put.text
    assert put.json() == ItemResponse.model_validate(put.json()).model_dump(mode="json")
    assert (put.json()["title"], put.json()["state"], put.json()["row"]) == ("Zelda", "added", 7)
    assert put.json()["index"]["version"] == before["index"]["version"] + "+1"
    after = await recommended(http)
    assert (after["items"][0]["item_id"], after["items"][0]["grounding"]["match"]) == ("shelf 3/z", "exact")
    assert after["index"] == put.json()["index"]
    assert ids(await recommended(http, filters={"category": ["new"]})) == ["shelf 3/z"]

    hidden = await http.patch("/items/shelf 3/z", json={"available": False})
    assert (hidden.json()["state"], hidden.json()["available"]) == ("changed", False)
    assert "shelf 3/z" not in ids(await recommended(http))
    assert "shelf 3/z" in ids(await recommended(http, filters={"available_only": False}))

    removed = await http.delete("/items/shelf 3/z")
    assert removed.json()["state"] == "removed"
    assert "shelf 3/z" not in ids(await recommended(http, filters={"available_only": False}))
    assert (await http.delete("/items/shelf 3/z")).json()["code"] == "unknown_item"


async def test_what_was_added_can_be_written_and_what_was_removed_cannot(http: httpx.AsyncClient, rig: Rig) -> None:
    """Decoding inside the catalog: what the model would write most of all is a title only while it is on offer."""
    rig.decode(Decoding("constrained_beam", 42, 4), RankingSpec("likelihood"))
    rig.write("soft", "Zelda")
    assert "Zelda" not in [item["title"] for item in (await recommended(http, k=4))["items"]]
    for number in range(2):  # added, removed and added again: the row is the same
        await http.put("/items/j1", json={"title": "Zelda"})
        first = (await recommended(http, k=4))["items"][0]
        assert (first["item_id"], first["grounding"]["match"]) == ("j1", "constrained")
        assert len((await recommended(http, k=7))["items"]) == 7
        await http.delete("/items/j1")
        assert "j1" not in ids(await recommended(http, k=7))
        await http.put(f"/items/other {number}", json={"title": f"Other {number}"})
    rig.live.merge()
    await http.put("/items/j1", json={"title": "Zelda"})
    assert (await recommended(http, k=1))["items"][0]["item_id"] == "j1"


async def test_what_is_said_already_writes_nothing(http: httpx.AsyncClient, rig: Rig) -> None:
    same = await http.put("/items/i1", json={"title": "Tetris", "category": "puzzle"})
    assert (same.json()["state"], "+" in same.json()["index"]["version"]) == ("unchanged", False)


async def test_titles_that_are_hard_to_tell_apart_are_named(http: httpx.AsyncClient) -> None:
    """The encoder counts letters: an anagram lies at distance 0."""
    shared = await http.put("/items/j1", json={"title": "doom"})
    assert shared.json()["warnings"] == [{"code": "shared_title", "reason": "items with this title, too: i2"}]
    near = await http.put("/items/j2", json={"title": "Mood"})
    assert near.json()["warnings"] == [{"code": "near_title", "reason": "'Doom' lies at distance 0.000"}]


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "code"),
    [
        ("PUT", "/items/j1", {}, 422, "invalid_request"),
        ("PUT", "/items/j1", {"title": "x", "price": 1}, 422, "invalid_request"),
        ("PUT", "/items/j1", {"title": "x" * 1001}, 422, "invalid_request"),
        ("PUT", "/items/j1", {"title": " \u0000 "}, 422, "invalid_item"),
        ("PUT", "/items/" + "j" * 257, {"title": "x"}, 422, "invalid_request"),
        ("PUT", "/items/", {"title": "x"}, 422, "invalid_request"),
        ("PUT", "/items/j%0A1", {"title": "x"}, 404, "not_found"),
        ("PATCH", "/items/i1", {}, 422, "invalid_request"),
        ("PATCH", "/items/j1", {"title": "x"}, 404, "unknown_item"),
        ("DELETE", "/items/j1", None, 404, "unknown_item"),
        ("DELETE", "/items/" + "j" * 257, None, 422, "invalid_request"),
        ("GET", "/items/i1", None, 405, "method_not_allowed"),
    ],
)
async def test_a_bad_change_is_a_problem_and_changes_nothing(
    http: httpx.AsyncClient, rig: Rig, method: str, path: str, body: Any, status: int, code: str
) -> None:
    before = rig.live.snapshot
    answer = await http.request(method, path, json=body) if body is not None else await http.request(method, path)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert rig.live.snapshot is before


async def test_a_fault_of_ours_is_not_the_callers(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """An encoder that returns another shape raises ValueError too."""

    def encode(titles: object) -> None:
        raise ValueError("could not broadcast input array from shape (1,3) into shape (1,26)")

    monkeypatch.setattr(rig.live.snapshot.grounder.encoder, "encode", encode)
    with pytest.raises(ValueError, match="could not broadcast"):
        await rig.service.items.put("j1", ItemBody(title="A new title"))


async def test_changes_need_permission(rig: Rig, http: httpx.AsyncClient) -> None:
    closed = ItemEditor(rig.live, rig.service.snapshots, allowed=False)
    object.__setattr__(rig.service, "items", closed)
    for answer in (
        await http.put("/items/j1", json={"title": "x"}),
        await http.patch("/items/i1", json={"available": False}),
        await http.delete("/items/i1"),
    ):
        assert (answer.status_code, answer.json()["code"]) == (403, "item_changes_forbidden")
        assert "SOFTREC_ALLOW_ITEM_CHANGES" in answer.json()["detail"]


async def test_only_an_unreadable_change_is_the_callers_fault(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ValueError from inside the index is a bug of ours: a 500 with its traceback in the log, no 422."""

    def fail(change: Change) -> None:
        raise ValueError("a bug")

    monkeypatch.setattr(rig.live, "apply", fail)
    with pytest.raises(ValueError, match="a bug"):
        await rig.service.items.remove("i1")


async def test_a_request_is_answered_from_one_view(rig: Rig) -> None:
    """Zork goes while the model writes it: the answer that is under way still shows it, the next does not."""
    rig.engine.gate.clear()
    request = RecommendRequest(history=["i8"], k=1)
    under_way = asyncio.create_task(rig.service.recommender.recommend(request, request_id="r1"))
    await rig.engine.waiting.wait()
    await rig.service.items.remove("i7")
    rig.engine.gate.set()
    first, second = await under_way, await rig.service.recommender.recommend(request, request_id="r2")
    assert [item.item_id for item in first.items] == ["i7"]
    assert "i7" not in [item.item_id for item in second.items]
    assert second.index.version == first.index.version + "+1"


async def test_a_removed_item_stays_in_histories_and_may_be_reported(rig: Rig) -> None:
    await rig.service.items.remove("i8")
    answer = await rig.service.recommender.recommend(RecommendRequest(history=["i8"], k=1), request_id="r")
    assert (answer.history.used, answer.history.unknown) == (1, 0)
    event = Event(event_id="e1", user_id="ann", item_id="i8", type=EventType.PURCHASE)
    assert (await rig.service.events.add(EventsRequest(events=[event]))).accepted == 1


async def test_popularity_goes_on_over_added_and_removed_items(rig: Rig, http: httpx.AsyncClient) -> None:
    """Portal 2; Doom and Myst 1 each; the rest 0, by row, and the added title last."""
    await rig.service.items.remove("i5")
    await http.put("/items/j1", json={"title": "Added"})
    answer = await http.post("/recommend", json={"history": [], "k": 9})
    assert ids(answer.json()) == ["i2", "i4", "i1", "i3", "i7", "i8", "j1"]


def _other_process(rig: Rig) -> tuple[Workspace, LiveIndex]:
    workspace = rig.live._workspace
    return workspace, LiveIndex(workspace, LetterEncoder(), merge_at=0)


async def test_changes_of_another_process_are_in_the_next_answer(rig: Rig, http: httpx.AsyncClient) -> None:
    _, other = _other_process(rig)
    other.apply(Change("remove", "i7"))
    answer = await recommended(http)
    assert "i7" not in ids(answer)
    assert answer["index"]["version"].endswith("+1")
    merged = other.merge()
    await recommended(http)  # the version is loaded in the background
    rig.live._background._pool.submit(lambda: None).result()
    assert (await recommended(http))["index"]["version"] == f"{merged}+1"
    other.close()


async def test_a_replaced_catalog_is_named_and_nothing_is_built_upon_it(rig: Rig, http: httpx.AsyncClient) -> None:
    """Answers go on from the catalog that the adapters were trained on, and say so."""
    workspace, other = _other_process(rig)
    other.close()
    write_catalog(workspace.catalog_path, Catalog.from_items(ITEMS[:3]))
    build_index(workspace.index_dir, Catalog.from_items(ITEMS[:3]), LetterEncoder(), rig.live.snapshot.popularity[:2])
    for _ in range(2):
        answer = await recommended(http, k=1)
        assert ids(answer) == ["i7"]
        assert answer["degraded"] == [Degraded.INDEX_OUTDATED]
    assert (await http.get("/readyz")).json()["degraded"] == ["index_outdated"]
    refused = await http.delete("/items/i1")
    assert (refused.status_code, refused.json()["code"]) == (409, "catalog_conflict")


async def test_a_change_that_answers_cannot_show_yet_says_so(
    rig: Rig, http: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(snapshots.TitleTries, "grown", fail)
        answer = (await http.put("/items/n1", json={"title": "Riven"})).json()
        assert answer["state"] == "added"
        [warning] = answer["warnings"]
        assert warning["code"] == "index_outdated"
        assert "No space left on device" in warning["reason"]
        assert (await recommended(http, k=1))["degraded"] == [Degraded.INDEX_OUTDATED]
        assert (await http.get("/readyz")).json()["degraded"] == ["index_outdated"]
    await rig.service.snapshots.catch_up()
    assert (await recommended(http, k=1))["degraded"] == []


async def test_a_slow_renewal_keeps_nobody_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The last snapshot answers until the new one is there."""
    monkeypatch.setattr(snapshots, "_PATIENCE_S", 0.0)
    _, other = _other_process(rig)
    other.apply(Change("remove", "i7"))
    other.close()
    with rig.live._lock:  # somebody is making a snapshot
        assert (await rig.service.snapshots.current()).position.changes == 0
    while (await rig.service.snapshots.current()).position.changes == 0:
        await asyncio.sleep(0.001)
