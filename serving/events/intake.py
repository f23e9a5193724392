"""Accept events: check each against the catalog, store the valid ones, report on all."""

from __future__ import annotations

import time

from serving.events.event_store import StoredEvent
from serving.events.history import Histories
from serving.schema import Degraded, Event, EventsRequest, EventsResponse, RejectedEvent
from serving.snapshots.snapshots import Snapshots

_NO_SUCH_ITEM = "the catalog has no such item_id"


class EventIntake:
    """Accepts batches of events. Repeating a batch changes nothing.

    Events may name an item that was removed since: the user saw it before.
    """

    def __init__(self, snapshots: Snapshots, histories: Histories) -> None:
        self._snapshots = snapshots
        self._histories = histories

    async def add(self, request: EventsRequest) -> EventsResponse:
        """Store the valid events of a batch and report the others.

        Raises:
            StoreUnavailableError: nothing was stored.
        """
        now = int(time.time())
        catalog = (await self._snapshots.current()).catalog
        good: list[StoredEvent] = []
        rejected: list[RejectedEvent] = []
        for position, event in enumerate(request.events):
            if catalog.recall_item_row(event.item_id) is None:
                rejected.append(
                    RejectedEvent(position=position, event_id=event.event_id, code="unknown_item", reason=_NO_SUCH_ITEM)
                )
            else:
                good.append(_stored(event, now))
        added = await self._histories.add(good)
        return EventsResponse(
            accepted=added.accepted,
            duplicates=len(good) - added.accepted,
            rejected=rejected,
            degraded=[] if added.cache_available else [Degraded.HISTORY_CACHE_UNAVAILABLE],
        )


def _stored(event: Event, now: int) -> StoredEvent:
    return StoredEvent(
        event_id=event.event_id,
        user_id=event.user_id,
        item_id=event.item_id,
        type=event.type.value,
        timestamp=now if event.timestamp is None else event.timestamp,
        request_id=event.request_id,
    )
