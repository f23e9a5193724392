"""The title tries of one snapshot of the catalog, in folders that the engine's process maps.

The base trie lies beside the index. Titles that were added since lie in small tries of their own: one of the last ones,
built again for each new title, and tries of 2,000, 4,000, 8,000 ... titles, at most one of each size, built once and
shared by the snapshots that follow. So a title costs the same however many came before it.

They, and the filters that requests bring, lie in a folder of this process, `index/tries/served/PID-...`, each for as
long as a snapshot or a request holds it. The next request writes lost files again; the next server removes the folder
of a killed one.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import weakref
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog
from index.titles.filtered_trie import AllowedTitles, FilteredTrie, TitleOrder, TriePosition
from index.titles.held_folder import HeldFolder, hold_folder
from index.titles.trie import TitleFilter
from index.titles.trie_store import (
    TitleTokenization,
    build_trie,
    is_stored,
    map_trie,
    open_trie,
    trie_dir,
    trie_facts,
    write_trie,
)
from serving.engine.title_mask import POSITION, TRIES
from serving.errors import EngineUnavailableError

SERVED = "served"  # folder beside the tries

_BLOCK = 2000  # titles in the smallest trie that is kept: making it takes about 6 ms
_MOST_FILTERS = 32  # kept for the next request that brings the same


@dataclass(frozen=True, eq=False)
class StoredTrie:
    """A trie in memory, with the folder that the engine's process maps it from."""

    order: TitleOrder
    folder: Path
    facts: Mapping[str, str] = field(default_factory=dict)

    def restore(self) -> None:
        """Write the trie again if its files are lost."""
        if not is_stored(self.folder):
            write_trie(self.folder, self.order.trie, **self.facts)


@dataclass(frozen=True, eq=False)
class _StoredFilter:
    """A filter over each trie, with the files that the engine's process reads it from."""

    title_filter: tuple[TitleFilter, ...]
    files: tuple[Path, ...]

    def restore(self) -> None:
        """Write those files that are lost, or were never written."""
        for path, one in zip(self.files, self.title_filter, strict=True):
            if not path.exists():
                try:
                    np.save(path, one.counts)
                except BaseException:
                    path.unlink(missing_ok=True)  # a part of it would pass for the whole at the next request
                    raise


@dataclass(frozen=True)
class StoredTitles:
    """The titles that one request may be given, here and in files for the engine's process.

    Attributes:
        folders: one per trie of `allowed`.
    """

    allowed: AllowedTitles
    folders: tuple[Path, ...]
    _filter: _StoredFilter | None
    _tries: TitleTries  # holds the folders

    @cached_property
    def _filtered(self) -> list[tuple[str, str | None, list[int]]]:
        filters: Sequence[Path | None] = self._filter.files if self._filter else [None] * len(self.folders)
        return [
            (str(folder), None if file is None else str(file), trie.excluded_nodes.tolist())
            for trie, folder, file in zip(self.allowed.tries, self.folders, filters, strict=True)
        ]

    def at(self, position: TriePosition) -> Mapping[str, Any]:
        """Return the argument of a request that writes on from a position; see `serving.engine.title_mask`."""
        return {TRIES: self._filtered, POSITION: position}


class _Added:
    """The trie of some added rows, in a folder of its own; None where none of their titles is short enough."""

    def __init__(self, catalog: Catalog, rows: range, tokenization: TitleTokenization, home: HeldFolder) -> None:
        self.stored: StoredTrie | None = None
        fitting = [row for row in rows if tokenization.fits(catalog.titles[row])]
        if fitting:
            home.restore()
            folder = home.new_path()
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            write_trie(folder, build_trie(catalog, tokenization, fitting))
            self.stored = StoredTrie(TitleOrder.of(map_trie(folder)), folder)


class TitleTries:
    """Tries that cover a catalog's rows, each row in one of them; titles too long to be written are in none.

    Args:
        tries: the base trie first.
        n_base: the base trie covers the catalog's first `n_base` rows.
        home: where the files of filters go, and of tries that `grown` adds.
    """

    def __init__(self, tries: Sequence[StoredTrie], n_base: int, home: HeldFolder) -> None:
        self._tries = tuple(tries)
        self._n_base = n_base
        self._home = home
        self._added: Mapping[range, _Added] = {}  # by their rows
        self._filters: OrderedDict[bytes, _StoredFilter] = OrderedDict()

    @classmethod
    def open(cls, index_dir: Path, catalog: Catalog, tokenization: TitleTokenization) -> TitleTries:
        """Load or make the trie of a catalog, and remove the folders of killed servers.

        Raises:
            SoftrecError: no title is short enough to be written.
        """
        trie = open_trie(index_dir, catalog, tokenization)
        folder = trie_dir(index_dir, catalog, tokenization).resolve()
        weakref.finalize(trie, os.close, hold_folder(folder))
        base = StoredTrie(TitleOrder.of(trie), folder, trie_facts(catalog, tokenization))
        return cls([base], len(catalog), HeldFolder(folder.parent / SERVED))

    def grown(self, catalog: Catalog, tokenization: TitleTokenization) -> TitleTries:
        """Return the tries of a later state of the catalog: the same rows, and others after them.

        Both share the tries of equal rows: after one more title all but the smallest, except that every 2,000th title
        merges some.
        """
        added = {
            rows: self._added.get(rows) or _Added(catalog, rows, tokenization, self._home)
            for rows in _blocks(self._n_base, len(catalog))
        }
        stored = [one.stored for one in added.values() if one.stored is not None]
        grown = TitleTries([self._tries[0], *stored], self._n_base, self._home)
        grown._added = added
        return grown

    @property
    def n_rows(self) -> int:
        """How many catalog rows can be written."""
        return sum(len(one.order.trie.rows) for one in self._tries)

    def allowed_titles(self, allowed: NDArray[np.bool_] | None = None, excluded: Collection[int] = ()) -> StoredTitles:
        """Return the titles that a request may be given, with their files written for the engine's process.

        Args:
            allowed: bool [rows of the catalog]; a filter that other requests will bring too, kept as a file. None: all.
            excluded: rows left out besides, of this request alone.

        Raises:
            EngineUnavailableError: the files cannot be written.
        """
        kept = None if allowed is None or allowed.all() else self._filter(allowed)
        filtered = []
        for at, one in enumerate(self._tries):
            title_filter = None if kept is None else kept.title_filter[at]
            nodes = one.order.excluded_nodes(excluded, title_filter)
            filtered.append(FilteredTrie(one.order.trie, title_filter, nodes))
        try:
            self._home.restore()
            for stored in (*self._tries, *(() if kept is None else (kept,))):
                stored.restore()
        except OSError as error:
            raise EngineUnavailableError(
                f"the titles of this request cannot be written for the engine: {error}",
                remedy="free space where the workspace lies, and let the server write there",
            ) from error
        folders = tuple(one.folder for one in self._tries)
        return StoredTitles(AllowedTitles(tuple(filtered), frozenset(excluded)), folders, kept, self)

    def _filter(self, allowed: NDArray[np.bool_]) -> _StoredFilter:
        key = hashlib.blake2b(np.packbits(allowed).tobytes(), digest_size=16).digest()
        if key in self._filters:
            self._filters.move_to_end(key)
            return self._filters[key]
        title_filter = tuple(one.order.trie.make_filter(allowed) for one in self._tries)
        # numbered, not named by the mask: a request may still hold one of the same mask, whose end removes its files
        files = tuple(self._home.new_path(".npy") for _ in title_filter)
        made = self._filters[key] = _StoredFilter(title_filter, files)
        weakref.finalize(made, _unlink, files)  # once neither this object nor a request holds it
        if len(self._filters) > _MOST_FILTERS:
            self._filters.popitem(last=False)
        return made


def _blocks(start: int, stop: int) -> list[range]:
    """Cut rows into blocks of `_BLOCK` times a power of two, each power at most once, and the rest, falling in size.

    Example:
        >>> [len(rows) for rows in _blocks(10, 10 + 5 * _BLOCK + 7)]
        [8000, 2000, 7]
    """
    blocks = []
    for power in reversed(range(((stop - start) // _BLOCK).bit_length())):
        if (stop - start) // _BLOCK >> power:
            blocks.append(range(start, start + (_BLOCK << power)))
            start = blocks[-1].stop
    return [*blocks, range(start, stop)] if start < stop else blocks


def _unlink(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
