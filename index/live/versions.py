"""Versions of the index on disk, and which one is in use; `index.live.snapshot` brings one into memory.

    index/
      0001-1f0c9b2e/   manifest.json vectors.faiss [search.faiss] catalog.parquet popularity.npy [changes.jsonl]
      0002-77aa01d3/   ...
      active           the name of the version in use

A version is an artifact: whole or absent, and never changed. `active` is swapped in one rename, so a reader finds the
old version or the new one; it loads everything into memory and holds no file open, so old versions can go.

A version holds the catalog as it was imported and the changes that it covers; row r of `vectors.faiss` is row r of the
two together. Later changes are laid over it by `index.live.live`.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.artifact import MANIFEST, Manifest, read_manifest, text_digest, write_artifact, write_file
from index.catalog.catalog import Catalog, write_catalog
from index.catalog.changes import change_catalog
from index.catalog.journal import START, Journal, Position
from index.errors import CorruptArtifactError, MissingArtifactError
from index.file_lock import file_lock
from index.search.encoder import TitleEncoder
from index.search.kind import RECALL_FLOOR, SearchKind, SearchRequest, build_search, write_search

ACTIVE = "active"
LOCK = ".lock"
CHANGES = "changes.jsonl"  # in a version: those that it covers

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
        catalog: as it was imported; row r becomes row r of the index.
        encoder: the same one must be given to `index.live.snapshot.load_active`.
        popularity: int64 [len(catalog)], see `count_popularity`.
        journal: the catalog's changes so far; the version covers them. None: there are none.
        keep: how many versions to keep, the new one included; older ones are removed.
        kind, recall_floor: which search, see `build_search`.
        advance: told how many titles were embedded since it was last told.

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
    wish = SearchRequest(kind, recall_floor)
    live, copied = catalog, (b"", START)
    if journal is not None:
        changes, end = journal.read()
        live, copied = change_catalog(catalog, changes), (journal.copy(end), end)
    vectors = encode_titles(live.titles, encoder, advance)
    version = write_version(
        index_dir, catalog, live, encoder, vectors, popularity, wish=wish, changes=copied, keep=keep
    )
    assert version is not None  # it takes the place of whichever is active
    return version


def write_version(
    index_dir: Path,
    origin: Catalog,
    live: Catalog,
    encoder: TitleEncoder,
    vectors: NDArray[np.float32],
    popularity: NDArray[np.int64],
    *,
    wish: SearchRequest,
    changes: tuple[bytes, Position],
    keep: int,
    successor_of: str | None = None,
) -> str | None:
    """Write a version and make it the active one; one process at a time.

    Args:
        origin, live: the catalog as imported, and after the changes.
        vectors: float32 [len(live), dimension].
        popularity: int64 [n], n <= len(live); rows beyond were never chosen.
        changes: the journal up to a position, and the position.
        successor_of: the version that must still be the active one; None: whichever is.

    Returns:
        The version's name; None: another one was made active while the search was built, so nothing was written.
    """
    search, facts = build_search(vectors, wish)
    popularity = pad(popularity, len(live))
    copied, end = changes
    with file_lock(index_dir / LOCK):
        if successor_of is not None and read_active(index_dir) != successor_of:
            return None
        identity = text_digest(live.digest, encoder.fingerprint)[:8]
        earlier = [int(match[1]) for match in map(_VERSION.fullmatch, _names(index_dir)) if match]
        version = f"{max(earlier, default=0) + 1:04d}-{identity}"
        with write_artifact(index_dir / version, kind="index") as draft:
            write_search(draft.path, search)
            write_catalog(draft.path / "catalog.parquet", origin)
            np.save(draft.path / "popularity.npy", popularity.astype(np.int64))
            if end.changes:
                write_file(draft.path / CHANGES, copied)
            draft.body.update(
                catalog_digest=live.digest,
                imported_digest=origin.digest,
                changes=end.changes,
                rows=len(live),
                items=len(live.items),
                search=facts,
                asked_for=asdict(wish),
                encoder={"name": encoder.name, "fingerprint": encoder.fingerprint, "dimension": encoder.dimension},
            )
        _point_to(index_dir, version)
        for old in list_versions(index_dir)[:-keep]:
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
    """Make a version the one in use; also the way back to an older one.

    Raises:
        MissingArtifactError: there is no such version.
    """
    with file_lock(index_dir / LOCK):  # a writer may be about to remove it
        if version not in list_versions(index_dir):
            raise MissingArtifactError("index version", index_dir / version, command=build_command(index_dir))
        _point_to(index_dir, version)


def check_version(index_dir: Path, version: str) -> Manifest:
    """Check every byte of a version and return its manifest.

    Raises:
        ArtifactError: there is no such version, or it is damaged.
    """
    if version not in list_versions(index_dir):
        raise MissingArtifactError("index version", index_dir / version, command=build_command(index_dir))
    return read_manifest(index_dir / version, kind="index", command=build_command(index_dir))


def covered_changes(index_dir: Path, version: str, imported_digest: str) -> Position:
    """Return where in the journal a version stands.

    Raises:
        ArtifactError: its copy of the journal is damaged or of another catalog.
    """
    return Journal(index_dir / version / CHANGES, imported_digest).read()[1]


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


def encode_titles(
    titles: Sequence[str], encoder: TitleEncoder, advance: Callable[[int], None] = lambda titles: None
) -> NDArray[np.float32]:
    """Embed titles, float32 [len(titles), dimension], row by row as given; told by `advance` as they are done.

    They are encoded in the order of their lengths: short and long ones in one batch would cost as much as long ones.
    """
    vectors = np.empty((len(titles), encoder.dimension), dtype=np.float32)
    order = sorted(range(len(titles)), key=lambda row: len(titles[row]))
    for start in range(0, len(order), _ENCODE_BATCH):
        rows = order[start : start + _ENCODE_BATCH]
        vectors[rows] = encoder.encode([titles[row] for row in rows])
        advance(len(rows))
    return vectors


def pad(popularity: NDArray[np.int64], rows: int) -> NDArray[np.int64]:
    """Return the counts of `rows` rows, 0 where there were none: int64 [rows]."""
    return np.concatenate([popularity, np.zeros(rows - len(popularity), dtype=np.int64)])


def build_command(index_dir: Path) -> str:
    """The command that builds an index anew."""
    return f"softrec index {index_dir.parent}"


def _point_to(index_dir: Path, version: str) -> None:
    write_file(index_dir / ACTIVE, f"{version}\n".encode())


def _names(index_dir: Path) -> list[str]:
    return [path.name for path in index_dir.iterdir()] if index_dir.is_dir() else []
