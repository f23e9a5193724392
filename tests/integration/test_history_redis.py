"""Histories through a real Redis and a real SQLite: they agree always, and Redis may die."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import redis.asyncio
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from serving.events.circuit_breaker import CircuitBreaker
from serving.events.embedded_redis import EmbeddedRedis
from serving.events.event_store import EventStore, StoredEvent
from serving.events.history import Histories
from serving.events.history_cache import HistoryCache

USERS = ("ann", "bob {x}", "чен")


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedRedis]:
    started = EmbeddedRedis()
    yield started
    started.close()


@pytest.fixture
def store(tmp_path: Path) -> Iterator[EventStore]:
    opened = EventStore.open_file(tmp_path / "events.db")
    yield opened
    opened.close()


@pytest.fixture
async def cache(server: EmbeddedRedis, tmp_path: Path) -> AsyncIterator[HistoryCache]:
    opened = HistoryCache(server.url, namespace=tmp_path.name, ttl_s=60, timeout_s=2.0)
    yield opened
    await opened.close()


def event(number: int, user: str, timestamp: int, kind: str = "purchase") -> StoredEvent:
    return StoredEvent(f"e{number}", user, f"i{number}", kind, timestamp, None)


operations = st.lists(
    st.tuples(st.just("read"), st.sampled_from(USERS), st.just(0), st.just("purchase"))
    | st.tuples(
        st.just("add"),
        st.sampled_from(USERS),
        st.integers(0, 5),
        st.sampled_from(["purchase", "interaction", "click", "impression"]),
    ),
    max_size=25,
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(operations=operations)
async def test_cache_and_store_agree_after_any_operations(server, tmp_path_factory, operations) -> None:
    """Against the obvious version: a list of all events, sorted by time, equal times as they came."""
    folder = tmp_path_factory.mktemp("store")
    store = EventStore.open_file(folder / "events.db")
    cache = HistoryCache(server.url, namespace=folder.name, ttl_s=60, timeout_s=2.0)
    histories = Histories(store, cache, limit=4)
    kept: dict[str, list[tuple[int, int, str]]] = {user: [] for user in USERS}
    for number, (what, user, timestamp, kind) in enumerate(operations):
        if what == "add":
            await histories.add([event(number, user, timestamp, kind)])
            if kind in {"purchase", "interaction"}:
                kept[user].append((timestamp, number, f"i{number}"))
        else:
            expected = [item for _, _, item in sorted(kept[user])][-4:]
            first, second = await histories.read(user), await histories.read(user)
            assert first.item_ids == second.item_ids == expected
            assert second.source == "cache"
    await cache.close()
    store.close()


async def test_every_key_has_a_ttl(server: EmbeddedRedis, store: EventStore, cache: HistoryCache) -> None:
    histories = Histories(store, cache, limit=10)
    await histories.read("ann")
    await histories.add([event(1, "bob", 1)])
    await histories.read("bob")
    client = redis.asyncio.Redis.from_url(server.url)
    keys = [key async for key in client.scan_iter()]
    ttls = [await client.ttl(key) for key in keys]
    await client.aclose()
    assert len(keys) >= 2
    assert all(0 < ttl <= 60 for ttl in ttls)


async def test_a_slow_reader_never_overwrites_a_writer(store: EventStore, cache: HistoryCache) -> None:
    histories = Histories(store, cache, limit=10)
    slow = await cache.get("ann")  # a reader misses, reads the store (nothing yet) ...
    assert slow.version is not None
    await histories.add([event(1, "ann", 1)])  # ... a writer stores an event ...
    await cache.put("ann", [], slow.version)  # ... and the reader comes back
    assert (await histories.read("ann")).item_ids == ["i1"]


async def test_redis_dies_and_comes_back(tmp_path: Path, store: EventStore) -> None:
    """While it is down the store answers, at once; what changed meanwhile is dropped when it is back."""
    first = EmbeddedRedis()
    now = [0.0]
    breaker = CircuitBreaker(clock=lambda: now[0])
    path = first.url.removeprefix("unix://")
    cache = HistoryCache(first.url, namespace="n", ttl_s=60, timeout_s=0.5, breaker=breaker)
    histories = Histories(store, cache, limit=10)
    await histories.add([event(1, "ann", 1)])
    assert (await histories.read("ann")).source == "store"
    assert (await histories.read("ann")).source == "cache"

    first._process.kill()
    first._process.wait()
    read = await histories.read("ann")
    assert (read.item_ids, read.source, read.cache_available) == (["i1"], "store", False)
    assert not breaker.closed
    added = await histories.add([event(2, "ann", 2)])
    assert (added.accepted, added.cache_available) == (1, False)
    assert (await histories.read("ann")).item_ids == ["i1", "i2"]

    second = EmbeddedRedis()  # another server with the old, stale entry, under the old address
    Path(path).parent.mkdir(exist_ok=True)
    Path(path).unlink(missing_ok=True)
    Path(path).symlink_to(second.url.removeprefix("unix://"))
    other = HistoryCache(second.url, namespace="n", ttl_s=60, timeout_s=2.0)
    stale = await other.get("ann")
    assert stale.version is not None
    await other.put("ann", ["i1"], stale.version)
    await other.close()
    now[0] += 10
    back = await histories.read("ann")
    assert (back.item_ids, back.cache_available) == (["i1", "i2"], True)
    assert breaker.closed
    assert (await histories.read("ann")).source == "cache"
    await cache.close()
    second.close()
    first.close()


async def test_a_redis_that_hangs_is_not_waited_for(tmp_path: Path, store: EventStore) -> None:
    """A socket that accepts and never answers."""
    path = tmp_path / "hang.sock"
    hanging = socket.socket(socket.AF_UNIX)
    hanging.bind(str(path))
    hanging.listen()
    cache = HistoryCache(f"unix://{path}", namespace="n", ttl_s=60, timeout_s=0.1)
    histories = Histories(store, cache, limit=10)
    async with asyncio.timeout(5):
        for _ in range(10):
            assert not (await histories.read("ann")).cache_available
    await cache.close()
    hanging.close()


async def test_a_revived_server_listens_at_the_old_address_though_its_folder_was_cleaned_away() -> None:
    server = EmbeddedRedis()
    died = server._process
    server.revive()
    assert server._process is died  # it runs
    died.kill()
    died.wait()
    shutil.rmtree(Path(server.url.removeprefix("unix://")).parent)
    server.revive()
    server._wait_until_it_listens()
    cache = HistoryCache(server.url, namespace="n", ttl_s=60, timeout_s=2.0)
    assert await cache.ping()
    await cache.close()
    server.close()


def test_the_embedded_server_leaves_nothing_behind() -> None:
    started = EmbeddedRedis()
    folder = Path(started.url.removeprefix("unix://")).parent
    assert folder.is_dir()
    started.close()
    started.close()
    assert not folder.exists()
    assert started._process.poll() is not None
