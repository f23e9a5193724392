"""Changes of the catalog over HTTP: check, write, and describe the item afterwards."""

from __future__ import annotations

import asyncio
from typing import Any

from index.catalog.changes import parse_change
from index.errors import SoftrecError, UnknownItemError
from index.live.live import LiveIndex
from index.live.outcome import ChangeOutcome
from serving.errors import (
    CatalogConflictError,
    CatalogUnwritableError,
    InvalidItemError,
    ItemChangesForbiddenError,
    NoSuchItemError,
)
from serving.schema import ItemBody, ItemPatch, ItemResponse, ItemState, ItemWarning
from serving.snapshots.snapshots import Snapshots, index_used
from serving.threads import Threads


class ItemEditor:
    """Adds, changes and removes items, if this server allows it.

    Every method raises ItemChangesForbiddenError, NoSuchItemError, InvalidItemError, CatalogConflictError or
    CatalogUnwritableError; then nothing was changed.
    """

    def __init__(self, live: LiveIndex, snapshots: Snapshots, *, allowed: bool) -> None:
        self._live = live
        self._snapshots = snapshots
        self._allowed = allowed
        self._thread = Threads("item-change", 1)  # one: a change holds the catalog's lock

    async def put(self, item_id: str, item: ItemBody) -> ItemResponse:
        """Add an item or replace it."""
        return await self._change(op="put", item_id=item_id, **item.model_dump())

    async def patch(self, item_id: str, patch: ItemPatch) -> ItemResponse:
        """Change some of an item."""
        return await self._change(op="patch", item_id=item_id, **patch.model_dump())

    async def remove(self, item_id: str) -> ItemResponse:
        """Remove an item."""
        return await self._change(op="remove", item_id=item_id)

    def close(self) -> None:
        """Wait for the change in progress."""
        self._thread.close()

    async def _change(self, **fields: Any) -> ItemResponse:
        if not self._allowed:
            raise ItemChangesForbiddenError(
                "this server does not let requests change the catalog", remedy="set SOFTREC_ALLOW_ITEM_CHANGES=true"
            )
        try:
            change = parse_change(fields)
        except ValueError as error:  # of parsing alone: any other is ours, not the caller's
            raise InvalidItemError(str(error)) from error
        try:
            # shielded: a change that is under way is made, whether or not its caller waits for the answer
            outcome = await asyncio.shield(self._thread.run(self._live.apply, change))
        except UnknownItemError as error:
            raise NoSuchItemError(str(error)) from error
        except SoftrecError as error:
            raise CatalogConflictError(str(error)) from error
        except OSError as error:
            raise CatalogUnwritableError(f"the change cannot be written now ({error})") from error
        await self._snapshots.catch_up()
        return _answer(outcome, self._snapshots)


def _answer(outcome: ChangeOutcome, snapshots: Snapshots) -> ItemResponse:
    warnings = []
    if outcome.shares_title_with:
        listed = ", ".join(outcome.shares_title_with[:5])
        warnings.append(ItemWarning(code="shared_title", reason=f"items with this title, too: {listed}"))
    if outcome.near is not None:
        title, distance = outcome.near
        warnings.append(ItemWarning(code="near_title", reason=f"{title!r} lies at distance {distance:.3f}"))
    if snapshots.failure is not None:
        reason = f"the change is written, but answers do not show it yet: {snapshots.failure}"
        warnings.append(ItemWarning(code="index_outdated", reason=reason))
    item = outcome.item
    return ItemResponse(
        item_id=item.item_id,
        title=item.title,
        category=item.category,
        available=item.available,
        state=ItemState(outcome.state),
        row=outcome.row,
        index=index_used(snapshots.served),
        warnings=warnings,
    )
