"""`run_server`, `Client`, `softrec recommend` and `softrec score` on a whole tiny shop; only the engine is a fake."""

import asyncio
import contextlib
import gc
import json
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import httpx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.commands.recommend import recommend_online
from clients.commands.score import score_users
from clients.errors import ForbiddenError, InvalidRequestError, RefusedError, UnreachableError
from clients.http.client import AsyncClient, Client
from clients.http.server import reserve_address, run_server
from index.search.encoder import open_encoder
from index.workspace import Workspace
from serving.schema import Event, EventsRequest, EventType, RecommendRequest
from serving.settings import ServingSettings
from tests.fake_engine import FakeEngine
from tests.tiny_shop import make_tiny_shop
from training.adapter import Adapter
from training.base_model import BaseModel

TITLES = {"sft": "Portal", "soft": "Zork"}


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    return make_tiny_shop(tmp_path_factory.mktemp("tiny") / "shop", open_encoder("minilm"))


class Engines:
    """Opens fake engines and keeps them."""

    def __init__(self) -> None:
        self.opened: list[FakeEngine] = []

    async def __call__(self, base: BaseModel, adapters: Sequence[Adapter], settings: ServingSettings) -> FakeEngine:
        renderer = base.renderer(adapters[0].facts.template)
        written = {adapter.adapter_id: renderer.completion_ids(TITLES[adapter.name]) for adapter in adapters}
        writers = {adapter_id: lambda prompt, ids=ids: ids for adapter_id, ids in written.items()}
        self.opened.append(FakeEngine(writers))
        return self.opened[-1]


def serve(shop: Workspace, on_ready: Callable[[str], Awaitable[bool]], engines: Engines | None = None) -> list[str]:
    """Run the server until `on_ready` or a signal ends it; return its notes. Nothing may be left open."""
    notes: list[str] = []
    engines = engines or Engines()
    reserved = reserve_address("127.0.0.1", 0)
    run_server(shop, ServingSettings(), reserved, on_ready=on_ready, note=notes.append, open_engine=engines)
    assert [engine.closed for engine in engines.opened] == [True]
    return notes


def test_a_server_answers_our_client_and_closes_when_told(shop: Workspace) -> None:
    addresses = []

    async def ask(url: str) -> bool:
        addresses.append(url)
        assert gc.get_freeze_count() > 0
        async with AsyncClient(url) as client:
            assert (await client.live()).status == "live"
            ready = await client.ready()
            assert [adapter_id.split("@")[0] for adapter_id in ready.adapters] == ["sft", "soft"]
            answer = await client.recommend(RecommendRequest(user_id="ann", k=3))
            assert answer.items[0].title == TITLES[answer.experiment.arm_served or ""]
            event = Event(event_id="e1", user_id="new", item_id="i1", type=EventType.INTERACTION)
            reports = [await client.events(EventsRequest(events=[event])) for _ in range(2)]
            assert [(report.accepted, report.duplicates) for report in reports] == [(1, 0), (0, 1)]
            with pytest.raises(ForbiddenError):
                await client.recommend(RecommendRequest(user_id="ann", adapter="soft"))
            wrong = RecommendRequest.model_construct(_fields_set={"user_id", "k"}, user_id="ann", k=0)
            with pytest.raises(InvalidRequestError, match=r"body\.k"):
                await client.recommend(wrong)
        return False

    notes = serve(shop, ask)
    assert any("soft@" in note and "proven" in note for note in notes)
    with Client(addresses[0]) as client, pytest.raises(UnreachableError):
        client.live()


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_a_request_in_work_finish_and_closes_the_rest(shop: Workspace, name: signal.Signals) -> None:
    answers: list[httpx.Response] = []
    background: list[asyncio.Task[None]] = []
    engines = Engines()

    async def start_and_signal(url: str) -> bool:
        async def request() -> None:
            async with httpx.AsyncClient() as http:
                answers.append(await http.post(f"{url}/recommend", json={"user_id": "ann"}))

        async def finish_once_it_closes() -> None:
            with contextlib.suppress(httpx.TransportError):
                while True:
                    async with httpx.AsyncClient() as http:
                        await http.get(f"{url}/livez")
            engine.gate.set()

        [engine] = engines.opened
        engine.gate.clear()
        background.append(asyncio.create_task(request()))
        await engine.waiting.wait()
        os.kill(os.getpid(), name)
        background.append(asyncio.create_task(finish_once_it_closes()))
        return True

    serve(shop, start_and_signal, engines)
    assert [answer.status_code for answer in answers] == [200]


def test_a_signal_while_the_engine_starts_ends_it_too(shop: Workspace) -> None:
    async def never(base: BaseModel, adapters: Sequence[Adapter], settings: ServingSettings) -> FakeEngine:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.sleep(60)
        raise AssertionError("the signal should have ended this")

    async def unreached(url: str) -> bool:
        raise AssertionError("there is no engine")

    reserved = reserve_address("127.0.0.1", 0)
    run_server(shop, ServingSettings(), reserved, on_ready=unreached, note=lambda text: None, open_engine=never)


def test_a_taken_address_is_refused_before_anything_is_opened() -> None:
    with reserve_address("127.0.0.1", 0) as reserved:
        reserved.listen()
        with pytest.raises(RefusedError, match="--port"):
            reserve_address("127.0.0.1", reserved.getsockname()[1])
    with pytest.raises(RefusedError):
        reserve_address("no.such.host.invalid", 8000)


def test_recommend_prints_the_answer_and_how_it_came_about(
    shop: Workspace, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "answer.json"

    async def ask(url: str) -> bool:
        await asyncio.to_thread(recommend_online, url, user_id=None, history=["Doom", "i4"], k=2, json_path=path)
        return False

    serve(shop, ask)
    shown = capsys.readouterr().out
    for text in (
        "Zork",
        "the model wrote: Zork (exact)",
        "adapter: soft@",
        "no_user",
        "history (inline): 2 used",
        "ms (",
    ):
        assert text in shown
    content = json.loads(path.read_text())
    assert [item["rank"] for item in content["items"]] == [1, 2]


def test_score_gives_what_the_server_would_answer_and_records_nothing(shop: Workspace, tmp_path: Path) -> None:
    users, output = tmp_path / "users.parquet", tmp_path / "recs.parquet"
    history = pa.array([None, ["i4"], None], pa.list_(pa.string()))
    pq.write_table(pa.table({"user_id": ["ann", "bob", "nobody"], "history": history}), users)
    report = score_users(
        shop.root, users, output, adapter="soft", k=2, concurrency=2, restart=False, open_engine=Engines()
    )
    assert (report.scored, report.rejected) == (3, 0)
    rows = pq.read_table(output).to_pylist()
    assert [(row["user_id"], row["rank"]) for row in rows] == [
        (user_id, rank) for user_id in ("ann", "bob", "nobody") for rank in (1, 2)
    ]
    first = {row["user_id"]: row for row in rows if row["rank"] == 1}
    assert first["ann"]["title"] == first["bob"]["title"] == "Zork"
    assert first["ann"]["distance"] == pytest.approx(0.0, abs=1e-5)
    assert first["ann"]["adapter_id"].startswith("soft@")
    assert (first["nobody"]["source"], first["nobody"]["adapter_id"]) == ("popularity", None)
