"""Ask a softrec server from Python: `Client`, and `AsyncClient` for asyncio.

Needs only httpx and pydantic. Both clients share plain functions that build requests, read answers and decide about
retries; each adds only its own way to send and to sleep.

Example (not run here, it needs a server)::

    with Client("http://127.0.0.1:8000") as client:
        answer = client.recommend(RecommendRequest(user_id="42", k=5))
        for item in answer.items:
            print(item.rank, item.title)
"""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Generic, Self, TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, ValidationError

from clients.errors import UnreachableError, UnreadableAnswerError, problem_error
from clients.http.address import DEFAULT_URL
from clients.http.retry import RetryPolicy, parse_retry_after
from serving.schema import (
    EventsRequest,
    EventsResponse,
    ItemBody,
    ItemPatch,
    ItemResponse,
    LiveResponse,
    Problem,
    ReadyResponse,
    RecommendRequest,
    RecommendResponse,
)

Answer = TypeVar("Answer", bound=BaseModel)

RETRIED_STATUSES = frozenset({429, 503})  # no answer was made; before a 504 or 500 the server may have done the work


@dataclass(frozen=True, slots=True)
class _Call(Generic[Answer]):
    """One call: its address, body and answer, and whether a retry may repeat it."""

    method: str
    path: str
    answer: type[Answer]
    body: BaseModel | None = None
    repeats: bool = True


# Retries may repeat these: events carry ids, and a repeated /recommend only records another decision
def _recommend(request: RecommendRequest) -> _Call[RecommendResponse]:
    return _Call("POST", "/recommend", RecommendResponse, request)


def _events(request: EventsRequest) -> _Call[EventsResponse]:
    return _Call("POST", "/events", EventsResponse, request)


def _put_item(item_id: str, item: ItemBody) -> _Call[ItemResponse]:
    return _Call("PUT", _item_path(item_id), ItemResponse, item)


def _patch_item(item_id: str, patch: ItemPatch) -> _Call[ItemResponse]:
    return _Call("PATCH", _item_path(item_id), ItemResponse, patch)


def _remove_item(item_id: str) -> _Call[ItemResponse]:  # a repeated one would answer 404
    return _Call("DELETE", _item_path(item_id), ItemResponse, repeats=False)


def _item_path(item_id: str) -> str:
    return f"/items/{quote(item_id, safe='')}"


# A probe asks for the state now, so no retry repeats it
_LIVE = _Call("GET", "/livez", LiveResponse, repeats=False)
_READY = _Call("GET", "/readyz", ReadyResponse, repeats=False)


class Client:
    """A blocking client; use it as a context manager, or close it.

    Args:
        url: the server's address.
        timeout_s: longest wait for one answer, and for its connection.
        retry: how often and when to repeat a call after 429, 503 or a broken connection.
        headers: sent with every request.
        transport: another way to send (tests, proxies); httpx's own by default.
    """

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 60.0,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._http = httpx.Client(base_url=_base_url(url), timeout=timeout_s, headers=headers, transport=transport)
        self._retry = retry or RetryPolicy()

    def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """Ask what comes next. Raises a `ClientError`: see `clients.errors`."""
        return self._run(_recommend(request))

    def events(self, request: EventsRequest) -> EventsResponse:
        """Report what users did; rejected events are in the answer, not raised."""
        return self._run(_events(request))

    def put_item(self, item_id: str, item: ItemBody) -> ItemResponse:
        """Add an item or replace it; the server must allow it. Raises `ForbiddenError` where it does not."""
        return self._run(_put_item(item_id, item))

    def patch_item(self, item_id: str, patch: ItemPatch) -> ItemResponse:
        """Change some of an item; `ItemPatch(available=False)` hides it. Raises `NotFoundError` for an unknown one."""
        return self._run(_patch_item(item_id, patch))

    def remove_item(self, item_id: str) -> ItemResponse:
        """Remove an item. Raises `NotFoundError` for an unknown one; never retried."""
        return self._run(_remove_item(item_id))

    def live(self) -> LiveResponse:
        """Ask whether the process answers."""
        return self._run(_LIVE)

    def ready(self) -> ReadyResponse:
        """Ask whether the server can recommend. Raises `UnavailableError` while it cannot; never retried."""
        return self._run(_READY)

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, call: _Call[Answer]) -> Answer:
        request = _request(self._http, call)
        for attempt in itertools.count(1):
            try:
                outcome: httpx.Response | httpx.TransportError = self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            settled = _settle(call, request.url, outcome, attempt, self._retry)
            if not isinstance(settled, float):
                return settled
            time.sleep(settled)
        raise AssertionError("unreachable: the policy ends the loop")


class AsyncClient:
    """`Client` for asyncio: the same arguments, the same calls, awaited."""

    def __init__(
        self,
        url: str = DEFAULT_URL,
        *,
        timeout_s: float = 60.0,
        retry: RetryPolicy | None = None,
        headers: Mapping[str, str] | None = None,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._http = httpx.AsyncClient(base_url=_base_url(url), timeout=timeout_s, headers=headers, transport=transport)
        self._retry = retry or RetryPolicy()

    async def recommend(self, request: RecommendRequest) -> RecommendResponse:
        """Ask what comes next. Raises a `ClientError`: see `clients.errors`."""
        return await self._run(_recommend(request))

    async def events(self, request: EventsRequest) -> EventsResponse:
        """Report what users did; rejected events are in the answer, not raised."""
        return await self._run(_events(request))

    async def put_item(self, item_id: str, item: ItemBody) -> ItemResponse:
        """Add an item or replace it; the server must allow it. Raises `ForbiddenError` where it does not."""
        return await self._run(_put_item(item_id, item))

    async def patch_item(self, item_id: str, patch: ItemPatch) -> ItemResponse:
        """Change some of an item; `ItemPatch(available=False)` hides it. Raises `NotFoundError` for an unknown one."""
        return await self._run(_patch_item(item_id, patch))

    async def remove_item(self, item_id: str) -> ItemResponse:
        """Remove an item. Raises `NotFoundError` for an unknown one; never retried."""
        return await self._run(_remove_item(item_id))

    async def live(self) -> LiveResponse:
        """Ask whether the process answers."""
        return await self._run(_LIVE)

    async def ready(self) -> ReadyResponse:
        """Ask whether the server can recommend. Raises `UnavailableError` while it cannot; never retried."""
        return await self._run(_READY)

    async def aclose(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def _run(self, call: _Call[Answer]) -> Answer:
        request = _request(self._http, call)
        for attempt in itertools.count(1):
            try:
                outcome: httpx.Response | httpx.TransportError = await self._http.send(request)
            except httpx.TransportError as error:
                outcome = error
            settled = _settle(call, request.url, outcome, attempt, self._retry)
            if not isinstance(settled, float):
                return settled
            await asyncio.sleep(settled)
        raise AssertionError("unreachable: the policy ends the loop")


def _base_url(url: str) -> httpx.URL:
    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise UnreachableError(url, f"invalid address: {error}") from error


def _request(http: httpx.Client | httpx.AsyncClient, call: _Call[Answer]) -> httpx.Request:
    if call.body is None:
        return http.build_request(call.method, call.path)
    # Unset fields are left out: the server's defaults apply, and an older server sees no unknown fields
    content = call.body.model_dump_json(exclude_unset=True)
    return http.build_request(call.method, call.path, content=content, headers={"content-type": "application/json"})


def _settle(
    call: _Call[Answer],
    url: httpx.URL,
    outcome: httpx.Response | httpx.TransportError,
    attempt: int,
    retry: RetryPolicy,
) -> Answer | float:
    """Return the answer, or the seconds to wait before asking again.

    Raises:
        ClientError: the call failed for good; see `clients.errors`.
    """
    if isinstance(outcome, httpx.Response):
        if outcome.is_success:
            return _read(call.answer, outcome)
        failure = problem_error(
            _read(Problem, outcome), retry_after_s=parse_retry_after(outcome.headers.get("retry-after"))
        )
        passes = outcome.status_code in RETRIED_STATUSES
        delay_s = retry.delay_s(attempt, failure.retry_after_s) if call.repeats and passes else None
        if delay_s is None:
            raise failure
        return delay_s
    # No retry after a read timeout: the server may still be at work on the first
    passes = isinstance(outcome, httpx.NetworkError | httpx.RemoteProtocolError | httpx.ConnectTimeout)
    delay_s = retry.delay_s(attempt) if call.repeats and passes else None
    if delay_s is None:
        raise UnreachableError(str(url), str(outcome) or type(outcome).__name__) from outcome
    return delay_s


def _read(model: type[Answer], response: httpx.Response) -> Answer:
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        beginning = response.content[:120].decode("utf-8", "replace")
        raise UnreadableAnswerError(str(response.url), response.status_code, beginning) from error
