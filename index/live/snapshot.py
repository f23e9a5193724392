"""The derived state of one moment of the catalog, and how to derive the next."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog, Position
from index.catalog.changes import Change, change_catalog
from index.catalog.journal import Journal
from index.catalog.slots import SlotArrays
from index.errors import CorruptArtifactError, MismatchError
from index.live.versions import build_command, check_version, covered_position, encode_titles, find_active
from index.ranking.grounding import Grounder
from index.ranking.ranking import Ranker
from index.search.delta import DeltaSearch
from index.search.encoder import TitleEncoder
from index.search.flat import FlatIndex
from index.search.kind import SearchRequest, read_search

T = TypeVar("T")


class Derivation(Protocol[T]):
    """Something made from a snapshot when it is first needed, and then from its value for an earlier snapshot."""

    def derive(self, snapshot: Snapshot, earlier: T | None) -> T:
        """Return the value for a snapshot.

        Args:
            earlier: the value for an earlier snapshot, perhaps of another version or import; None: there is none.
        """


@dataclass(frozen=True, eq=False)
class Snapshot:
    """One state of the catalog and all that is derived from it. It never changes; `advance` makes the next one.

    Attributes:
        version: the version on disk that it began with.
        imported: the catalog as it was imported.
        ranker: ranks the rows of the current catalog; it holds the catalog, the search and the encoder.
        encoder_name: from the version's manifest.
        position: the last change that it shows.
        search_request: the requested kind and recall floor.
        search: facts of the search that was built, from the manifest; see `build_search`.
    """

    version: str
    imported: Catalog
    ranker: Ranker
    encoder_name: str
    position: Position
    search_request: SearchRequest = field(default_factory=SearchRequest)
    search: Mapping[str, Any] = field(default_factory=lambda: {"kind": "flat"})
    _derived: dict[Derivation[Any], Any] = field(default_factory=dict, repr=False)
    _earlier: dict[Derivation[Any], Any] = field(default_factory=dict, repr=False)

    @property
    def catalog(self) -> Catalog:
        """The current catalog: the imported one with all changes up to `position`."""
        return self.ranker.grounder.catalog

    @property
    def grounder(self) -> Grounder:
        return self.ranker.grounder

    @property
    def popularity(self) -> NDArray[np.int64]:
        """int64 [len(catalog)]; 0 for titles that were added since the import."""
        return self.ranker.popularity

    @property
    def slots(self) -> SlotArrays:
        """The item fields that filters test."""
        return self.get(_SLOTS)

    @property
    def label(self) -> str:
        """The version, and how many changes of the catalog it shows: 0001-3ded2c7c+12; without any, 0001-3ded2c7c."""
        changes = self.position.changes
        return f"{self.version}+{changes}" if changes else self.version

    def get(self, derivation: Derivation[T]) -> T:
        """Return a derived value. The first call makes it, and raises what making it raises."""
        if derivation not in self._derived:
            self._derived[derivation] = derivation.derive(self, self._earlier.get(derivation))
            self._earlier.pop(derivation, None)  # it may hold files
        value: T = self._derived[derivation]
        return value

    def advance(self, changes: Sequence[Change], position: Position) -> Snapshot:
        """Return the snapshot after some changes. New titles are embedded; all else costs as much as the changes.

        Args:
            changes: those between this snapshot's position and `position`.

        Raises:
            UnknownItemError: one patches or removes an item that does not exist.
        """
        if not changes:
            return self if position == self.position else replace(self, position=position)
        catalog = change_catalog(self.catalog, changes)
        search = self.grounder.index
        new = catalog.titles[len(search) :]
        if new or catalog.empty_rows != self.catalog.empty_rows:
            delta = search if isinstance(search, DeltaSearch) else DeltaSearch(search)
            search = delta.extended(encode_titles(new, self.grounder.encoder), catalog.empty_rows)
        ranker = self.ranker.advance(self.grounder.advance(catalog, search))
        return replace(self, ranker=ranker, position=position)._inheriting(self)

    def succeed(self, earlier: Snapshot) -> Snapshot:
        """Return this snapshot, just loaded, with the values that an earlier one has derived."""
        grounder = earlier.grounder.advance(self.catalog, self.grounder.index)
        return replace(self, ranker=self.ranker.advance(grounder))._inheriting(earlier)

    def _inheriting(self, earlier: Snapshot) -> Snapshot:
        return replace(self, _derived={}, _earlier={**earlier._earlier, **earlier._derived})


class _Slots:
    def derive(self, snapshot: Snapshot, earlier: SlotArrays | None) -> SlotArrays:
        return SlotArrays.of(snapshot.catalog) if earlier is None else earlier.advance(snapshot.catalog)


_SLOTS: Derivation[SlotArrays] = _Slots()


def load_active(index_dir: Path, imported: Catalog, journal: Journal, *, encoder: TitleEncoder) -> Snapshot:
    """Load the active version into memory.

    Args:
        index_dir: the workspace's `index/`.
        imported: the catalog as it was imported; it says which items are available.
        journal: its changes; those that the version covers are shown, and no later ones.
        encoder: embeds the titles that the model writes.

    Raises:
        MissingArtifactError: no index was built.
        CorruptArtifactError: a byte changed since it was written.
        MismatchError: it was built with another encoder, from another catalog or from changes that the journal lacks.
    """
    version = find_active(index_dir, imported)
    directory = index_dir / version
    manifest = check_version(index_dir, version, imported=imported)
    built = manifest.body["encoder"]
    again = f"build the index again with `{build_command(index_dir)}`"
    if built["fingerprint"] != encoder.fingerprint:
        raise MismatchError(
            f"{directory}: title encoder",
            expected=f"{built['name']} ({built['fingerprint'][:12]})",
            found=f"{encoder.name} ({encoder.fingerprint[:12]})",
            remedy=f"{again}, or use the encoder that it was built with",
        )
    position = covered_position(manifest)
    changes, _ = journal.read(until=position)
    catalog = change_catalog(imported, changes).compacted() if changes else imported
    try:
        search_request = SearchRequest(**manifest.body["asked_for"])
        popularity: NDArray[np.int64] = np.load(directory / "popularity.npy", allow_pickle=False)
        search = read_search(directory, manifest.body["search"])
        grounder = Grounder(
            catalog, DeltaSearch(search, empty=catalog.empty_rows) if catalog.empty_rows else search, encoder
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifactError(directory, str(error), remedy=again) from error
    if popularity.shape != (len(catalog),):
        detail = f"popularity has shape {popularity.shape}, the catalog {len(catalog)} rows"
        raise CorruptArtifactError(directory, detail, remedy=again)
    ranker = Ranker(grounder, popularity)
    return Snapshot(version, imported, ranker, built["name"], position, search_request, manifest.body["search"])


def load_imported(index_dir: Path, imported: Catalog, journal: Journal, *, encoder: TitleEncoder) -> Snapshot:
    """Load the active version's part for the imported catalog, which training and evaluation work with.

    If the version covers later changes, the imported rows are searched exactly, and removed items are back.

    Raises:
        ArtifactError: see `load_active`.
    """
    loaded = load_active(index_dir, imported, journal, encoder=encoder)
    if loaded.catalog is imported:
        return loaded
    rows = np.arange(len(imported))
    grounder = Grounder(imported, FlatIndex.build(loaded.grounder.index.vectors(rows)), encoder)
    ranker = Ranker(grounder, loaded.popularity[: len(rows)])
    return Snapshot(loaded.version, imported, ranker, loaded.encoder_name, imported.imported_at)
