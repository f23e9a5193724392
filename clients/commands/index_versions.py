"""`softrec index versions` and `rollback`: what is kept, and the way back."""

from __future__ import annotations

from pathlib import Path

from clients.errors import RefusedError
from clients.tables import say, show_table, write_json
from index.catalog.catalog import read_catalog
from index.catalog.journal import Journal
from index.errors import ArtifactError, MissingArtifactError
from index.live.versions import activate, check_version, covered_position, list_versions, read_active
from index.workspace import Workspace


def show_versions(root: Path, *, json_path: Path | None = None) -> None:
    """List the versions, oldest first, after checking every byte of each."""
    workspace = Workspace.open(root)
    versions = list_versions(workspace.index_dir)
    if not versions:
        raise MissingArtifactError("index", workspace.index_dir, command=f"softrec index {root}")
    active = read_active(workspace.index_dir)
    lines = [_describe(workspace.index_dir, version, active) for version in versions]
    show_table(lines, styles={"active": "green", "damaged": "bold red"})
    write_json(json_path, lines)


def roll_back(root: Path, version: str) -> None:
    """Make a version the active one; running servers take it up at their next request.

    Raises:
        RefusedError: there is no such version.
        ArtifactError: it is damaged, or of another catalog or journal.
    """
    workspace = Workspace.open(root)
    if version not in (there := list_versions(workspace.index_dir)):
        raise RefusedError(
            f"there is no index version {version}; there: {', '.join(there) or 'none'}",
            remedy=f"`softrec index versions {root}` says more of them",
        )
    imported = read_catalog(workspace.catalog_path)
    manifest = check_version(workspace.index_dir, version, imported=imported)
    later, _ = Journal(workspace.changes_path, imported.imported_at).read(covered_position(manifest))
    before = read_active(workspace.index_dir)
    activate(workspace.index_dir, version)
    say(
        f"index: version {version} of {manifest.created} is active, before it {before}",
        f"changes of the catalog since that version: {len(later)}; they stay in force. To undo one, put the old item "
        f"back: softrec index change {root} CHANGES.jsonl",
    )


def _describe(index_dir: Path, version: str, active: str) -> dict[str, object]:
    state = "active" if version == active else "kept"
    try:
        manifest = check_version(index_dir, version)
    except ArtifactError:
        return dict.fromkeys(_COLUMNS, None) | {"version": version, "state": "damaged"}
    body = manifest.body
    facts = (version, state, manifest.created, body["rows"], body["items"], body["changes"])
    return dict(zip(_COLUMNS, (*facts, body["encoder"]["name"]), strict=True))


_COLUMNS = ("version", "state", "created", "titles", "items", "changes", "encoder")
