"""The fields of items that filters test, as arrays over the slots of a catalog."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog

_T = TypeVar("_T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class SlotArrays:
    """Arrays by slot. A changed catalog's are a copy of those of the catalog under it, with the changed slots replaced.

    Attributes:
        present: bool [slots]; false where the item was removed.
        available: bool [slots]; false where it is hidden or removed.
        row_of: int64 [slots]; the row of its title.
    """

    catalog: Catalog
    present: NDArray[np.bool_]
    available: NDArray[np.bool_]
    row_of: NDArray[np.int64]
    _changed: NDArray[np.int64]
    _by_category: dict[str, NDArray[np.int64]]  # of the changed slots, where there is an `_under`
    _under: SlotArrays | None

    @classmethod
    def of(cls, catalog: Catalog) -> SlotArrays:
        """Make the arrays of a catalog: one pass over it, and one over the catalog under its overlay."""
        under = None if catalog.overlaid is catalog else cls.of(catalog.overlaid)
        return cls._over(catalog, under)

    def advance(self, catalog: Catalog) -> SlotArrays:
        """Return the arrays of another catalog; if both lie over the same one, they cost as much as the changes."""
        under = self if self._under is None else self._under
        return self._over(catalog, under) if catalog.overlaid is under.catalog else self.of(catalog)

    @classmethod
    def _over(cls, catalog: Catalog, under: SlotArrays | None) -> SlotArrays:
        if under is not None and catalog is under.catalog:
            return under
        changed = list(range(len(catalog.slots))) if under is None else catalog.changed_slots
        items = [catalog.slots[slot] for slot in changed]
        at = np.array(changed, dtype=np.int64)

        def overlay(below: NDArray[_T], values: list[Any]) -> NDArray[_T]:
            array = np.zeros(len(catalog.slots), dtype=below.dtype)
            array[: len(below)] = below
            array[at] = values
            return array

        no_flags = np.empty(0, dtype=np.bool_)
        present, available = (no_flags, no_flags) if under is None else (under.present, under.available)
        row_of = np.empty(0, dtype=np.int64) if under is None else under.row_of
        by_category: dict[str, list[int]] = {}
        for slot, item in zip(changed, items, strict=True):
            for category in item.category.split("|") if item is not None else ():
                by_category.setdefault(category.strip(), []).append(slot)
        return cls(
            catalog,
            overlay(present, [item is not None for item in items]),
            overlay(available, [item is not None and item.available for item in items]),
            overlay(row_of, [catalog.row_of_slot(slot) for slot in changed]),
            at,
            {name: np.array(members, dtype=np.int64) for name, members in by_category.items()},
            under,
        )

    def in_categories(self, names: Collection[str]) -> NDArray[np.bool_]:
        """bool [slots]: present items with at least one of these categories, letter by letter."""
        items = np.zeros(len(self.present), dtype=np.bool_)
        if self._under is not None:
            for name in names:
                items[self._under._by_category.get(name.strip(), [])] = True
            items[self._changed] = False  # their categories are in `_by_category`
        for name in names:
            items[self._by_category.get(name.strip(), [])] = True
        return items

    def rows(self, items: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """bool [rows]: the rows of some items, bool [slots]."""
        rows = np.zeros(len(self.catalog), dtype=np.bool_)
        rows[self.row_of[items]] = True
        return rows
