"""A user's history: from the cache, else from the event store. New events go to the store, then leave the cache."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from serving.events.event_store import HISTORY_TYPES, EventStore, StoredEvent
from serving.events.history_cache import HistoryCache


@dataclass(frozen=True)
class UserHistory:
    """Item ids, oldest first, the newest `limit` of them.

    Attributes:
        cache_available: False when Redis did not answer.
    """

    item_ids: list[str]
    source: Literal["cache", "store"]
    cache_available: bool


@dataclass(frozen=True)
class AddedEvents:
    """How many events of a batch were new, and whether the cache could drop their users."""

    accepted: int
    cache_available: bool


class Histories:
    """Histories of all users. Cache and store agree after every finished call.

    Args:
        limit: newest items kept of a history.
    """

    def __init__(self, store: EventStore, cache: HistoryCache, *, limit: int) -> None:
        self._store = store
        self._cache = cache
        self._limit = limit

    async def read(self, user_id: str) -> UserHistory:
        """Return a user's history; an unknown user's is empty."""
        found = await self._cache.get(user_id)
        if found.items is not None:
            return UserHistory(found.items[-self._limit :], "cache", True)
        item_ids = await self._store.reads.run(self._store.history, user_id, self._limit)
        if found.version is not None:
            await self._cache.put(user_id, item_ids, found.version)
        return UserHistory(item_ids, "store", found.available)

    async def add(self, events: Sequence[StoredEvent]) -> AddedEvents:
        """Store events; histories contain theirs when this returns."""
        accepted = await self._store.writes.run(self._store.add_events, events)
        changed = [event.user_id for event in events if event.type in HISTORY_TYPES]
        dropped = await self._cache.drop(changed) if changed else True
        return AddedEvents(accepted, dropped)
