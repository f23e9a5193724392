"""The version of a user: whoever filled the cache late loses, also when Redis forgot the user in between."""

from pathlib import Path

import redis

from serving.events.embedded_redis import EmbeddedRedis
from serving.events.event_store import EventStore, StoredEvent
from serving.events.history import Histories
from serving.events.history_cache import HistoryCache


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
