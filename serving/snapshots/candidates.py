"""Which items a request may be answered with, and therefore which rows of the index."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog, Item
from serving.schema import Filters

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True)
class Candidates:
    """What passed.

    Attributes:
        rows: bool [number of rows]; true where at least one item of the row passed.
        filtered: the same before exclusions: what other requests with these filters have too.
    """

    rows: NDArray[np.bool_]
    filtered: NDArray[np.bool_]
    _items: NDArray[np.bool_]
    _selector: CandidateSelector

    @property
    def excluded(self) -> list[int]:
        """Rows that pass the filters, but have no item left."""
        return [int(row) for row in np.flatnonzero(self.filtered & ~self.rows)]

    def find_row(self, title: str) -> int | None:
        """Return the row of a title of the catalog, whether it passed or not."""
        return self._selector.catalog.find_title_row(title)

    def items_in(self, row: int) -> int:
        """How many items have the row's title, whether they passed or not."""
        return len(self._selector.catalog.items_of(row))

    def items_of(self, row: int) -> list[Item]:
        """Return the row's items that passed, in the catalog's order."""
        return [item for item in self._selector.catalog.items_of(row) if self._items[self._selector.position(item)]]


class CandidateSelector:
    """Applies filters and exclusions to one catalog. Arrays are by slot of the catalog.

    A catalog with changes shares the arrays of the one that it lies over; what changed is told apart.
    """

    def __init__(self, catalog: Catalog, *, earlier: CandidateSelector | None = None) -> None:
        """Prepare a catalog.

        Args:
            earlier: of a catalog with the same base, if there is one: the changes are then all that it costs.
        """
        self.catalog = catalog
        if catalog.base is catalog:
            self._base, changed = self, list(range(len(catalog.slots)))
            self._there = self._available = np.empty(0, dtype=np.bool_)
            self._row_of = np.empty(0, dtype=np.int64)
        else:
            base = earlier._base if earlier is not None and earlier._base.catalog is catalog.base else None
            self._base, changed = base or CandidateSelector(catalog.base), catalog.changed_slots
            self._there, self._available = self._base._there, self._base._available
            self._row_of = self._base._row_of
        items = [catalog.slots[slot] for slot in changed]
        self._changed = np.array(changed, dtype=np.int64)
        self._there = self._overlaid(self._there, [item is not None for item in items])
        self._available = self._overlaid(self._available, [item is not None and item.available for item in items])
        self._row_of = self._overlaid(self._row_of, [catalog.row_of_slot(slot) for slot in changed])
        by_category: dict[str, list[int]] = {}
        for slot, item in zip(changed, items, strict=True):
            for category in item.category.split("|") if item is not None else ():
                by_category.setdefault(category.strip(), []).append(slot)
        self._by_category = {name: np.array(members, dtype=np.int64) for name, members in by_category.items()}

    def position(self, item: Item) -> int:
        slot = self.catalog.find_slot(item.item_id)
        assert slot is not None  # an item of this catalog
        return slot

    def select(self, filters: Filters, excluded_item_ids: Collection[str]) -> Candidates:
        """Return the items that pass the filters and are not excluded; unknown excluded ids do not matter.

        An item passes `filters.category` when one of its `|`-separated categories is named there, letter by letter.
        """
        items = self._there.copy() if filters.category is None else self._of_categories(filters.category)
        if filters.available_only:
            items &= self._available
        filtered = self._rows(items)
        excluded = [self.catalog.find_slot(item_id) for item_id in excluded_item_ids]
        items[[slot for slot in excluded if slot is not None]] = False
        return Candidates(self._rows(items), filtered, items, self)

    def _rows(self, items: NDArray[np.bool_]) -> NDArray[np.bool_]:
        rows = np.zeros(len(self.catalog), dtype=np.bool_)
        rows[self._row_of[items]] = True
        return rows

    def _of_categories(self, names: Collection[str]) -> NDArray[np.bool_]:
        items = np.zeros(len(self._there), dtype=np.bool_)
        if self._base is not self:
            for name in names:
                items[self._base._by_category.get(name.strip(), [])] = True
            items[self._changed] = False  # they are what they are now
        for name in names:
            items[self._by_category.get(name.strip(), [])] = True
        return items

    def _overlaid(self, under: NDArray[_T], values: list[Any]) -> NDArray[_T]:
        """Put the changed slots' values over an array, which grows by those that are new."""
        array = np.zeros(len(self.catalog.slots), dtype=under.dtype)
        array[: len(under)] = under
        array[self._changed] = values
        return array
