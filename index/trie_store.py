"""The title trie on disk, beside the index: made once per catalog and spelling, found again by what it was made of.

    index/tries/1f0c9b2e-77aa01d3/   manifest.json tokens.npy first_child.npy begin.npy end.npy rows.npy

A trie depends on the titles and on how they are spelled in tokens, not on the encoder: so it is an artifact of
its own, and a version of the index that keeps the titles keeps the trie.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from index.artifact import read_manifest, text_digest, write_artifact
from index.catalog import Catalog
from index.errors import CorruptArtifactError, MissingArtifactError, SoftrecError
from index.trie import TitleTrie

TRIES = "tries"

_KIND = "trie"


class TitleSpelling(Protocol):
    """How titles are written in tokens. `training.prompt.PromptRenderer` is one."""

    @property
    def spelling_digest(self) -> str:
        """SHA-256 over tokenizer, end of a title and the longest title that is written."""

    def completion_ids(self, title: str) -> tuple[int, ...]:
        """Tokens of a title, the end token last."""

    def fits(self, title: str) -> bool:
        """Whether the title is short enough to be written at all."""


def open_trie(index_dir: Path, catalog: Catalog, spelling: TitleSpelling) -> TitleTrie:
    """Load the trie of a catalog, or make it and keep it.

    A title that is longer than what is written has no place in it: no constrained decoding reaches it, L2 search does.

    Args:
        index_dir: the workspace's `index/`.
        catalog: its rows are the trie's.

    Raises:
        SoftrecError: no title is short enough.
    """
    directory = trie_dir(index_dir, catalog, spelling)
    try:
        return read_trie(directory)
    except (MissingArtifactError, CorruptArtifactError):  # it can be made again from what is here
        pass
    trie = build_trie(catalog, spelling)
    write_trie(directory, trie, catalog_digest=catalog.digest, spelling_digest=spelling.spelling_digest)
    return trie


def trie_dir(index_dir: Path, catalog: Catalog, spelling: TitleSpelling) -> Path:
    """Where the trie of this catalog in this spelling lies, if it was made."""
    titles = text_digest(*catalog.titles)  # a change of price or category leaves it alone
    return index_dir / TRIES / f"{titles[:8]}-{spelling.spelling_digest[:8]}"


def build_trie(catalog: Catalog, spelling: TitleSpelling, rows: Sequence[int] | None = None) -> TitleTrie:
    """Build the trie of some rows, by default all; those too long are left out.

    Raises:
        SoftrecError: no title is short enough.
    """
    kept = [row for row in (range(len(catalog)) if rows is None else rows) if spelling.fits(catalog.titles[row])]
    if not kept:
        raise SoftrecError(
            "no title of the catalog is short enough to be written",
            remedy="raise max_title_tokens with --set, and train again",
        )
    return TitleTrie.build([spelling.completion_ids(catalog.titles[row]) for row in kept], kept)


def unreachable_rows(trie: TitleTrie, n_rows: int) -> NDArray[np.int64]:
    """Return the catalog rows that the trie does not hold, ascending: titles longer than what is written."""
    return np.setdiff1d(np.arange(n_rows), trie.rows)


def write_trie(directory: Path, trie: TitleTrie, **facts: str) -> None:
    """Write a trie as an artifact: whole or not at all."""
    with write_artifact(directory, kind=_KIND) as draft:
        for array in fields(trie):
            np.save(draft.path / f"{array.name}.npy", getattr(trie, array.name))
        draft.body.update(nodes=len(trie), titles=len(trie.rows), bytes=trie.n_bytes, **facts)


def read_trie(directory: Path) -> TitleTrie:
    """Map a trie into memory, after checking every byte.

    Raises:
        MissingArtifactError, CorruptArtifactError: it is absent, or not what was written.
    """
    read_manifest(directory, kind=_KIND, command=f"softrec index {directory.parents[2]}")
    try:
        return map_trie(directory)
    except ValueError as error:
        raise CorruptArtifactError(directory, str(error), remedy="remove the folder; it is made again") from error


def map_trie(directory: Path) -> TitleTrie:
    """Map a trie into memory that `read_trie` has checked, in whichever process.

    Raises:
        ValueError, OSError: a file is not what was written.
    """
    arrays: dict[str, Any] = {
        # a plain view: numpy's memmap class would slow every look-up down
        array.name: np.asarray(np.load(directory / f"{array.name}.npy", mmap_mode="r", allow_pickle=False))
        for array in fields(TitleTrie)
    }
    return TitleTrie(**arrays)
