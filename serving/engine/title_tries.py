"""The title tries of one view of the catalog, laid where an engine's process finds them.

The base trie lies beside the index. Titles that a living catalog has gained since lie in small tries of their own: one
of what was added last, which each new title makes anew, and behind it tries of 2,000, 4,000, 8,000 ... titles, at most
one of each size, made once and shared by the views that follow. So a title costs the same however many came before it.
They and the filters that requests bring lie in private folders, each for as long as a view or a request holds it.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import tempfile
import weakref
from collections import OrderedDict
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog
from index.titles.filtered_trie import AllowedTitles, FilteredTrie, Position, TitleOrder
from index.titles.trie import TitleFilter
from index.titles.trie_store import TitleTokenization, build_trie, hold_trie, open_trie, read_trie, trie_dir, write_trie
from serving.engine.title_mask import PLACE, SEGMENTS

_BLOCK = 2000  # titles in the smallest trie that is kept: making it takes about 6 ms
_MOST_FILTERS = 32  # kept for the next request that brings the same


@dataclass(frozen=True)
class _Filter:
    """A mask over the catalog as each trie sees it, with the files of it."""

    title_filter: tuple[TitleFilter, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class StoredTitles:
    """What one request may be given, here and where the engine's process reads it.

    Attributes:
        folders: of the tries, one per segment of `open`.
    """

    open: AllowedTitles
    folders: tuple[Path, ...]
    _filter: _Filter | None
    _tries: TitleTries  # holds the folders

    @cached_property
    def _segments(self) -> list[tuple[str, str | None, list[int]]]:
        filters: Sequence[Path | None] = self._filter.files if self._filter else [None] * len(self.folders)
        return [
            (str(folder), None if file is None else str(file), segment.excluded_nodes.tolist())
            for segment, folder, file in zip(self.open.tries, self.folders, filters, strict=True)
        ]

    def at(self, place: Position) -> Mapping[str, Any]:
        """What a request says that writes on from a place; see `serving.engine.title_mask`."""
        return {SEGMENTS: self._segments, PLACE: place}


class _Added:
    """The trie of some rows that were added, in a folder of its own; None where no title of theirs can be written."""

    def __init__(self, catalog: Catalog, rows: range, spelling: TitleTokenization) -> None:
        folder = _new_folder()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
        self.laid: tuple[TitleOrder, Path] | None = None
        fitting = [row for row in rows if spelling.fits(catalog.titles[row])]
        if fitting:
            path = folder / "tries" / "added"
            write_trie(path, build_trie(catalog, spelling, fitting))
            self.laid = TitleOrder.of(read_trie(path)), path


class TitleTries:
    """Tries that cover a catalog's rows, each row in one of them; titles too long to be written are in none.

    Args:
        tries: with the folder that each lies in.
        n_base: how many of the catalog's rows, the first ones, the first trie is of.
        folder: an existing folder of this object's own, for the files of filters; removed with it.
    """

    def __init__(self, tries: Sequence[tuple[TitleOrder, Path]], n_base: int, folder: Path) -> None:
        self._tries = tuple(tries)
        self._n_base = n_base
        self._folder = folder
        self._added: Mapping[range, _Added] = {}  # by their rows
        self._filters: OrderedDict[bytes, _Filter] = OrderedDict()
        self._numbers = itertools.count()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @classmethod
    def open(cls, index_dir: Path, catalog: Catalog, spelling: TitleTokenization) -> TitleTries:
        """Load or make the trie of a catalog.

        Raises:
            SoftrecError: no title is short enough to be written.
        """
        trie = open_trie(index_dir, catalog, spelling)
        path = trie_dir(index_dir, catalog, spelling).resolve()
        opened = cls([(TitleOrder.of(trie), path)], len(catalog), _new_folder())
        weakref.finalize(trie, os.close, hold_trie(path))  # the engine's process opens the files by name
        return opened

    def grown(self, catalog: Catalog, spelling: TitleTokenization) -> TitleTries:
        """Return the tries of another state of the catalog that was opened: it has that one's rows, and others after.

        Tries that both have are shared. From one state to the next, a title later, that is all but the smallest; for
        every 2,000th title some are put together.
        """
        added = {
            rows: self._added.get(rows) or _Added(catalog, rows, spelling)
            for rows in _blocks(self._n_base, len(catalog))
        }
        laid = [one.laid for one in added.values() if one.laid is not None]
        grown = TitleTries([self._tries[0], *laid], self._n_base, _new_folder())
        grown._added = added
        return grown

    @property
    def n_rows(self) -> int:
        """How many catalog rows can be written."""
        return sum(len(order.trie.rows) for order, _ in self._tries)

    def allowed_titles(self, allowed: NDArray[np.bool_] | None = None, excluded: Collection[int] = ()) -> StoredTitles:
        """Say what a request may be given.

        Args:
            allowed: bool [rows of the catalog]; a filter that other requests will bring too, kept as a file. None: all.
            excluded: rows left out besides, of this request alone.
        """
        kept = None if allowed is None or allowed.all() else self._filter(allowed)
        segments = []
        for at, (order, _) in enumerate(self._tries):
            title_filter = None if kept is None else kept.title_filter[at]
            segments.append(FilteredTrie(order.trie, title_filter, order.excluded_nodes(excluded, title_filter)))
        folders = tuple(path for _, path in self._tries)
        return StoredTitles(AllowedTitles(tuple(segments), frozenset(excluded)), folders, kept, self)

    def _filter(self, allowed: NDArray[np.bool_]) -> _Filter:
        key = hashlib.blake2b(np.packbits(allowed).tobytes(), digest_size=16).digest()
        if key in self._filters:
            self._filters.move_to_end(key)
            return self._filters[key]
        title_filter = tuple(order.trie.admit(allowed) for order, _ in self._tries)
        # numbered, not named by the mask: a request may still hold one of the same mask, whose end removes its files
        number = next(self._numbers)
        files = tuple(self._folder / f"{number}-{at}.npy" for at in range(len(title_filter)))
        for path, one in zip(files, title_filter, strict=True):
            np.save(path, one.counts)
        made = self._filters[key] = _Filter(title_filter, files)
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


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="softrec-titles-"))


def _unlink(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
