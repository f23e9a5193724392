"""The routes. No `try` here: `serving.http.problems` turns errors into answers."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Annotated, Any, TypeVar, cast

from fastapi import APIRouter, Path, Request

from serving.http.problems import request_id_of
from serving.schema import (
    EventsRequest,
    EventsResponse,
    Id,
    ItemBody,
    ItemPatch,
    ItemResponse,
    LiveResponse,
    ReadyResponse,
    RecommendRequest,
    RecommendResponse,
)
from serving.service import Service

router = APIRouter()

ItemId = Annotated[Id, Path(description="Its slashes and other signs as they are, or percent-encoded.")]

_T = TypeVar("_T")


@router.post("/recommend", summary="What comes next for a user or a history")
async def recommend(body: RecommendRequest, request: Request) -> RecommendResponse:
    """Read the history, let the model write a title, tie it to items. The answer always has the same shape."""
    work = _service(request).recommender.recommend(body, request_id=request_id_of(request))
    return await _while_connected(request, work)


@router.post("/events", summary="Report what users did")
async def events(body: EventsRequest, request: Request) -> EventsResponse:
    """Take in a batch, idempotently by `event_id`. Interactions and purchases are in the history when this answers."""
    return await _service(request).events.add(body)


@router.put("/items/{item_id:path}", summary="Add an item, or replace it")
async def put_item(item_id: ItemId, body: ItemBody, request: Request) -> ItemResponse:
    """Put a whole item. It is on disk and in the index when this answers."""
    return await _service(request).items.put(item_id, body)


@router.patch("/items/{item_id:path}", summary="Change some of an item, or hide it")
async def patch_item(item_id: ItemId, body: ItemPatch, request: Request) -> ItemResponse:
    """Change what the body names."""
    return await _service(request).items.patch(item_id, body)


@router.delete("/items/{item_id:path}", summary="Remove an item")
async def delete_item(item_id: ItemId, request: Request) -> ItemResponse:
    """Take an item out of the catalog. Histories that name it keep its title; putting it again brings it back."""
    return await _service(request).items.remove(item_id)


@router.get("/livez", summary="Does the process run?")
async def livez() -> LiveResponse:
    """Answer as long as the process can. For a restart policy."""
    return LiveResponse()


@router.get("/readyz", summary="Can it recommend?")
async def readyz(request: Request) -> ReadyResponse:
    """Answer 200 when engine and event store work; Redis may be missing. For a load balancer."""
    return await _service(request).ready()


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def _while_connected(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work`, but cancel it, and with it the generation, when the caller hangs up."""
    task = asyncio.ensure_future(work)
    hang_up = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, hang_up), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise asyncio.CancelledError  # nobody is left to read an answer
        return task.result()
    finally:
        for waiting in (task, hang_up):
            waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await hang_up


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
