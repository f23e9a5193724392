"""`softrec init`: an interaction log and a catalog become a workspace."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Literal

from clients.errors import RefusedError
from clients.tables import say
from index.catalog.catalog import write_catalog
from index.catalog.journal import Journal
from index.tables.interactions import Interactions, has_only_order, read_interactions, write_interactions
from index.tables.items import read_items
from index.tables.rejects import ImportReport
from index.workspace import SETTINGS_FILE, ShopSettings, Split, Workspace


def init_shop(
    root: Path,
    *,
    items: Path,
    interactions: Path,
    noun: str | None = None,
    verb: str | None = None,
    split: Literal["auto"] | Split | None = None,
    encoder: str | None = None,
    max_reject_share: float = 0.01,
    force: bool = False,
) -> Workspace:
    """Import a catalog and a log, and write `softrec.toml` last: a workspace exists when all of it does.

    A setting that is None keeps the value of the workspace that is imported over, or else takes its default. The old
    `softrec.toml` stays until the new one replaces it in one rename.

    Args:
        root: the workspace's folder; made if absent. Other files in it stay.
        items: the catalog, in any layout that `index.tables.table` reads.
        interactions: the log, likewise.
        noun, verb, encoder: see `index.workspace.ShopSettings`.
        split: "auto" (the default) takes "leave-last-out" for a log whose timestamps only number interactions.
        max_reject_share: more bad rows than this share of a file and nothing is imported.
        force: import again over an existing workspace. The changes of its catalog are set aside. What was trained and
            indexed before stays, and is refused later by its manifest if the catalog has changed.

    Raises:
        RefusedError: there is a workspace already, and no `force`.
        InputError: a file cannot be read, or too much of it is bad.
    """
    before = Workspace.open(root).settings if (root / SETTINGS_FILE).exists() else None
    if before is not None and not force:
        raise RefusedError(
            f"{root} is a workspace already ({SETTINGS_FILE} exists)",
            remedy="choose another folder, or import again over it with --force",
        )
    kept = before or ShopSettings()
    settings = replace(kept, noun=noun or kept.noun, verb=verb or kept.verb, encoder=encoder or kept.encoder)
    workspace = Workspace(root, settings)
    rejects_dir = workspace.rejects_dir
    catalog, items_report = read_items(items, rejects_path=rejects_dir / "items.csv", max_reject_share=max_reject_share)
    log, log_report = read_interactions(
        interactions, catalog, rejects_path=rejects_dir / "interactions.csv", max_reject_share=max_reject_share
    )
    chosen, why = _choose_split(split, before, log)
    write_catalog(workspace.catalog_path, catalog)
    # after the catalog: killed in between, the old changes are refused by name and not made to the new catalog
    aside = Journal(workspace.changes_path, catalog.imported_at).set_aside()
    write_interactions(workspace.interactions_path, log)
    workspace = Workspace.create(root, replace(settings, split=chosen))

    _say_report("items", items, items_report, rejects_dir / "items.csv")
    _say_report("interactions", interactions, log_report, rejects_dir / "interactions.csv")
    say(
        f"catalog: {len(catalog.items)} items under {len(catalog)} distinct titles",
        f"log: {len(log)} interactions of {log.count_users()} users",
        *([f"changes of the old catalog: set aside in {aside}; nothing reads them any more"] if aside else []),
        f"split: {chosen} ({why})",
        f"workspace: {root} is ready; next: softrec base {root}",
    )
    return workspace


def _choose_split(
    split: Literal["auto"] | Split | None, before: ShopSettings | None, log: Interactions
) -> tuple[Split, str]:
    if split is None and before is not None:
        return before.split, "as before; --split auto chooses again"
    if split is not None and split != "auto":
        return split, "as asked"
    if has_only_order(log):
        return (
            "leave-last-out",
            "the timestamps only number each user's interactions, so users cannot be compared in time; "
            "if they can, --split time",
        )
    return "time", "the log has real timestamps: train on the past, measure on what came later"


def _say_report(what: str, path: Path, report: ImportReport, rejects_path: Path) -> None:
    say(f"{what}: {report.rows_read} rows read from {path}, {report.rows_kept} kept")
    if report.rejected:
        reasons = ", ".join(f"{count} {reason}" for reason, count in report.rejected.most_common())
        say(f"  rejected: {reasons}; each with its line in {rejects_path}")
    for note in report.notes:
        say(f"  note: {note}")
