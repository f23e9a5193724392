"""A version of the index in memory: every byte checked, of this catalog and this encoder."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog, read_catalog
from index.catalog.changes import change_catalog
from index.catalog.journal import START, Journal, Position
from index.errors import CorruptArtifactError, MismatchError
from index.live.versions import CHANGES, build_command, check_version, read_active
from index.ranking.grounding import Grounder
from index.search.delta import DeltaSearch
from index.search.encoder import TitleEncoder
from index.search.flat import FlatIndex
from index.search.kind import SearchRequest, read_search


@dataclass(frozen=True)
class Snapshot:
    """One version, in memory and checked, perhaps with later changes laid over it. It never changes.

    Attributes:
        popularity: int64 [len(catalog)]; 0 for titles that were added since the catalog was imported.
        changes: where in the journal it stands.
        wish: which search its version was asked for.
        search: what the manifest says of the search that it got, see `build_search`.
    """

    version: str
    catalog: Catalog
    grounder: Grounder
    popularity: NDArray[np.int64]
    encoder_name: str
    changes: Position = START
    wish: SearchRequest = field(default_factory=SearchRequest)
    search: Mapping[str, Any] = field(default_factory=lambda: {"kind": "flat"})

    @property
    def label(self) -> str:
        """The version, and how many changes of the catalog it shows: 0001-3ded2c7c+12; without any, 0001-3ded2c7c."""
        return f"{self.version}+{self.changes.changes}" if self.changes.changes else self.version


def load_active(index_dir: Path, *, encoder: TitleEncoder, origin: Catalog | None = None) -> Snapshot:
    """Load the active version into memory.

    Args:
        index_dir: the workspace's `index/`.
        encoder: what will embed the generations.
        origin: the catalog that the caller works with, as it was imported: which items are available is then its to
            say, not that of the version's copy. None: whichever the index was built from.

    Raises:
        MissingArtifactError: no index was built.
        CorruptArtifactError: a byte changed since it was written.
        MismatchError: it was built with another encoder or from another catalog; both values are named.
    """
    version = read_active(index_dir)
    directory = index_dir / version
    manifest = check_version(index_dir, version)
    built = manifest.body["encoder"]
    again = f"build the index again with `{build_command(index_dir)}`"
    if built["fingerprint"] != encoder.fingerprint:
        raise MismatchError(
            f"{directory}: title encoder",
            expected=f"{built['name']} ({built['fingerprint'][:12]})",
            found=f"{encoder.name} ({encoder.fingerprint[:12]})",
            remedy=f"{again}, or use the encoder that it was built with",
        )
    catalog = origin or read_catalog(directory / "catalog.parquet")
    built_from = manifest.body["imported_digest"]
    if built_from != catalog.digest:
        raise MismatchError(f"{directory}: catalog", expected=built_from[:12], found=catalog.digest[:12], remedy=again)
    changes, position = Journal(directory / CHANGES, catalog.digest).read()
    if changes:
        catalog = change_catalog(catalog, changes).compacted()
    try:
        wish = SearchRequest(**manifest.body["asked_for"])
        popularity: NDArray[np.int64] = np.load(directory / "popularity.npy", allow_pickle=False)
        index = read_search(directory, manifest.body["search"])
        if catalog.empty_rows:
            index = DeltaSearch(index, empty=catalog.empty_rows)
        grounder = Grounder(catalog, index, encoder)
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifactError(directory, str(error), remedy=again) from error
    if popularity.shape != (len(catalog),):
        detail = f"popularity has shape {popularity.shape}, the catalog {len(catalog)} rows"
        raise CorruptArtifactError(directory, detail, remedy=again)
    search = manifest.body["search"]
    return Snapshot(version, catalog, grounder, popularity, built["name"], position, wish, search)


def load_origin(index_dir: Path, *, encoder: TitleEncoder, origin: Catalog) -> Snapshot:
    """Load the active version as far as it is of the catalog as it was imported: what metrics are measured over.

    Where the version covers later changes, the rows of `origin` are searched exactly, and its removed items are back.

    Raises:
        ArtifactError: see `load_active`.
    """
    loaded = load_active(index_dir, encoder=encoder, origin=origin)
    if loaded.catalog is origin:
        return loaded
    rows = np.arange(len(origin))
    index = FlatIndex.build(loaded.grounder.index.vectors(rows))
    popularity = loaded.popularity[: len(rows)]
    return Snapshot(loaded.version, origin, Grounder(origin, index, encoder), popularity, loaded.encoder_name)
