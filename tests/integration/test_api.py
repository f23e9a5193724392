"""The API over real HTTP: uvicorn on a loopback port, a workspace, SQLite, Redis, FAISS, MiniLM; a fake engine."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import uvicorn
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from index.search.encoder import open_encoder
from serving.http.app import create_app
from serving.schema import MAX_HISTORY, RecommendResponse
from serving.service import Service, open_service
from serving.settings import ServingSettings
from tests.fake_engine import FakeEngine
from tests.tiny_shop import make_tiny_shop, tiny_catalog
from training.adapter import Adapter
from training.base_model import BaseModel

MAX_BODY = 2 << 20


class Server:
    """A running server; `engine` is its fake engine."""

    def __init__(self, root: Path) -> None:
        workspace = make_tiny_shop(root, open_encoder("minilm"))
        self.engine = FakeEngine({})

        async def open_fake(base: BaseModel, adapters: Sequence[Adapter], _: ServingSettings) -> FakeEngine:
            renderer = base.renderer(adapters[0].facts.template)
            titles = {"sft": "Portal", "soft": "Zork"}
            for adapter in adapters:
                ids = renderer.completion_ids(titles[adapter.name])
                self.engine.writers[adapter.adapter_id] = lambda prompt, ids=ids: ids
            return self.engine

        @asynccontextmanager
        async def service() -> AsyncIterator[Service]:
            async with open_service(workspace, ServingSettings(timeout_ms=2000), open_engine=open_fake) as opened:
                yield opened

        app = create_app(service(), max_body_bytes=MAX_BODY)
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}"
        self._server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="on"))
        self._thread = threading.Thread(target=self._server.run, kwargs={"sockets": [self._socket]})

    def start(self) -> None:
        self._thread.start()
        while not self._server.started and self._thread.is_alive():
            threading.Event().wait(0.02)
        assert self._server.started

    def stop(self) -> None:
        self._server.should_exit = True
        self._thread.join(20)
        self._socket.close()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("shop") / "shop")
    running.start()
    yield running
    running.stop()
    assert running.engine.closed


@pytest.fixture
def http(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=20) as client:
        yield client


def assert_problem(response: httpx.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    body: dict[str, Any] = response.json()
    assert (body["status"], body["code"], body["type"]) == (status, code, "about:blank")
    assert body["request_id"] == response.headers["x-request-id"]
    assert set(body) == {"type", "title", "status", "detail", "code", "retryable", "request_id", "errors"}
    return body


def nearest_to(title: str) -> float:
    """How far the nearest other title of the shop lies."""
    titles = list(tiny_catalog().titles)
    vectors = open_encoder("minilm").encode(titles)
    distances = np.linalg.norm(vectors - vectors[titles.index(title)], axis=1)
    return float(np.sort(distances)[1])


def test_recommend_answers_in_one_shape_whoever_asks(http: httpx.Client) -> None:
    bodies = ({"user_id": "ann"}, {"user_id": "stranger"}, {"history": ["Doom"]}, {"history": []})
    answers = [http.post("/recommend", json={**body, "k": 3}).raise_for_status().json() for body in bodies]
    known, stranger, inline, empty = answers
    assert {tuple(answer) for answer in answers} == {tuple(RecommendResponse.model_fields)}
    assert known["items"][0]["source"] == "generated"
    assert known["experiment"]["arm_served"] in {"sft", "soft"}
    assert stranger["degraded"] == empty["degraded"] == ["no_history"]
    assert inline["items"][0]["item_id"] == "i7"  # soft, the default, writes Zork
    assert inline["items"][0]["grounding"] == {
        "generation": "Zork",
        "match": "exact",
        "distance": 0.0,
        "margin": pytest.approx(nearest_to("Zork"), rel=1e-4),
        "log_prob": -6.0,  # four letters, the quote and the end, a nat each
        "ambiguity": 1,
    }
    assert inline["adapter"].startswith("soft@")


def test_an_interaction_enters_the_history_at_once_and_only_once(http: httpx.Client) -> None:
    event = {"event_id": "e1", "user_id": "eve", "item_id": "i8", "type": "purchase", "timestamp": 100}
    click = {"event_id": "e2", "user_id": "eve", "item_id": "i2", "type": "click"}
    unknown = {"event_id": "e3", "user_id": "eve", "item_id": "nope", "type": "purchase"}
    assert http.post("/recommend", json={"user_id": "eve", "k": 3}).json()["degraded"] == ["no_history"]
    first = http.post("/events", json={"events": [event, click, unknown, event]}).raise_for_status().json()
    assert (first["accepted"], first["duplicates"], first["degraded"]) == (2, 1, [])
    assert [(bad["position"], bad["code"]) for bad in first["rejected"]] == [(2, "unknown_item")]
    again = http.post("/events", json={"events": [event, click]}).json()
    assert (again["accepted"], again["duplicates"]) == (0, 2)
    answer = http.post("/recommend", json={"user_id": "eve", "k": 3}).json()
    assert answer["history"] == {"source": "store", "used": 1, "dropped": 0, "unknown": 0}
    assert "i8" not in [item["item_id"] for item in answer["items"]]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "body"),
        ({"user_id": ""}, "body.user_id"),
        ({"user_id": "a\nb"}, "body.user_id"),
        ({"user_id": "x" * 257}, "body.user_id"),
        ({"user_id": 7}, "body.user_id"),
        ({"user_id": "a", "k": 0}, "body.k"),
        ({"user_id": "a", "k": 101}, "body.k"),
        ({"user_id": "a", "k": "10"}, "body.k"),
        ({"user_id": "a", "timeout_ms": 0}, "body.timeout_ms"),
        ({"user_id": "a", "unknown_field": 1}, "body.unknown_field"),
        ({"history": ["x"] * (MAX_HISTORY + 1)}, "body.history"),
        ({"history": ["ok", "t" * 1001]}, "body.history.1"),
        ({"history": ["ok", None]}, "body.history.1"),
        ({"user_id": "a", "filters": {"category": []}}, "body.filters.category"),
        ({"user_id": "a", "filters": {"category": ["ok", 3]}}, "body.filters.category.1"),
        ({"user_id": "a", "exclude_item_ids": ["\u0000"]}, "body.exclude_item_ids.0"),
    ],
)
def test_nonsense_gets_422_with_the_fields_path(http: httpx.Client, body: Any, path: str) -> None:
    problem = assert_problem(http.post("/recommend", json=body), 422, "invalid_request")
    assert path in [error["path"] for error in problem["errors"]]
    assert problem["retryable"] is False


def test_every_error_is_a_problem(http: httpx.Client) -> None:
    assert_problem(http.get("/nowhere"), 404, "not_found")
    response = http.get("/recommend")
    assert_problem(response, 405, "method_not_allowed")
    assert response.headers["allow"] == "POST"
    for content in (b"{", b'{"user_id": NaN}', b"\xff\xfe", b'{"user_id": "\\ud800"}', b"[" * 20_000, b""):
        response = http.post("/recommend", content=content, headers={"content-type": "application/json"})
        assert response.status_code in {400, 422}
        assert_problem(response, response.status_code, response.json()["code"])
    assert_problem(http.post("/recommend", content=b'{"user_id": "a"}'), 415, "unsupported_media_type")
    problem = assert_problem(http.post("/recommend", json={"user_id": "a", "adapter": "sft"}), 403, "adapter_forbidden")
    assert problem["errors"][0]["path"] == "body.adapter"


def test_a_body_too_large_gets_413_whether_or_not_it_says_so(http: httpx.Client) -> None:
    large = json.dumps({"history": ["x" * MAX_BODY]}).encode()
    assert_problem(http.post("/recommend", content=large), 413, "body_too_large")
    assert_problem(http.post("/recommend", content=iter([large[:MAX_BODY], large[MAX_BODY:]])), 413, "body_too_large")
    assert http.get("/livez").json() == {"status": "live"}


def test_a_late_answer_is_504_and_a_dead_engine_503(http: httpx.Client, server: Server) -> None:
    server.engine.gate.clear()
    problem = assert_problem(
        http.post("/recommend", json={"history": ["Doom"], "timeout_ms": 50}), 504, "deadline_exceeded"
    )
    assert problem["retryable"] is True
    server.engine.gate.set()
    assert http.get("/readyz").raise_for_status().json()["degraded"] == []
    server.engine.dead = True
    response = http.post("/recommend", json={"history": ["Doom"]})
    assert_problem(response, 503, "engine_unavailable")
    assert response.headers["retry-after"] == "1"
    assert_problem(http.get("/readyz"), 503, "not_ready")
    assert http.get("/livez").status_code == 200
    assert http.post("/recommend", json={"user_id": "stranger"}).status_code == 200  # popularity needs no engine
    server.engine.dead = False
    ready = http.get("/readyz").raise_for_status().json()
    assert [name.partition("@")[0] for name in ready["adapters"]] == ["sft", "soft"]
    assert ready["experiment"] == "sft-vs-soft"


def test_a_bug_is_a_500_problem_without_its_traceback(http: httpx.Client, server: Server) -> None:
    soft = next(adapter_id for adapter_id in server.engine.writers if adapter_id.startswith("soft"))
    writer = server.engine.writers[soft]

    def fail(prompt: Sequence[int]) -> Sequence[int]:
        raise RuntimeError("secret detail")

    server.engine.writers[soft] = fail
    response = http.post("/recommend", json={"history": ["Doom"]})
    server.engine.writers[soft] = writer
    assert_problem(response, 500, "internal_error")
    assert "secret" not in response.text


async def test_a_caller_who_hangs_up_stops_its_generation(server: Server) -> None:
    """The engine's loop runs in another thread, so what it does is polled; pytest's timeout ends a wait in vain."""
    server.engine.gate.clear()
    server.engine.waiting.clear()
    before = server.engine.cancelled
    async with httpx.AsyncClient(base_url=server.url) as client:
        task = asyncio.create_task(client.post("/recommend", json={"history": ["Doom"], "timeout_ms": 600_000}))
        while not server.engine.waiting.is_set():
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
    while server.engine.cancelled == before:
        await asyncio.sleep(0.01)
    server.engine.gate.set()
    assert server.engine.cancelled == before + 1


def test_items_are_not_changed_unless_the_server_allows_it(http: httpx.Client) -> None:
    assert_problem(http.put("/items/i1", json={"title": "Tetris 2"}), 403, "item_changes_forbidden")
    assert_problem(http.delete("/items/i1"), 403, "item_changes_forbidden")
    assert_problem(http.put("/items/i1", json={"name": "Tetris 2"}), 422, "invalid_request")


def test_openapi_describes_routes_labels_and_problems(http: httpx.Client) -> None:
    document = http.get("/openapi.json").raise_for_status().json()
    assert set(document["paths"]) == {"/recommend", "/events", "/items/{item_id}", "/livez", "/readyz"}
    schemas = document["components"]["schemas"]
    assert "history_cache_unavailable" in schemas["Degraded"]["enum"]
    assert "HTTPValidationError" not in schemas
    for status in ("422", "503", "504"):
        content = document["paths"]["/recommend"]["post"]["responses"][status]["content"]
        assert content == {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}}
    assert_problem(http.get("/docs"), 404, "not_found")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(max_size=8), children, max_size=4),
    max_leaves=12,
)
recommend_fields = st.sampled_from(
    ["user_id", "history", "k", "exclude_seen", "exclude_item_ids", "filters", "adapter", "timeout_ms", "explain"]
)
plausible = st.fixed_dictionaries(
    {"k": st.integers(1, 100)},
    optional={
        "user_id": st.text(min_size=1, max_size=12) | st.sampled_from(["ann", "bob"]),
        "history": st.lists(st.text(min_size=1, max_size=12) | st.sampled_from(["i1", "Doom", "ZORK "]), max_size=6),
        "exclude_seen": st.booleans(),
        "exclude_item_ids": st.lists(st.text(min_size=1, max_size=5), max_size=3),
        "filters": st.fixed_dictionaries({}, optional={"category": st.lists(st.text(max_size=5), max_size=2)}),
        "explain": st.booleans(),
    },
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(body=json_values | st.dictionaries(recommend_fields, json_values, max_size=9) | plausible)
def test_no_json_gives_a_500(http: httpx.Client, body: Any) -> None:
    content = json.dumps(body).encode("utf-8")
    response = http.post("/recommend", content=content, headers={"content-type": "application/json"})
    assert response.status_code in {200, 400, 403, 422}, (body, response.text)
    if response.status_code == 200:
        answer = RecommendResponse.model_validate_json(response.content)
        assert [item.rank for item in answer.items] == list(range(1, len(answer.items) + 1))
        assert len(answer.items) <= body.get("k", 10)
        scores = [item.score for item in answer.items]
        assert scores == sorted(scores, reverse=True)
