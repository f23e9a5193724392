"""Which items a request may be answered with, and therefore which rows of the index."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.catalog import Catalog, Item
from serving.schema import Filters


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

    def title(self, row: int) -> str:
        """Return the row's title."""
        return self._selector.catalog.titles[row]

    def items_in(self, row: int) -> int:
        """How many items have the row's title, whether they passed or not."""
        return len(self._selector.catalog.items_of(row))

    def items_of(self, row: int) -> list[Item]:
        """Return the row's items that passed, in the catalog's order."""
        return [item for item in self._selector.catalog.items_of(row) if self._items[self._selector.position(item)]]


class CandidateSelector:
    """Applies filters and exclusions to one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self._positions = {item.item_id: position for position, item in enumerate(catalog.items)}
        self._available = np.array([item.available for item in catalog.items], dtype=np.bool_)
        rows = [catalog.find_item_row(item.item_id) for item in catalog.items]
        self._row_of = np.array(rows, dtype=np.int64)
        by_category: dict[str, list[int]] = {}
        for position, item in enumerate(catalog.items):
            for category in item.category.split("|"):
                by_category.setdefault(category.strip(), []).append(position)
        self._by_category = {name: np.array(members, dtype=np.int64) for name, members in by_category.items()}

    def position(self, item: Item) -> int:
        return self._positions[item.item_id]

    def select(self, filters: Filters, excluded_item_ids: Collection[str]) -> Candidates:
        """Return the items that pass the filters and are not excluded; unknown excluded ids do not matter.

        An item passes `filters.category` when one of its `|`-separated categories is named there, letter by letter.
        """
        if filters.category is None:
            items = np.ones(len(self._available), dtype=np.bool_)
        else:
            items = np.zeros(len(self._available), dtype=np.bool_)
            for name in filters.category:
                items[self._by_category.get(name.strip(), [])] = True
        if filters.available_only:
            items &= self._available
        filtered = self._rows(items)
        excluded = [self._positions[item_id] for item_id in excluded_item_ids if item_id in self._positions]
        items[excluded] = False
        return Candidates(self._rows(items), filtered, items, self)

    def _rows(self, items: NDArray[np.bool_]) -> NDArray[np.bool_]:
        rows = np.zeros(len(self.catalog), dtype=np.bool_)
        rows[self._row_of[items]] = True
        return rows
