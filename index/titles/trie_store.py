"""The title trie on disk, beside the index: made once per catalog and tokenization, named after both.

    index/tries/1f0c9b2e-77aa01d3/   manifest.json tokens.npy first_child.npy begin.npy end.npy rows.npy

A trie depends on the titles and their tokenization, not on the encoder: so it is an artifact of its own, and a version
of the index that keeps the titles keeps the trie. Those of other titles go when one is written,
except those that a process holds (`index.titles.held_folder`), because its engine maps their files by name.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from index.artifact import read_manifest, text_digest, write_artifact
from index.catalog.catalog import Catalog
from index.errors import ArtifactError, CorruptArtifactError, MismatchError, SoftrecError
from index.titles.held_folder import remove_unheld
from index.titles.trie import TitleTrie

TRIES = "tries"

_KIND = "trie"
_AGAIN = "remove the folder; it is made again"


class TitleTokenization(Protocol):
    """How titles are written in tokens. `training.prompt.PromptRenderer` is one."""

    @property
    def tokenization_digest(self) -> str:
        """SHA-256 over tokenizer, end of a title and the longest title that is written."""

    def completion_ids(self, title: str) -> tuple[int, ...]:
        """Tokens of a title, the end token last."""

    def fits(self, title: str) -> bool:
        """Whether the title is short enough to be written at all."""


def open_trie(index_dir: Path, catalog: Catalog, tokenization: TitleTokenization) -> TitleTrie:
    """Load the trie of a catalog, or make it and keep it.

    It omits titles that are too long to be written: constrained decoding cannot reach them, L2 search can.

    Args:
        index_dir: the workspace's `index/`.
        catalog: its rows are the trie's.

    Raises:
        SoftrecError: no title is short enough.
    """
    directory = trie_dir(index_dir, catalog, tokenization)
    facts = trie_facts(catalog, tokenization)
    try:
        return read_trie(directory, **facts)
    except ArtifactError:  # it can be made again from what is here
        pass
    trie = build_trie(catalog, tokenization)
    write_trie(directory, trie, **facts)
    _remove_those_of_other_titles(directory)
    return trie


def trie_dir(index_dir: Path, catalog: Catalog, tokenization: TitleTokenization) -> Path:
    """Return the folder of this catalog's trie, which may not exist yet."""
    return index_dir / TRIES / f"{_titles_digest(catalog)[:8]}-{tokenization.tokenization_digest[:8]}"


def trie_facts(catalog: Catalog, tokenization: TitleTokenization) -> dict[str, str]:
    """Return the facts of this catalog's trie that its manifest states."""
    return {"titles_digest": _titles_digest(catalog), "tokenization_digest": tokenization.tokenization_digest}


def is_stored(directory: Path) -> bool:
    """Whether every file that `map_trie` reads exists."""
    return all((directory / f"{array.name}.npy").exists() for array in fields(TitleTrie))


def build_trie(catalog: Catalog, tokenization: TitleTokenization, rows: Sequence[int] | None = None) -> TitleTrie:
    """Build the trie of some rows, by default all; those too long are left out.

    Raises:
        SoftrecError: no title is short enough.
    """
    kept = [row for row in (range(len(catalog)) if rows is None else rows) if tokenization.fits(catalog.titles[row])]
    if not kept:
        raise SoftrecError(
            "no title of the catalog is short enough to be written",
            remedy="raise max_title_tokens with --set, and train again",
        )
    return TitleTrie.build([tokenization.completion_ids(catalog.titles[row]) for row in kept], kept)


def write_trie(directory: Path, trie: TitleTrie, **facts: str) -> None:
    """Write a trie as an artifact: whole or not at all."""
    with write_artifact(directory, kind=_KIND) as draft:
        for array in fields(trie):
            np.save(draft.path / f"{array.name}.npy", getattr(trie, array.name))
        draft.body.update(nodes=len(trie), titles=len(trie.rows), bytes=trie.n_bytes, **facts)


def read_trie(directory: Path, **facts: str) -> TitleTrie:
    """Map a trie into memory, after checking every byte and these facts, which it must have been written with.

    Raises:
        MissingArtifactError, CorruptArtifactError: it is absent, or not what was written.
        MismatchError: a fact is another.
    """
    manifest = read_manifest(directory, kind=_KIND, command=f"softrec index {directory.parents[2]}")
    for name, expected in facts.items():
        if (found := str(manifest.body.get(name))) != expected:
            raise MismatchError(f"{directory}: {name}", expected=expected, found=found, remedy=_AGAIN)
    try:
        return map_trie(directory)
    except ValueError as error:
        raise CorruptArtifactError(directory, str(error), remedy=_AGAIN) from error


def map_trie(directory: Path) -> TitleTrie:
    """Map a trie into memory, unchecked: `read_trie` or the server has checked it.

    Raises:
        ValueError, OSError: a file is not what was written.
    """
    arrays: dict[str, Any] = {
        # a plain view: numpy's memmap class would slow every look-up down
        array.name: np.asarray(np.load(directory / f"{array.name}.npy", mmap_mode="r", allow_pickle=False))
        for array in fields(TitleTrie)
    }
    return TitleTrie(**arrays)


def _titles_digest(catalog: Catalog) -> str:
    return text_digest(*catalog.titles)  # a change of price or category leaves it alone


def _remove_those_of_other_titles(directory: Path) -> None:
    """Remove the tries beside one, of titles that were replaced; a process that has mapped one keeps its memory."""
    titles = directory.name.partition("-")[0]
    beside = directory.parent.glob("????????-????????")
    remove_unheld(other for other in beside if other.name.partition("-")[0] != titles)
