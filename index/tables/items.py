"""Read a shop's items from a user's file into a catalog."""

from __future__ import annotations

from pathlib import Path

from index.catalog.catalog import Catalog, Item
from index.catalog.rules import clean_title, fault_of_id, fault_of_title
from index.tables.layouts import ITEM_LAYOUTS
from index.tables.rejects import MAX_REJECT_SHARE, ImportReport, Rejects
from index.tables.table import advice_for, open_table

_AVAILABLE = {
    "": True, "true": True, "1": True, "yes": True, "y": True, "t": True,
    "false": False, "0": False, "no": False, "n": False, "f": False,
}  # fmt: skip


def read_items(
    path: Path, *, rejects_path: Path, max_reject_share: float = MAX_REJECT_SHARE
) -> tuple[Catalog, ImportReport]:
    """Read items: item_id and title, optionally category and available, in any layout of `index.tables.layouts`.

    Titles lose control characters and surplus white space. A row is rejected when its id is empty, over-long or was
    seen before (the first is kept), its title is empty or over-long, its availability is neither true nor false, or it
    cannot be parsed. It goes to the rejects file; the rest counts.

    Args:
        path: the file.
        rejects_path: where rejected rows are written, with line and reason.
        max_reject_share: largest share of bad rows that is tolerated, in [0, 1].

    Raises:
        InputError: the file cannot be read, lacks a column, or too many rows are bad.
    """
    rejects = Rejects(path, rejects_path, max_share=max_reject_share)
    table = open_table(path, ITEM_LAYOUTS)
    items: dict[str, Item] = {}
    for line, values in table.rows(rejects):
        item_id, raw_title, category, available = values
        title = clean_title(raw_title)
        reason = _why_unusable(item_id, title, available.lower(), items)
        if reason:
            rejects.add(line, reason, values)
        else:
            items[item_id] = Item(item_id, title, category, _AVAILABLE[available.lower()])
    rows_read = len(items) + rejects.reasons.total()
    rejects.finish(rows_read, advice=advice_for(rejects))
    catalog = Catalog.from_items(items.values())
    return catalog, ImportReport(rows_read, len(items), rejects.reasons, _notes(table.layout.name, catalog))


def _why_unusable(item_id: str, title: str, available: str, seen: dict[str, Item]) -> str:
    if item_id in seen:
        return "item_id seen before"
    if available not in _AVAILABLE:
        return fault_of_id(item_id) or fault_of_title(title) or "available is neither true nor false"
    return fault_of_id(item_id) or fault_of_title(title)


def _notes(layout: str, catalog: Catalog) -> tuple[str, ...]:
    notes = [f"read as {layout}"]
    shared = len(catalog.items) - len(catalog)
    if shared:
        notes.append(f"items with the title of an earlier one: {shared:,}; they share its row of the index")
    if not any(item.category for item in catalog.items):
        notes.append("no item has a category")
    return tuple(notes)
