"""Read a user's file of catalog changes: JSON lines, each a `PUT`, `PATCH` or `DELETE` of one item."""

from __future__ import annotations

import json
from pathlib import Path

from index.catalog.catalog import Catalog, Item
from index.catalog.changes import Change, parse_change
from index.errors import InputError, Problem, UnknownItemError
from index.tables.rejects import MAX_REJECT_SHARE, ImportReport, Rejects


def read_changes(
    path: Path, catalog: Catalog, *, rejects_path: Path, max_reject_share: float = MAX_REJECT_SHARE
) -> tuple[list[Change], ImportReport]:
    """Read changes: op ("put", "patch", "remove"), item_id and, as the op takes them, title, category, available.

    A line is rejected when it is not a JSON object, when a field is missing, unknown or not allowed, or when it patches
    or removes an item that the catalog does not hold at that line. It goes to the rejects file; the rest counts.

    Args:
        path: the file.
        catalog: the current one, before the changes.
        rejects_path: where rejected lines are written, with line and reason.
        max_reject_share: largest share of bad lines that is tolerated, in [0, 1].

    Returns:
        The changes that change something, in order, and how many lines were kept and rejected. A line that repeats what
        the catalog holds counts as kept, but gives no change.

    Raises:
        InputError: the file cannot be read, or too many lines are bad.
    """
    if not path.is_file():
        raise InputError(path, [Problem(None, "no such file")], remedy="name a file of JSON lines")
    rejects = Rejects(path, rejects_path, max_share=max_reject_share)
    now: dict[str, Item | None] = {}
    changes: list[Change] = []
    kept = 0
    with path.open("rb") as file:
        for line, data in enumerate(file, start=1):
            if not data.strip():
                continue
            try:
                change = _parse(data)
                before = now[change.item_id] if change.item_id in now else catalog.find_item(change.item_id)
                after = change.apply_to(before)
            except UnknownItemError:
                rejects.add(line, "unknown item_id", [_text(data)])
            except ValueError as error:
                rejects.add(line, str(error), [_text(data)])
            else:
                kept += 1
                now[change.item_id] = after
                if after != before:
                    changes.append(change)
    rejects.finish(kept + rejects.reasons.total())
    unchanged = kept - len(changes)
    notes = (f"lines that the catalog says already: {unchanged:,}",) if unchanged else ()
    return changes, ImportReport(kept + rejects.reasons.total(), kept, rejects.reasons, notes)


def _parse(data: bytes) -> Change:
    try:
        fields = json.loads(data)
    except (ValueError, RecursionError):
        raise ValueError("not valid JSON") from None
    if not isinstance(fields, dict):
        raise ValueError("not a JSON object")
    return parse_change(fields)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogateescape").rstrip("\r\n")
