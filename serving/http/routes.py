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

ItemId = Annotated[Id, Path(description="Slashes and other characters may be percent-encoded.")]

_T = TypeVar("_T")


@router.post("/recommend", summary="What comes next for a user or a history")
async def recommend(body: RecommendRequest, request: Request) -> RecommendResponse:
    """Read the history, generate titles, ground them to items. The answer always has the same shape."""
    work = _service(request).recommender.recommend(body, request_id=request_id_of(request))
    return await _while_connected(request, work)


@router.post("/events", summary="Report what users did")
async def events(body: EventsRequest, request: Request) -> EventsResponse:
    """Store a batch, idempotently by `event_id`. The history holds its interactions and purchases when this answers."""
    return await _service(request).events.add(body)


@router.put("/items/{item_id:path}", summary="Add or replace an item")
async def put_item(item_id: ItemId, body: ItemBody, request: Request) -> ItemResponse:
    """Put a whole item. The disk and the index hold it when this answers."""
    return await _service(request).items.put(item_id, body)


@router.patch("/items/{item_id:path}", summary="Change fields of an item")
async def patch_item(item_id: ItemId, body: ItemPatch, request: Request) -> ItemResponse:
    """Change the fields that the body names."""
    return await _service(request).items.patch(item_id, body)


@router.delete("/items/{item_id:path}", summary="Remove an item")
async def delete_item(item_id: ItemId, request: Request) -> ItemResponse:
    """Remove an item from the catalog. Histories that name it keep its title; PUT brings it back."""
    return await _service(request).items.remove(item_id)


@router.get("/livez", summary="Liveness")
async def livez() -> LiveResponse:
    """Answer while the process runs. For a restart policy."""
    return LiveResponse()


@router.get("/readyz", summary="Readiness")
async def readyz(request: Request) -> ReadyResponse:
    """Answer 200 when engine and event store work; Redis may be missing. For a load balancer."""
    return await _service(request).ready()


def _service(request: Request) -> Service:
    return cast(Service, request.app.state.service)


async def _while_connected(request: Request, work: Coroutine[Any, Any, _T]) -> _T:
    """Run `work`; cancel it, and with it the generation, when the caller disconnects."""
    task = asyncio.ensure_future(work)
    disconnect = asyncio.ensure_future(_disconnected(request))
    try:
        await asyncio.wait((task, disconnect), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise asyncio.CancelledError  # no caller is left to read the answer
        return task.result()
    finally:
        for waiting in (task, disconnect):
            waiting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await disconnect


async def _disconnected(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
