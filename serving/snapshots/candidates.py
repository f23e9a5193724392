"""The items, and so the rows of the index, that may answer a request."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog, Item
from index.catalog.slots import SlotArrays
from serving.schema import Filters


@dataclass(frozen=True)
class Candidates:
    """The items that passed filters and exclusions.

    Attributes:
        rows: bool [number of rows]; true where at least one item of the row passed.
        filtered: the same before exclusions; equal for all requests with these filters.
    """

    rows: NDArray[np.bool_]
    filtered: NDArray[np.bool_]
    _items: NDArray[np.bool_]  # by slot
    _catalog: Catalog

    @property
    def excluded(self) -> list[int]:
        """Rows that pass the filters, but have no item left."""
        return [int(row) for row in np.flatnonzero(self.filtered & ~self.rows)]

    def find_row(self, title: str) -> int | None:
        """Return the row of a title of the catalog, whether it passed or not."""
        return self._catalog.find_title_row(title)

    def items_in(self, row: int) -> int:
        """How many items have the row's title, whether they passed or not."""
        return len(self._catalog.items_of(row))

    def items_of(self, row: int) -> list[Item]:
        """Return the row's items that passed, in the catalog's order."""
        return [item for item in self._catalog.items_of(row) if self._items[self._catalog.find_slot(item.item_id)]]


def select_candidates(slots: SlotArrays, filters: Filters, excluded_item_ids: Collection[str]) -> Candidates:
    """Return the items that pass the filters and are not excluded; unknown excluded ids do not matter.

    An item passes `filters.category` when one of its `|`-separated categories is named there, letter by letter.
    """
    items = slots.present.copy() if filters.category is None else slots.in_categories(filters.category)
    if filters.available_only:
        items &= slots.available
    filtered = slots.rows(items)
    excluded = [slots.catalog.find_slot(item_id) for item_id in excluded_item_ids]
    items[[slot for slot in excluded if slot is not None]] = False
    return Candidates(slots.rows(items), filtered, items, slots.catalog)
