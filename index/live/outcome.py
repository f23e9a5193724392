"""The outcome of a change: the item afterwards, and the titles that are equal or near."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from index.catalog.catalog import Item
from index.live.snapshot import Snapshot

NEAR = 0.1  # of a vector's length: hardly any query can separate titles that are closer

State = Literal["added", "changed", "unchanged", "removed"]


@dataclass(frozen=True)
class ChangeOutcome:
    """What one change did.

    Attributes:
        item: the item afterwards; of a removed one, as it was.
        row: its row; of a removed one, the row that it was in.
        state: "unchanged" when the catalog said so already; then nothing was written.
        shares_title_with: other items of the row: the model cannot tell them apart.
        near: (title, L2 distance) of the nearest other title, when it is nearer than `NEAR`; None otherwise, and for a
            title that is not new.
    """

    item: Item
    row: int
    state: State
    shares_title_with: tuple[str, ...] = ()
    near: tuple[str, float] | None = None


def describe_outcome(item_id: str, before: Snapshot, after: Snapshot) -> ChangeOutcome:
    """Say what happened to an item between two snapshots; the same one twice: nothing."""
    was, now = before.catalog.find_item(item_id), after.catalog.find_item(item_id)
    row = after.catalog.recall_item_row(item_id)
    item = now or was
    assert item is not None  # a change of neither is refused
    assert row is not None
    if now is None:
        return ChangeOutcome(item, row, "removed")
    others = tuple(other.item_id for other in after.catalog.items_of(row) if other.item_id != item_id)
    new_title = before is not after and (row >= len(before.catalog) or not before.catalog.items_of(row))
    state: State = "unchanged" if now == was else "added" if was is None else "changed"
    return ChangeOutcome(item, row, state, others, _find_near(after, row) if new_title else None)


def _find_near(snapshot: Snapshot, row: int) -> tuple[str, float] | None:
    vector = snapshot.grounder.index.vectors(np.array([row]))
    distances, rows = snapshot.grounder.index.search(vector, 2)
    for distance, other in zip(distances[0].tolist(), rows[0].tolist(), strict=True):
        if other != row:
            return (snapshot.catalog.titles[other], distance) if distance <= NEAR * np.linalg.norm(vector) else None
    return None
