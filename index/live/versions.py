"""Versions of the index on disk, and which one is in use; `index.live.snapshot` brings one into memory.

    index/
      0001-1f0c9b2e/   manifest.json vectors.faiss [search.faiss] popularity.npy
      0002-77aa01d3/   ...
      active           the name of the version in use

A version is an artifact: whole or absent, and never changed. `active` is swapped in one rename, so a reader finds the
old version or the new one; it loads everything into memory and holds no file open, so old versions can go.

A version covers the imported catalog and the changes up to a position in the journal; row r of `vectors.faiss` is row r
of the two together. `index.live.live` lays later changes over it.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.artifact import MANIFEST, Manifest, read_manifest, text_digest, write_artifact, write_file
from index.catalog.catalog import Catalog, Position
from index.catalog.changes import change_catalog
from index.catalog.journal import Journal
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError
from index.file_lock import file_lock
from index.search.encoder import TitleEncoder
from index.search.kind import RECALL_FLOOR, SearchKind, SearchRequest, build_search, write_search

ACTIVE = "active"
LOCK = ".lock"

_VERSION = re.compile(r"(\d{4,})-[0-9a-f]{8}")
_ENCODE_BATCH = 2048  # titles between two reports of progress


def build_index(
    index_dir: Path,
    catalog: Catalog,
    encoder: TitleEncoder,
    popularity: NDArray[np.int64],
    *,
    journal: Journal | None = None,
    keep: int = 3,
    kind: SearchKind = "auto",
    recall_floor: float = RECALL_FLOOR,
    advance: Callable[[int], None] = lambda titles: None,
) -> str:
    """Embed the catalog's titles, write them as a new version and make it the active one.

    Args:
        index_dir: the workspace's `index/`.
        catalog: the imported one; row r becomes row r of the index.
        encoder: the same one must be given to `index.live.snapshot.load_active`.
        popularity: int64 [len(catalog)], see `count_popularity`.
        journal: the catalog's changes so far; the version covers them. None: none.
        keep: how many versions to keep, the new one included; older ones are removed.
        kind, recall_floor: which search, see `build_search`.
        advance: called with the number of titles embedded since its last call.

    Returns:
        The new version's name. Killed before the end, the version that was active still is.

    Raises:
        ValueError: popularity does not fit the catalog, keep < 1, or the recall floor is not in (0, 1].
        ArtifactError: the journal is damaged, or another catalog's.
    """
    if popularity.shape != (len(catalog),):
        raise ValueError(f"popularity must be [{len(catalog)}], got shape {popularity.shape}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    request = SearchRequest(kind, recall_floor)
    changes, end = ([], catalog.imported_at) if journal is None else journal.read()
    current = change_catalog(catalog, changes)
    vectors = encode_titles(current.titles, encoder, advance)
    version = write_version(index_dir, current, end, encoder, vectors, popularity, request=request, keep=keep)
    assert version is not None  # without `successor_of` it always replaces the active one
    return version


def write_version(
    index_dir: Path,
    catalog: Catalog,
    position: Position,
    encoder: TitleEncoder,
    vectors: NDArray[np.float32],
    popularity: NDArray[np.int64],
    *,
    request: SearchRequest,
    keep: int,
    successor_of: str | None = None,
    before_use: Callable[[], None] = lambda: None,
) -> str | None:
    """Write a version and make it the active one; one process at a time.

    Args:
        catalog: the imported one with the changes up to `position`.
        vectors: float32 [len(catalog), dimension].
        popularity: int64 [n], n <= len(catalog); rows beyond were never chosen.
        successor_of: the version that must still be the active one; None: any.
        before_use: called when the version is on disk and not yet active.

    Returns:
        The version's name; None: another one was made active while the search was built, so nothing was written.
    """
    search, facts = build_search(vectors, request)
    popularity = np.pad(popularity, (0, len(catalog) - len(popularity)))
    with file_lock(index_dir / LOCK):
        if successor_of is not None and find_active(index_dir, catalog) != successor_of:
            return None
        identity = text_digest(catalog.digest, encoder.fingerprint)[:8]
        earlier = [int(match[1]) for match in map(_VERSION.fullmatch, _names(index_dir)) if match]
        version = f"{max(earlier, default=0) + 1:04d}-{identity}"
        with write_artifact(index_dir / version, kind="index") as draft:
            write_search(draft.path, search)
            np.save(draft.path / "popularity.npy", popularity.astype(np.int64))
            draft.body.update(
                imported=_import_of(catalog),
                changes=position.changes,
                chain=position.chain,
                rows=len(catalog),
                items=len(catalog.items),
                search=facts,
                asked_for=asdict(request),
                encoder={"name": encoder.name, "fingerprint": encoder.fingerprint, "dimension": encoder.dimension},
            )
        before_use()
        replaced = _point_to(index_dir, version)
        # the version that was in use goes last: after a rollback it is older than the bad one that was left
        for old in sorted(list_versions(index_dir), key=lambda name: (name == version, name == replaced))[:-keep]:
            shutil.rmtree(index_dir / old)
    return version


def list_versions(index_dir: Path) -> list[str]:
    """Return the complete versions, oldest first."""
    versions = [name for name in _names(index_dir) if _VERSION.fullmatch(name)]
    return sorted(
        (name for name in versions if (index_dir / name / MANIFEST).is_file()),
        key=lambda name: int(name.partition("-")[0]),
    )


def activate(index_dir: Path, version: str) -> None:
    """Make a version the active one, perhaps an older one.

    Raises:
        MissingArtifactError: there is no such version.
    """
    with file_lock(index_dir / LOCK):  # a writer may be about to remove it
        if version not in list_versions(index_dir):
            raise MissingArtifactError("index version", index_dir / version, command=build_command(index_dir))
        _point_to(index_dir, version)


def check_version(index_dir: Path, version: str, *, imported: Catalog | None = None) -> Manifest:
    """Check every byte of a version and return its manifest.

    Args:
        imported: the catalog that it must be of; None: any.

    Raises:
        ArtifactError: there is no such version, it is damaged, or it is of another imported catalog.
    """
    if version not in list_versions(index_dir):
        raise MissingArtifactError("index version", index_dir / version, command=build_command(index_dir))
    manifest = read_manifest(index_dir / version, kind="index", command=build_command(index_dir))
    if imported is not None and (found := str(manifest.body.get("imported"))) != _import_of(imported):
        raise MismatchError(
            f"{index_dir / version}: catalog",
            expected=_import_of(imported),
            found=found,
            remedy=f"build the index again with `{build_command(index_dir)}`",
        )
    return manifest


def covered_position(manifest: Manifest) -> Position:
    """Return where in the journal a version stands."""
    return Position(manifest.body["changes"], manifest.body["chain"])


def read_encoder_name(index_dir: Path) -> str:
    """Return the name of the encoder that the active version was built with, for `open_encoder`."""
    return str(check_version(index_dir, read_active(index_dir)).body["encoder"]["name"])


def read_active(index_dir: Path) -> str:
    """Return the name of the version in use.

    Raises:
        MissingArtifactError: no index was built.
        CorruptArtifactError: `active` names no version.
    """
    path = index_dir / ACTIVE
    if not path.is_file():
        raise MissingArtifactError("index", index_dir, command=build_command(index_dir))
    version = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _VERSION.fullmatch(version):
        detail = f"names no version of the index: {version[:40]!r}"
        raise CorruptArtifactError(path, detail, remedy=f"build the index again with `{build_command(index_dir)}`")
    return version


def find_active(index_dir: Path, catalog: Catalog) -> str:
    """Return the version in use for a catalog, imported or current.

    It is the active one. If that is of another import, it is the newest of this one: a rebase was killed between the
    replacement of the catalog and the activation of its version.

    Raises:
        ArtifactError: see `read_active`.
    """
    active = read_active(index_dir)
    if _read_imported(index_dir / active) in (_import_of(catalog), None):
        return active
    fitting = [name for name in list_versions(index_dir) if _read_imported(index_dir / name) == _import_of(catalog)]
    return fitting[-1] if fitting else active


def encode_titles(
    titles: Sequence[str], encoder: TitleEncoder, advance: Callable[[int], None] = lambda titles: None
) -> NDArray[np.float32]:
    """Embed titles, float32 [len(titles), dimension], row by row; `advance` receives their number by batches.

    They are encoded in the order of their lengths: in a batch with long titles, short ones cost as much as the long.
    """
    vectors = np.empty((len(titles), encoder.dimension), dtype=np.float32)
    order = sorted(range(len(titles)), key=lambda row: len(titles[row]))
    for start in range(0, len(order), _ENCODE_BATCH):
        rows = order[start : start + _ENCODE_BATCH]
        vectors[rows] = encoder.encode([titles[row] for row in rows])
        advance(len(rows))
    return vectors


def build_command(index_dir: Path) -> str:
    """Return the command that builds the index again."""
    return f"softrec index {index_dir.parent}"


def _point_to(index_dir: Path, version: str) -> str:
    """Make a version the active one; return what `active` said before."""
    path = index_dir / ACTIVE
    before = path.read_text(encoding="utf-8", errors="replace").strip() if path.is_file() else ""
    write_file(path, f"{version}\n".encode())
    return before


def _import_of(catalog: Catalog) -> str:
    """Which import a catalog is of: how many changes it covered, and its digest; availability does not count."""
    return f"{catalog.imported_at.changes}-{catalog.imported_digest[:12]}"


def _read_imported(directory: Path) -> str | None:
    """Return which imported catalog a version is of, unchecked; None: its manifest does not say."""
    try:
        return str(json.loads((directory / MANIFEST).read_bytes())["body"]["imported"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _names(index_dir: Path) -> list[str]:
    return [path.name for path in index_dir.iterdir()] if index_dir.is_dir() else []
