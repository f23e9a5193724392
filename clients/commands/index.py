"""`softrec index`: embed the catalog's titles and make them searchable."""

from __future__ import annotations

from pathlib import Path

from clients.progress import open_progress
from clients.tables import say
from index.artifact import read_manifest
from index.catalog.catalog import read_catalog
from index.catalog.changes import change_catalog
from index.catalog.journal import Journal
from index.catalog.popularity import count_popularity
from index.errors import MismatchError, MissingArtifactError
from index.live.snapshot import Snapshot, load_imported
from index.live.versions import build_index
from index.search.encoder import TitleEncoder, open_encoder
from index.search.kind import RECALL_FLOOR, SearchKind, describe_search
from index.tables.interactions import load_interactions
from index.workspace import Workspace
from training.base_model import locate_base
from training.progress import Progress


def index_shop(root: Path, *, keep: int, kind: SearchKind = "auto", recall_floor: float = RECALL_FLOOR) -> str:
    """Build a version of the index from the catalog, its changes and the log, and make it the active one.

    Returns its name.
    """
    workspace = Workspace.open(root)
    encoder = open_shop_encoder(workspace)
    version = _build(workspace, encoder, keep=keep, kind=kind, recall_floor=recall_floor, progress=open_progress())
    search = read_manifest(workspace.index_dir / version, kind="index", command=f"softrec index {root}").body["search"]
    say(f"index: version {version} is active; search: {describe_search(search)}")
    return version


def open_index(workspace: Workspace, progress: Progress) -> Snapshot:
    """Load the active index of the imported catalog, which adapters are trained and measured on.

    Builds it first, and says so, if there is none or it was built for something else.
    """
    encoder = open_shop_encoder(workspace)
    imported = read_catalog(workspace.catalog_path)
    journal = Journal(workspace.changes_path, imported.imported_at)
    try:
        return load_imported(workspace.index_dir, imported, journal, encoder=encoder)
    except (MissingArtifactError, MismatchError) as error:
        progress.note(f"building the index first: {error}")
    _build(workspace, encoder, keep=3, progress=progress)
    return load_imported(workspace.index_dir, imported, journal, encoder=encoder)


def open_shop_encoder(workspace: Workspace) -> TitleEncoder:
    """Open the encoder that `softrec.toml` names."""
    name = workspace.settings.encoder
    return open_encoder(name, base_dir=locate_base(workspace).path if name == "base" else None)


def _build(
    workspace: Workspace,
    encoder: TitleEncoder,
    *,
    keep: int,
    progress: Progress,
    kind: SearchKind = "auto",
    recall_floor: float = RECALL_FLOOR,
) -> str:
    catalog = read_catalog(workspace.catalog_path)
    log = load_interactions(workspace.interactions_path, catalog)
    popularity = count_popularity(catalog, log.item_ids)
    journal = Journal(workspace.changes_path, catalog.imported_at)
    titles = len(change_catalog(catalog, journal.read()[0]))
    with progress.step(f"index ({encoder.name})", titles) as advance:
        return build_index(
            workspace.index_dir,
            catalog,
            encoder,
            popularity,
            journal=journal,
            keep=keep,
            kind=kind,
            recall_floor=recall_floor,
            advance=advance,
        )
