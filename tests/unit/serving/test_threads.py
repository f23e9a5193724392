"""No resource keeps another waiting: calls that block until they are released, and requests that answer meanwhile."""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from typing import Any

import pytest

from serving import service
from serving.errors import NotReadyError
from serving.schema import Event, EventsRequest, EventType, ItemBody, RecommendRequest
from serving.threads import Threads
from tests.unit.serving.conftest import Rig

MANY = 40  # more than asyncio's default pool has threads


class Gate:
    """Blocks every call of a function until the gate is opened."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._open = threading.Event()
        self.entered: Future[None] = Future()

    def __call__(self, *arguments: Any) -> Any:
        if not self.entered.done():
            self.entered.set_result(None)
        assert self._open.wait(60)
        return self._function(*arguments)

    @contextlib.asynccontextmanager
    async def closed(self, *calls: Any) -> AsyncIterator[None]:
        """The calls are under way, and the first of them is blocked."""
        tasks = [asyncio.create_task(call) for call in calls]
        try:
            if calls:
                await asyncio.wait_for(asyncio.wrap_future(self.entered), 20)
            yield
        finally:
            self._open.set()
            await asyncio.wait_for(asyncio.gather(*tasks), 60)


async def recommended(rig: Rig, name: str) -> None:
    """An answer that reads its history in the store, grounds, and is recorded there."""
    answer = await asyncio.wait_for(
        rig.service.recommender.recommend(RecommendRequest(user_id=name, k=1), request_id=name), 20
    )
    assert answer.history.source == "store"


async def test_slow_item_changes_keep_no_answer_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(rig.live.apply)
    monkeypatch.setattr(rig.live, "apply", gate)
    puts = [rig.service.items.put(f"n{number}", ItemBody(title=f"New {number}")) for number in range(MANY)]
    async with gate.closed(*puts):
        await recommended(rig, "ann")
        await asyncio.wait_for(rig.service.events.add(events(0)), 20)
        await asyncio.wait_for(rig.service.ready(), 20)
    assert rig.live.snapshot.position.changes == MANY


async def test_slow_writes_keep_no_read_and_no_item_change_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(rig.store.add_events)
    monkeypatch.setattr(rig.store, "add_events", gate)
    async with gate.closed(*(rig.service.events.add(events(number)) for number in range(MANY))):
        request = RecommendRequest(user_id="ann", k=1)
        answering = rig.service.recommender.recommend(request, request_id="r", record=False)
        assert (await asyncio.wait_for(answering, 20)).history.source == "store"
        await asyncio.wait_for(rig.service.items.put("n1", ItemBody(title="New")), 20)
        await asyncio.wait_for(rig.service.ready(), 20)


async def test_slow_reads_keep_no_write_waiting(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    gate = Gate(rig.store.history)
    monkeypatch.setattr(rig.store, "history", gate)
    reads = [
        rig.service.recommender.recommend(
            RecommendRequest(user_id=f"u{number}", timeout_ms=60_000), request_id=f"{number}"
        )
        for number in range(MANY)
    ]
    async with gate.closed(*reads):
        await asyncio.wait_for(rig.service.events.add(events(0)), 20)
        await asyncio.wait_for(rig.service.items.put("n1", ItemBody(title="New")), 20)


async def test_readiness_does_not_wait_for_a_store_that_hangs(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "_STORE_TIMEOUT_S", 0.05)
    gate = Gate(rig.store.ping)
    monkeypatch.setattr(rig.store, "ping", gate)
    async with gate.closed():
        with pytest.raises(NotReadyError, match="does not answer within"):
            await asyncio.wait_for(rig.service.ready(), 20)
    await rig.service.ready()


def events(number: int) -> EventsRequest:
    event = Event(event_id=f"e{number}", user_id=f"u{number}", item_id="i1", type=EventType.PURCHASE)
    return EventsRequest(events=[event])


async def test_calls_beyond_the_limit_wait_and_a_cancelled_one_never_runs() -> None:
    threads, ran = Threads("test", 2), []
    gate = Gate(ran.append)
    calls = [asyncio.create_task(threads.run(gate, number)) for number in range(4)]
    await asyncio.wait_for(asyncio.wrap_future(gate.entered), 20)
    assert [name.name.rpartition("_")[0] for name in threading.enumerate() if name.name.startswith("test")] == [
        "test",
        "test",
    ]
    calls[2].cancel()
    gate._open.set()
    await asyncio.gather(*calls, return_exceptions=True)
    assert sorted(ran) == [0, 1, 3]
    threads.close()


async def test_a_failing_call_gives_its_thread_back() -> None:
    threads = Threads("test", 1)
    for _ in range(3):
        with pytest.raises(ValueError, match="invalid literal"):
            await asyncio.wait_for(threads.run(int, "x"), 20)
    threads.close()
    with pytest.raises(RuntimeError):
        await threads.run(int, "1")
