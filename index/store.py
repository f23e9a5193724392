"""Versions of the index on disk, and which one is in use.

    index/
      0001-1f0c9b2e/   manifest.json vectors.faiss [search.faiss] catalog.parquet popularity.npy
      0002-77aa01d3/   ...
      active           the name of the version in use

A version is an artifact: whole or absent, and never changed. `active` is swapped in one rename, so a reader finds the
old version or the new one; it loads everything into memory and holds no file open, so old versions can go.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from index.artifact import MANIFEST, Manifest, read_manifest, text_digest, write_artifact, write_file
from index.catalog import Catalog, read_catalog, write_catalog
from index.choice import RECALL_FLOOR, SearchKind, build_search, check_choice, read_search, write_search
from index.encoder import TitleEncoder
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError
from index.grounding import Grounder

ACTIVE = "active"

_VERSION = re.compile(r"(\d{4,})-[0-9a-f]{8}")
_ENCODE_BATCH = 2048  # titles between two reports of progress


@dataclass(frozen=True)
class LoadedIndex:
    """One version, in memory and checked. `popularity` is int64 [len(catalog)]."""

    version: str
    catalog: Catalog
    grounder: Grounder
    popularity: NDArray[np.int64]
    encoder_name: str


def build_index(
    index_dir: Path,
    catalog: Catalog,
    encoder: TitleEncoder,
    popularity: NDArray[np.int64],
    *,
    keep: int = 3,
    kind: SearchKind = "auto",
    recall_floor: float = RECALL_FLOOR,
    advance: Callable[[int], None] = lambda titles: None,
) -> str:
    """Embed the catalog's titles, write them as a new version and make it the active one.

    Args:
        index_dir: the workspace's `index/`.
        catalog: row r becomes row r of the index.
        encoder: the same one must be given to `load_active`.
        popularity: int64 [len(catalog)], see `count_popularity`.
        keep: how many versions to keep, the new one included; older ones are removed.
        kind, recall_floor: which search, see `build_search`.
        advance: told how many titles were embedded since it was last told.

    Returns:
        The new version's name. Killed before the end, the version that was active still is.

    Raises:
        ValueError: popularity does not fit the catalog, keep < 1, or the recall floor is not in (0, 1].
    """
    if popularity.shape != (len(catalog),):
        raise ValueError(f"popularity must be [{len(catalog)}], got shape {popularity.shape}")
    if keep < 1:
        raise ValueError(f"keep must be at least 1, got {keep}")
    check_choice(kind, recall_floor)
    search, facts = build_search(encode_titles(catalog.titles, encoder, advance), kind=kind, recall_floor=recall_floor)
    identity = text_digest(catalog.digest, encoder.fingerprint)[:8]
    earlier = [int(match[1]) for match in map(_VERSION.fullmatch, _names(index_dir)) if match]
    version = f"{max(earlier, default=0) + 1:04d}-{identity}"
    with write_artifact(index_dir / version, kind="index") as draft:
        write_search(draft.path, search)
        write_catalog(draft.path / "catalog.parquet", catalog)
        np.save(draft.path / "popularity.npy", popularity.astype(np.int64))
        draft.body.update(
            catalog_digest=catalog.digest,
            rows=len(catalog),
            items=len(catalog.items),
            search=facts,
            encoder={"name": encoder.name, "fingerprint": encoder.fingerprint, "dimension": encoder.dimension},
        )
    activate(index_dir, version)
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
    if version not in list_versions(index_dir):
        raise MissingArtifactError("index version", index_dir / version, command=_command(index_dir))
    write_file(index_dir / ACTIVE, f"{version}\n".encode())


def load_active(index_dir: Path, *, encoder: TitleEncoder, catalog_digest: str | None = None) -> LoadedIndex:
    """Load the active version into memory.

    Args:
        index_dir: the workspace's `index/`.
        encoder: what will embed the generations.
        catalog_digest: the catalog that the caller works with; None: whichever the index was built from.

    Raises:
        MissingArtifactError: no index was built.
        CorruptArtifactError: a byte changed since it was written.
        MismatchError: it was built with another encoder or from another catalog; both values are named.
    """
    version = _read_active(index_dir)
    directory = index_dir / version
    manifest = _read_version(index_dir, version)
    built = manifest.body["encoder"]
    again = f"build the index again with `{_command(index_dir)}`"
    if built["fingerprint"] != encoder.fingerprint:
        raise MismatchError(
            f"{directory}: title encoder",
            expected=f"{built['name']} ({built['fingerprint'][:12]})",
            found=f"{encoder.name} ({encoder.fingerprint[:12]})",
            remedy=f"{again}, or use the encoder that it was built with",
        )
    catalog = read_catalog(directory / "catalog.parquet")
    for wanted in (manifest.body["catalog_digest"], catalog_digest):
        if wanted is not None and wanted != catalog.digest:
            raise MismatchError(f"{directory}: catalog", expected=wanted[:12], found=catalog.digest[:12], remedy=again)
    try:
        popularity: NDArray[np.int64] = np.load(directory / "popularity.npy", allow_pickle=False)
        grounder = Grounder(catalog, read_search(directory, manifest.body["search"]), encoder)
    except ValueError as error:
        raise CorruptArtifactError(directory, str(error), remedy=again) from error
    if popularity.shape != (len(catalog),):
        detail = f"popularity has shape {popularity.shape}, the catalog {len(catalog)} rows"
        raise CorruptArtifactError(directory, detail, remedy=again)
    return LoadedIndex(version, catalog, grounder, popularity, built["name"])


def read_encoder_name(index_dir: Path) -> str:
    """Return the name of the encoder that the active version was built with, for `open_encoder`."""
    return str(_read_version(index_dir, _read_active(index_dir)).body["encoder"]["name"])


def _read_version(index_dir: Path, version: str) -> Manifest:
    return read_manifest(index_dir / version, kind="index", command=_command(index_dir))


def _read_active(index_dir: Path) -> str:
    path = index_dir / ACTIVE
    if not path.is_file():
        raise MissingArtifactError("index", index_dir, command=_command(index_dir))
    version = path.read_text(encoding="utf-8", errors="replace").strip()
    if not _VERSION.fullmatch(version):
        detail = f"names no version of the index: {version[:40]!r}"
        raise CorruptArtifactError(path, detail, remedy=f"build the index again with `{_command(index_dir)}`")
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


def _names(index_dir: Path) -> list[str]:
    return [path.name for path in index_dir.iterdir()] if index_dir.is_dir() else []


def _command(index_dir: Path) -> str:
    return f"softrec index {index_dir.parent}"
