"""The version of a user: whoever filled the cache late loses, also when Redis forgot the user in between."""

from collections.abc import Callable
from pathlib import Path

import pytest
import redis

from serving.events.circuit_breaker import CircuitBreaker
from serving.events.embedded_redis import EmbeddedRedis
from serving.events.event_store import EventStore, StoredEvent
from serving.events.history import Histories
from serving.events.history_cache import HistoryCache, Lookup


def forget_everything(server: EmbeddedRedis) -> None:
    """What an eviction or an expiry does to a key."""
    with redis.Redis.from_url(server.url) as client:
        client.flushdb()


async def test_a_fill_that_began_before_a_write_loses_although_redis_forgot(
    redis_server: EmbeddedRedis, cache: HistoryCache
) -> None:
    first = await cache.get("ann")  # nothing yet: the reader goes to the store ...
    assert first.version is not None
    await cache.drop(["ann"])  # ... a writer stores an event ...
    forget_everything(redis_server)  # ... the version that it left is evicted ...
    await cache.put("ann", ["stale"], first.version)  # ... and the reader comes back
    assert (await cache.get("ann")).items is None


async def test_a_fill_loses_against_a_version_that_began_anew(redis_server: EmbeddedRedis, cache: HistoryCache) -> None:
    """One write, an eviction, one write: a counter would be 1 both times."""
    await cache.drop(["ann"])
    slow = await cache.get("ann")
    assert slow.version is not None
    forget_everything(redis_server)
    await cache.drop(["ann"])
    await cache.put("ann", ["stale"], slow.version)
    assert (await cache.get("ann")).items is None


async def test_a_fill_without_a_write_in_between_is_kept(cache: HistoryCache) -> None:
    first = await cache.get("ann")
    assert first.version is not None
    await cache.put("ann", ["i1"], first.version)
    assert await cache.get("ann") == type(first)(["i1"], first.version)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda client, key: client.hset(key, "items", b"\xff\xfe garbage"),
        lambda client, key: client.hset(key, "items", '{"no": "list"}'),
        lambda client, key: client.hset(key, "items", "[1, 2]"),
        lambda client, key: client.hset(key, "items", "[" * 100_000),
        lambda client, key: client.hset(key, "version", b"\xff"),
        lambda client, key: client.set(key, b"\x00\xff"),
    ],
)
async def test_an_unreadable_entry_is_a_miss_and_no_failure_of_redis(
    redis_server: EmbeddedRedis, tmp_path: Path, spoil: Callable[[redis.Redis, bytes], object]
) -> None:
    """It is filled again, and the other users' entries are read as before."""
    breaker = CircuitBreaker()
    cache = HistoryCache(redis_server.url, namespace=tmp_path.name, ttl_s=60, timeout_s=2.0, breaker=breaker)
    for user in ("ann", "bob"):
        first = await cache.get(user)
        assert first.version is not None
        await cache.put(user, [f"item of {user}"], first.version)
        if user == "ann":
            with redis.Redis.from_url(redis_server.url) as client:
                [key] = client.keys(f"softrec:{tmp_path.name}:*")
                spoil(client, key)
    missed = await cache.get("ann")
    assert (missed.items, missed.available, breaker.closed) == (None, True, True)
    assert (await cache.get("bob")).items == ["item of bob"]
    assert missed.version is not None
    await cache.put("ann", ["i1"], missed.version)
    assert (await cache.get("ann")).items == ["i1"]
    await cache.close()


async def test_a_foreign_entry_is_dropped_like_ours(redis_server: EmbeddedRedis, cache: HistoryCache) -> None:
    await cache.get("ann")
    with redis.Redis.from_url(redis_server.url) as client:
        [key] = client.keys(f"softrec:{cache._namespace}:*")
        client.set(key, "a string")
    assert await cache.drop(["ann"])
    assert await cache.get("ann") == Lookup(None, (await cache.get("ann")).version)


async def test_two_stores_with_the_same_log_share_a_redis_and_no_history(
    redis_server: EmbeddedRedis, tmp_path: Path
) -> None:
    for name, item in (("first", "i1"), ("second", "i2")):
        store = EventStore.open_file(tmp_path / name)
        store.import_log("the same", [[("ann", "i0", 1)]])
        cache = HistoryCache(redis_server.url, namespace=store.token(), ttl_s=60, timeout_s=2.0)
        histories = Histories(store, cache, limit=10)
        await histories.add([StoredEvent("e", "ann", item, "purchase", 2, None)])
        for source in ("store", "cache"):
            read = await histories.read("ann")
            assert (read.item_ids, read.source) == (["i0", item], source)
        await cache.close()
        store.close()
