"""Histories in Redis, in front of the event store. The only module that imports redis.

One hash per user, `softrec:<store's token>:history:<sha256 of the user id>`, with a TTL. It holds `version`, a random
token that every write of the user's events replaces, and `items`. A reader that missed stores what it read only if the
version is still the one that it saw, so a slow reader never overwrites what a writer has just made stale. Versions are
random and never repeat: after Redis evicted the hash, a counter would start again and let the slow reader win.

Redis may be down: then every call after the first returns at once and the store answers. The cache remembers the users
whose entries it could not drop meanwhile, and drops them before it reads Redis again. An entry that another program
wrote is replaced and counts as a miss: Redis works, and every other user's entry is good.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast

import redis.asyncio
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from serving.events.circuit_breaker import CircuitBreaker

_T = TypeVar("_T")

_CONNECTIONS = 32
_DROP_BATCH = 500
_MOST_STALE_USERS = 100_000

_REPLACE_FOREIGN = """
local kind = redis.call('TYPE', KEYS[1]).ok
if kind ~= 'hash' and kind ~= 'none' then redis.call('DEL', KEYS[1]) end
"""
_GET = f"""{_REPLACE_FOREIGN}
local version = redis.call('HGET', KEYS[1], 'version')
if not version then
  version = ARGV[1]
  redis.call('HSET', KEYS[1], 'version', version)
  redis.call('EXPIRE', KEYS[1], ARGV[2])
end
return {{version, redis.call('HGET', KEYS[1], 'items')}}
"""
_PUT = f"""{_REPLACE_FOREIGN}
if redis.call('HGET', KEYS[1], 'version') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'items', ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[3])
return 1
"""
_DROP = f"""{_REPLACE_FOREIGN}
redis.call('HSET', KEYS[1], 'version', ARGV[1])
redis.call('HDEL', KEYS[1], 'items')
redis.call('EXPIRE', KEYS[1], ARGV[2])
return 1
"""


@dataclass(frozen=True)
class Lookup:
    """The cache's entry of a user.

    Attributes:
        items: item ids, oldest first; None on a miss.
        version: the argument that `put` needs after a miss; None when Redis did not answer.
    """

    items: list[str] | None
    version: str | None

    @property
    def available(self) -> bool:
        return self.version is not None


class HistoryCache:
    """A bounded, expiring cache of histories. No failure of Redis raises.

    Args:
        url: redis://, rediss:// or unix:// URL.
        namespace: `EventStore.token` of the cached store; stores may share a Redis.
        ttl_s: lifetime of an entry after its last write.
        timeout_s: longest wait for Redis in one call.
        revive: called before each probe of a Redis that did not answer: starts it again if it is ours and died.
    """

    def __init__(
        self,
        url: str,
        *,
        namespace: str,
        ttl_s: int,
        timeout_s: float,
        breaker: CircuitBreaker | None = None,
        revive: Callable[[], None] = lambda: None,
    ) -> None:
        pool = redis.asyncio.BlockingConnectionPool.from_url(
            url,
            max_connections=_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            retry=Retry(NoBackoff(), 0),
        )
        self._redis = redis.asyncio.Redis.from_pool(pool)
        self._namespace = namespace
        self._ttl_s = ttl_s
        self._timeout_s = timeout_s
        self._breaker = breaker or CircuitBreaker()
        self._revive = revive
        self._stale: set[str] = set()  # keys that could not be dropped
        self._all_stale = False

    async def get(self, user_id: str) -> Lookup:
        """Look up a user's history."""
        key = self._key(user_id)

        async def read() -> Lookup:
            found = self._redis.eval(_GET, 1, key, _new_version(), str(self._ttl_s))
            version, items = await cast(Awaitable[list[bytes | None]], found)
            try:
                return _read_entry(version, items)
            except (ValueError, RecursionError):  # not ours
                fresh = _new_version()
                await cast(Awaitable[object], self._redis.eval(_DROP, 1, key, fresh, str(self._ttl_s)))
                return Lookup(None, fresh)

        return await self._call(read, otherwise=Lookup(None, None))

    async def put(self, user_id: str, items: Sequence[str], version: str) -> None:
        """Cache a history read from the store after `get` gave `version`; ignored if it changed since."""
        key, text = self._key(user_id), json.dumps(list(items))

        async def write() -> None:
            await cast(Awaitable[object], self._redis.eval(_PUT, 1, key, version, text, str(self._ttl_s)))

        await self._call(write, otherwise=None)

    async def drop(self, user_ids: Sequence[str]) -> bool:
        """Forget users whose events were just stored. False: Redis did not answer; the cache will do it later."""
        keys = [self._key(user_id) for user_id in dict.fromkeys(user_ids)]

        async def forget() -> bool:
            await self._drop_keys(keys)
            return True

        if await self._call(forget, otherwise=False):
            return True
        self._stale.update(keys)
        if len(self._stale) > _MOST_STALE_USERS:
            self._stale.clear()
            self._all_stale = True
        return False

    async def ping(self) -> bool:
        """Return whether Redis answers."""

        async def ask() -> bool:
            return bool(await cast(Awaitable[object], self._redis.ping()))

        return await self._call(ask, otherwise=False)

    async def close(self) -> None:
        """Close the connections."""
        await self._redis.aclose()

    async def _call(self, operation: Callable[[], Awaitable[_T]], *, otherwise: _T) -> _T:
        if not self._breaker.allows():
            return otherwise
        try:
            if not self._breaker.closed:
                self._revive()
            async with asyncio.timeout(self._timeout_s):
                await self._drop_stale_keys()
                answer = await operation()
        except (RedisError, OSError, TimeoutError):
            self._breaker.failed()
            return otherwise
        self._breaker.succeeded()
        return answer

    async def _drop_stale_keys(self) -> None:
        """Drop the entries that changed during an outage, before any is read."""
        if self._all_stale:
            async for key in self._redis.scan_iter(match=f"{self._prefix}*", count=1000):
                await self._redis.unlink(key)
            self._all_stale = False
        if self._stale:
            keys = list(self._stale)
            for start in range(0, len(keys), _DROP_BATCH):  # what is done stays done if the time runs out
                batch = keys[start : start + _DROP_BATCH]
                await self._drop_keys(batch)
                self._stale.difference_update(batch)

    async def _drop_keys(self, keys: Sequence[str]) -> None:
        async with self._redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.eval(_DROP, 1, key, _new_version(), str(self._ttl_s))
            await pipeline.execute()

    @property
    def _prefix(self) -> str:
        return f"softrec:{self._namespace}:history:"

    def _key(self, user_id: str) -> str:
        return self._prefix + hashlib.sha256(user_id.encode()).hexdigest()


def _read_entry(version: bytes | None, items: bytes | None) -> Lookup:
    """Read an entry's fields; ValueError or RecursionError if it is not one of ours."""
    item_ids = None if items is None else json.loads(items)
    if version is None or not (item_ids is None or _is_list_of_str(item_ids)):
        raise ValueError("not a history")
    return Lookup(item_ids, version.decode("ascii"))


def _is_list_of_str(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in value)


def _new_version() -> str:
    return secrets.token_hex(8)
