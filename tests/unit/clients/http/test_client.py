"""Both clients against scripted answers. Every test runs once per client: the async one is driven by asyncio.run."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from clients.errors import (
    ConflictError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    ProblemError,
    QuotaExceededError,
    ServerFailedError,
    UnavailableError,
    UnreachableError,
    UnreadableAnswerError,
)
from clients.http.client import AsyncClient, Client
from clients.http.retry import RetryPolicy
from serving.schema import Event, EventsRequest, EventType, ItemBody, ItemPatch, RecommendRequest

ANSWER = {
    "request_id": "r1",
    "items": [
        {
            "item_id": "i002",
            "title": "The Salt Road, Book 2",
            "rank": 1,
            "score": -0.0,
            "score_type": "negative_l2_distance",
            "source": "generated",
            "grounding": {
                "generation": "The Salt Road, Book 2",
                "match": "exact",
                "distance": 0.0,
                "margin": 0.4,
                "log_prob": -1.5,
                "ambiguity": 1,
            },
        }
    ],
    "adapter": "soft@0123456789ab",
    "experiment": {"id": "e", "arm_assigned": "soft", "arm_served": "soft", "reason": "assigned"},
    "index": {"version": "1", "encoder": "minilm"},
    "history": {"source": "inline", "used": 1, "dropped": 0, "unknown": 0},
    "degraded": [],
    "usage": {"prompt_tokens": 20, "completion_tokens": 8},
    "timings_ms": dict.fromkeys(("history", "prompt", "queue", "generate", "ground", "record", "total"), 1.0),
    "a_field_of_a_newer_server": True,
}
READY = {"adapters": ["soft@0123456789ab"], "experiment": "e", "index": ANSWER["index"], "degraded": []}

Script = list[httpx.Response | Exception]
Run = Callable[[str, Any, Script], Any]
FAST = RetryPolicy(attempts=3, first_delay_s=0.001, max_delay_s=0.01)


def problem(status: int, code: str, headers: dict[str, str] | None = None, **more: Any) -> httpx.Response:
    body = {"title": code, "status": status, "detail": "why", "code": code, "retryable": status in (429, 503)}
    content = json.dumps(body | {"request_id": "r1"} | more)
    return httpx.Response(
        status, content=content, headers={"content-type": "application/problem+json"} | (headers or {})
    )


class Scripted:
    """Answers in order, and keeps what was sent."""

    def __init__(self, script: Script) -> None:
        self.script = list(script)
        self.sent: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.sent.append(request)
        step = self.script.pop(0)
        if isinstance(step, Exception):
            raise step
        return step


@pytest.fixture(params=["Client", "AsyncClient"])
def ask(request: pytest.FixtureRequest) -> Callable[..., tuple[Any, Scripted]]:
    """Call a method of the client at hand; returns its answer (or the error that it raised) and what was sent."""

    def run(method: str, body: Any, script: Script, retry: RetryPolicy = FAST) -> tuple[Any, Scripted]:
        server = Scripted(script)
        transport = httpx.MockTransport(server)
        arguments = () if body is None else body if isinstance(body, tuple) else (body,)

        async def run_async() -> Any:
            async with AsyncClient("http://shop.test", transport=transport, retry=retry) as client:
                return await getattr(client, method)(*arguments)

        try:
            if request.param == "AsyncClient":
                return asyncio.run(run_async()), server
            with Client("http://shop.test", transport=transport, retry=retry) as client:
                return getattr(client, method)(*arguments), server
        except Exception as error:
            return error, server

    return run


def test_a_recommendation_goes_out_with_only_the_fields_set_and_comes_back_typed(ask: Any) -> None:
    request = RecommendRequest(user_id="42", k=5)
    answer, server = ask("recommend", request, [httpx.Response(200, json=ANSWER)])
    assert answer.items[0].grounding.match == "exact"
    (sent,) = server.sent
    assert (sent.method, str(sent.url)) == ("POST", "http://shop.test/recommend")
    assert json.loads(sent.content) == {"user_id": "42", "k": 5}


def test_events_carry_their_ids_so_a_broken_connection_is_retried(ask: Any) -> None:
    event = Event(event_id="e1", user_id="42", item_id="i002", type=EventType.PURCHASE)
    taken = {"accepted": 1, "duplicates": 0, "rejected": [], "degraded": []}
    script: Script = [httpx.ConnectError("refused"), httpx.RemoteProtocolError("cut"), httpx.Response(200, json=taken)]
    answer, server = ask("events", EventsRequest(events=[event]), script)
    assert answer.accepted == 1
    assert len(server.sent) == 3
    assert len({sent.content for sent in server.sent}) == 1


@pytest.mark.parametrize("status", [429, 503])
def test_a_full_server_is_asked_again(ask: Any, status: int) -> None:
    script: Script = [problem(status, "busy", {"retry-after": "0"}), httpx.Response(200, json=ANSWER)]
    answer, server = ask("recommend", RecommendRequest(user_id="42"), script)
    assert answer.request_id == "r1"
    assert len(server.sent) == 2


def test_attempts_end_and_the_last_problem_is_raised(ask: Any) -> None:
    error, server = ask("recommend", RecommendRequest(user_id="42"), [problem(503, "overloaded")] * 5)
    assert isinstance(error, UnavailableError)
    assert error.problem.code == "overloaded"
    assert len(server.sent) == FAST.attempts


def test_a_wait_longer_than_the_policy_allows_fails_at_once_and_names_it(ask: Any) -> None:
    error, server = ask("recommend", RecommendRequest(user_id="42"), [problem(429, "quota", {"retry-after": "60"})])
    assert isinstance(error, QuotaExceededError)
    assert error.retry_after_s == 60.0
    assert len(server.sent) == 1


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (422, InvalidRequestError),
        (404, NotFoundError),
        (409, ConflictError),
        (504, DeadlineError),
        (500, ServerFailedError),
        (418, ServerFailedError),
    ],
)
def test_other_problems_are_raised_at_once_by_kind(ask: Any, status: int, kind: type[ProblemError]) -> None:
    fields = [{"path": "body.k", "reason": "too large"}]
    error, server = ask("recommend", RecommendRequest(user_id="42"), [problem(status, "no", errors=fields)])
    assert type(error) is kind
    assert error.status == status
    assert "body.k: too large" in str(error)
    assert len(server.sent) == 1


@pytest.mark.parametrize(("status", "text"), [(200, "<html>hello</html>"), (502, "Bad Gateway"), (302, "")])
def test_an_answer_that_is_not_softrecs_is_shown_not_parsed(ask: Any, status: int, text: str) -> None:
    error, _ = ask("recommend", RecommendRequest(user_id="42"), [httpx.Response(status, text=text)])
    assert isinstance(error, UnreadableAnswerError)
    assert error.status == status
    assert text in str(error)


def test_an_answer_that_took_too_long_is_not_asked_for_again(ask: Any) -> None:
    error, server = ask("recommend", RecommendRequest(user_id="42"), [httpx.ReadTimeout("slow")])
    assert isinstance(error, UnreachableError)
    assert "softrec serve" in str(error)
    assert len(server.sent) == 1


def test_items_are_changed_by_what_is_set_and_an_id_may_hold_any_sign(ask: Any) -> None:
    changed = {"item_id": "a/b c", "title": "x", "category": "", "available": True, "state": "added", "row": 3}
    answer = httpx.Response(200, json={**changed, "index": ANSWER["index"], "warnings": []})
    path = "http://shop.test/items/a%2Fb%20c"
    for method, body, verb, content in (
        ("put_item", ItemBody(title="x"), "PUT", {"title": "x"}),
        ("patch_item", ItemPatch(available=False), "PATCH", {"available": False}),
    ):
        given, server = ask(method, ("a/b c", body), [problem(503, "catalog_unwritable"), answer])
        assert (given.state, given.row) == ("added", 3)
        assert [(sent.method, str(sent.url)) for sent in server.sent] == [(verb, path)] * 2
        assert json.loads(server.sent[0].content) == content
    given, server = ask("remove_item", "a/b c", [answer])
    assert (server.sent[0].method, str(server.sent[0].url)) == ("DELETE", path)


def test_a_removal_is_not_repeated(ask: Any) -> None:
    """The first may have worked; the second would then find nothing."""
    error, server = ask("remove_item", "a", [httpx.RemoteProtocolError("cut")])
    assert isinstance(error, UnreachableError)
    assert len(server.sent) == 1


def test_probes_tell_how_things_are_now(ask: Any) -> None:
    answer, _ = ask("ready", None, [httpx.Response(200, json=READY)])
    assert answer.adapters == ["soft@0123456789ab"]
    error, server = ask("ready", None, [problem(503, "not_ready")])
    assert isinstance(error, UnavailableError)
    assert len(server.sent) == 1
    live, _ = ask("live", None, [httpx.Response(200, json={"status": "live"})])
    assert live.status == "live"


def test_an_address_that_is_none_is_a_client_error() -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(UnreachableError):
            kind("http://shop.test:port")
    with Client("shop.test") as client, pytest.raises(UnreachableError):
        client.live()


def test_importing_the_client_imports_nothing_heavy() -> None:
    heavy = ["numpy", "torch", "transformers", "vllm", "faiss", "pyarrow", "redis", "sqlalchemy", "fastapi", "typer"]
    code = f"import sys, clients.http.client; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
