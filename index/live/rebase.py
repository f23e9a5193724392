"""Fold the changes of a catalog into a new imported catalog: training sees today's items, the journal is short again.

The step that counts is one rename, of `catalog.parquet`: the new file says which changes it covers, and readers start
from there in the journal. Changes made meanwhile are behind that position and stay. If the process is killed before the
rename, nothing has happened, except that an unused version of the index exists. If it is killed after the rename,
`find_active` takes that version, and the next rebase does the rest: it points `active` at the version and removes the
covered changes from the journal.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from contextlib import ExitStack
from dataclasses import dataclass, replace

import numpy as np

from index.catalog.catalog import Catalog, Item, read_catalog, write_catalog
from index.catalog.changes import Change
from index.catalog.journal import Journal
from index.catalog.popularity import count_popularity
from index.errors import MismatchError, SoftrecError
from index.file_lock import file_lock
from index.live.live import MERGE_LOCK
from index.live.snapshot import Snapshot, load_active
from index.live.versions import activate, encode_titles, find_active, read_active, write_version
from index.search.encoder import TitleEncoder
from index.search.search import Vectors
from index.tables.interactions import load_interactions
from index.workspace import Workspace


@dataclass(frozen=True)
class Rebase:
    """What a rebase did.

    Attributes:
        catalog: the new imported catalog.
        folded: how many changes it covers that the one before did not.
        hidden: ids of removed items that the interactions name: they stay in the catalog, hidden.
        version: of the index, in use.
    """

    catalog: Catalog
    folded: int
    hidden: tuple[str, ...]
    version: str


def rebase_catalog(workspace: Workspace, encoder: TitleEncoder, *, keep: int = 3) -> Rebase:
    """Replace the imported catalog by the current one and give the index a version of it.

    Only titles that the active version does not hold are embedded. With no changes to fold, the index and the journal
    are brought in order after a rebase that was killed, and nothing else happens.

    Args:
        encoder: the one that the active version was built with.
        keep: how many versions of the index to keep, the new one included.

    Raises:
        SoftrecError: another process merges or rebases.
        ArtifactError: the catalog, the journal, the log or the index is missing, damaged or another's.
        TimeoutError: others hold the journal for 10 s.
    """
    with ExitStack() as stack:
        try:
            stack.enter_context(file_lock(workspace.index_dir / MERGE_LOCK, timeout_s=0))
        except TimeoutError:
            raise SoftrecError(
                f"{workspace.index_dir}: a server merges, or another rebase runs",
                remedy="run it again when that is done",
            ) from None
        return _rebase(workspace, encoder, keep)


def _rebase(workspace: Workspace, encoder: TitleEncoder, keep: int) -> Rebase:
    index_dir, path = workspace.index_dir, workspace.catalog_path
    imported = read_catalog(path)
    journal = Journal(workspace.changes_path, imported.imported_at)
    changes, end = journal.read()
    if not changes:
        in_use = find_active(index_dir, imported)
        if in_use != read_active(index_dir):
            activate(index_dir, in_use)
        journal.forget(end)
        return Rebase(imported, 0, (), in_use)
    log = load_interactions(workspace.interactions_path, imported)
    items, hidden = fold(imported, changes, keep_removed=set(log.item_ids))
    digests = (*imported.earlier_digests, imported.digest)
    catalog = Catalog.from_items(items, imported_at=end, earlier_digests=digests)
    active = load_active(index_dir, imported, journal, encoder=encoder)
    vectors = _vectors_of(catalog, active)

    def replace_catalog() -> None:
        if read_catalog(path).digest != imported.digest:
            raise MismatchError(
                f"{path}: replaced during the rebase",
                expected=imported.digest[:12],
                found=read_catalog(path).digest[:12],
                remedy="run it again",
            )
        write_catalog(path, catalog)

    version = write_version(
        index_dir,
        catalog,
        end,
        encoder,
        vectors,
        count_popularity(catalog, log.item_ids),
        request=active.search_request,
        keep=keep,
        before_use=replace_catalog,
    )
    assert version is not None  # without `successor_of` it always replaces the active one
    journal.forget(end)
    return Rebase(catalog, len(changes), tuple(hidden), version)


def fold(
    imported: Catalog, changes: Iterable[Change], *, keep_removed: Collection[str]
) -> tuple[list[Item], list[str]]:
    """Return the items after some changes, in the order in which their ids first appeared.

    Args:
        keep_removed: ids that must stay in the catalog; such an item, if removed, stays as it was and hidden.

    Returns:
        The items, and the ids of those that were removed and stay.
    """
    items = {item.item_id: item for item in imported.items}
    removed: set[str] = set()
    for change in changes:
        before = None if change.item_id in removed else items.get(change.item_id)
        after = change.apply_to(before)
        if after is None:
            removed.add(change.item_id)
        else:
            removed.discard(change.item_id)
            items[change.item_id] = after
    for item_id in removed.intersection(keep_removed):
        items[item_id] = replace(items[item_id], available=False)
    kept = [item for item in items.values() if item.item_id not in removed or item.item_id in keep_removed]
    return kept, [item.item_id for item in kept if item.item_id in removed]


def _vectors_of(catalog: Catalog, active: Snapshot) -> Vectors:
    """Copy the vectors of titles that the active version holds, embed the others: [len(catalog), dimension]."""
    rows = {title: row for row, title in enumerate(active.catalog.titles)}
    known = np.array([rows.get(title, -1) for title in catalog.titles], dtype=np.int64)
    vectors = np.empty((len(catalog), active.grounder.encoder.dimension), dtype=np.float32)
    vectors[known >= 0] = active.grounder.index.vectors(known[known >= 0])
    others = np.flatnonzero(known < 0)
    vectors[others] = encode_titles([catalog.titles[row] for row in others], active.grounder.encoder)
    return vectors
