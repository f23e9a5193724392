"""`softrec index change`: change many items at once, with or without a server that runs."""

from __future__ import annotations

from pathlib import Path

from clients.tables import say
from index.catalog.catalog import read_catalog
from index.catalog.changes import change_catalog
from index.catalog.journal import Journal
from index.tables.changes_file import read_changes
from index.workspace import Workspace


def change_items(root: Path, path: Path, *, max_reject_share: float) -> int:
    """Append a file's changes to the journal, all of them or none. Returns how many changed something.

    Raises:
        InputError: the file cannot be read, or too much of it is bad; nothing is changed.
        ArtifactError: the catalog or its journal is missing or damaged.
    """
    workspace = Workspace.open(root)
    imported = read_catalog(workspace.catalog_path)
    journal = Journal(workspace.changes_path, imported.imported_at)
    rejects_path = workspace.rejects_dir / "changes.csv"
    with journal.locked() as append:
        earlier, end = journal.read()
        catalog = change_catalog(imported, earlier)
        changes, report = read_changes(path, catalog, rejects_path=rejects_path, max_reject_share=max_reject_share)
        catalog = change_catalog(catalog, changes)
        if changes:
            end = append(changes, end)
    say(f"changes: {report.rows_read} lines read from {path}, {len(changes)} change something")
    if report.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.rejected.most_common())
        say(f"  rejected: {reasons}; each with its line in {rejects_path}")
    for note in report.notes:
        say(f"  note: {note}")
    since = end.changes - imported.imported_at.changes
    say(
        f"catalog: {len(catalog.items)} items, {since} changes since it was imported",
        f"running servers take them up at their next request; softrec index {root} builds a version that covers them",
    )
    return len(changes)
