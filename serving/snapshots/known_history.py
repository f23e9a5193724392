"""A history tied to the catalog: its known titles, and how many entries are unknown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from index.catalog.catalog import Catalog
from serving.schema import HistorySource


@dataclass(frozen=True)
class KnownHistory:
    """A history tied to the catalog.

    Attributes:
        titles: the known entries' titles, oldest first, as the catalog writes them; also of items that were removed
            since, because the model knows them.
        item_ids: every item that shares a title with a known entry.
        unknown: how many entries are neither an item id nor a title.
        source: where the entries came from.
    """

    titles: tuple[str, ...]
    item_ids: frozenset[str]
    unknown: int
    source: HistorySource


def know_history(catalog: Catalog, entries: Sequence[str], source: HistorySource) -> KnownHistory:
    """Tie each entry to the catalog: an item id first, else a title. Editions of one title count as one thing."""
    titles: list[str] = []
    item_ids: set[str] = set()
    for entry in entries:
        row = catalog.recall_item_row(entry)
        if row is None:
            row = catalog.find_title_row(entry)
        if row is not None:
            titles.append(catalog.titles[row])
            item_ids.update(item.item_id for item in catalog.items_of(row))
    return KnownHistory(tuple(titles), frozenset(item_ids), len(entries) - len(titles), source)
