"""`softrec index doctor`: does the index find what it holds, and is it this shop's?"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from clients.tables import say, show_table, write_json
from index.catalog.catalog import Catalog, read_catalog
from index.catalog.journal import Journal
from index.errors import MissingArtifactError, SoftrecError
from index.live.inspection import Check, inspect_index
from index.live.live import LiveIndex
from index.live.versions import read_encoder_name
from index.search.encoder import open_encoder
from index.search.kind import describe_search
from index.workspace import Workspace
from training.base_model import locate_base

STYLES = {"ok": "green", "notice": "yellow", "wrong": "bold red"}


def examine_index(root: Path, *, json_path: Path | None = None) -> bool:
    """Look at the active version with the changes laid over it; print and write what was found.

    Returns:
        Whether nothing is wrong; a notice is not wrong.
    """
    workspace = Workspace.open(root)
    checks = [*_examine(workspace, f"softrec index {shlex.quote(str(root))}")]
    lines = [asdict(check) for check in checks]
    show_table(lines, styles=STYLES)
    write_json(json_path, lines)
    wrong = [check for check in checks if check.verdict == "wrong"]
    say(f"{len(wrong)} of {len(checks)} are wrong" if wrong else f"nothing of {len(checks)} is wrong")
    return not wrong


def _examine(workspace: Workspace, rebuild: str) -> list[Check]:
    """What does not open is named, and so is what can still be looked at without it."""
    catalog: list[Catalog] = []

    def read() -> str:
        catalog.append(read_catalog(workspace.catalog_path))
        return f"{len(catalog[0].items)} items under {len(catalog[0])} titles, as imported"

    checks = [_look("catalog", read)]
    if catalog:
        checks.append(_look("journal", lambda: _describe_journal(workspace, catalog[0])))
    opened: list[LiveIndex] = []

    def open_index() -> str:
        name = read_encoder_name(workspace.index_dir)
        if name != workspace.settings.encoder:
            raise SoftrecError(
                f"the index was built with the encoder {name}, softrec.toml says {workspace.settings.encoder}",
                remedy=f"build it again: `{rebuild}`, or set the encoder back",
            )
        encoder = open_encoder(name, base_dir=locate_base(workspace).path if name == "base" else None)
        opened.append(LiveIndex(workspace, encoder, merge_at=0))
        snapshot = opened[0].snapshot
        search = describe_search(snapshot.search)
        return f"version {snapshot.label}; every byte is as written; catalog and encoder match; search: {search}"

    checks.append(_look("version", open_index))
    for live in opened:
        checks += inspect_index(live.snapshot, pending=live.pending, rebuild=rebuild)
        live.close()
    return checks


def _describe_journal(workspace: Workspace, catalog: Catalog) -> str:
    _, end = Journal(workspace.changes_path, catalog.imported_at).read()
    return f"{end.changes - catalog.imported_at.changes} changes, each as written"


def _look(what: str, describe: Callable[[], str]) -> Check:
    try:
        return Check(what, "ok", describe())
    except SoftrecError as error:
        remedy = error.remedy or ""
        missing = isinstance(error, MissingArtifactError)
        return Check(what, "wrong", f"{'missing: ' if missing else ''}{str(error).removesuffix(f'; {remedy}')}", remedy)
