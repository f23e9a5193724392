"""The title tries of one view of the catalog, laid where an engine's process finds them.

The base trie lies beside the index. Titles that a living catalog has gained since have a small trie of their own; it
and the filters that requests bring lie in a private folder, each for as long as a view or a request still holds it.
"""

from __future__ import annotations

import hashlib
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

from index.catalog import Catalog
from index.open_titles import OpenTitles, Place, Segment, TitleOrder
from index.trie import Admitted
from index.trie_store import TitleSpelling, build_trie, open_trie, read_trie, trie_dir, write_trie
from serving.title_mask import PLACE, SEGMENTS

_MOST_FILTERS = 32  # kept for the next request that brings the same


@dataclass(frozen=True)
class _Filter:
    """A mask over the catalog as each trie sees it, with the files of it."""

    admitted: tuple[Admitted, ...]
    files: tuple[Path, ...]


@dataclass(frozen=True)
class StoredTitles:
    """What one request may be given, here and where the engine's process reads it.

    Attributes:
        folders: of the tries, one per segment of `open`.
    """

    open: OpenTitles
    folders: tuple[Path, ...]
    _filter: _Filter | None
    _tries: TitleTries  # holds the folders

    @cached_property
    def _segments(self) -> list[tuple[str, str | None, list[int]]]:
        filters: Sequence[Path | None] = self._filter.files if self._filter else [None] * len(self.folders)
        return [
            (str(folder), None if file is None else str(file), segment.closed.tolist())
            for segment, folder, file in zip(self.open.segments, self.folders, filters, strict=True)
        ]

    def at(self, place: Place) -> Mapping[str, Any]:
        """What a request says that writes on from a place; see `serving.title_mask`."""
        return {SEGMENTS: self._segments, PLACE: place}


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
        self._filters: OrderedDict[bytes, _Filter] = OrderedDict()
        weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)

    @classmethod
    def open(cls, index_dir: Path, catalog: Catalog, spelling: TitleSpelling) -> TitleTries:
        """Load or make the trie of a catalog.

        Raises:
            SoftrecError: no title is short enough to be written.
        """
        trie = open_trie(index_dir, catalog, spelling)
        path = trie_dir(index_dir, catalog, spelling).resolve()
        return cls([(TitleOrder.of(trie), path)], len(catalog), _new_folder())

    def grown(self, catalog: Catalog, spelling: TitleSpelling) -> TitleTries:
        """Return the tries of a later state of the catalog that was opened: it has that one's rows, and others after.

        The large trie serves on; the rows after it get a small one of their own. Takes as long as those are many.
        """
        fresh = [row for row in range(self._n_base, len(catalog)) if spelling.fits(catalog.titles[row])]
        folder, tries = _new_folder(), [self._tries[0]]
        if fresh:
            write_trie(folder / "tries" / "added", build_trie(catalog, spelling, fresh))
            tries.append((TitleOrder.of(read_trie(folder / "tries" / "added")), folder / "tries" / "added"))
        return TitleTries(tries, self._n_base, folder)

    @property
    def n_rows(self) -> int:
        """How many catalog rows can be written."""
        return sum(len(order.trie.rows) for order, _ in self._tries)

    def open_titles(self, allowed: NDArray[np.bool_] | None = None, excluded: Collection[int] = ()) -> StoredTitles:
        """Say what a request may be given.

        Args:
            allowed: bool [rows of the catalog]; a filter that other requests will bring too, kept as a file. None: all.
            excluded: rows left out besides, of this request alone.
        """
        kept = None if allowed is None or allowed.all() else self._filter(allowed)
        segments = []
        for at, (order, _) in enumerate(self._tries):
            admitted = None if kept is None else kept.admitted[at]
            segments.append(Segment(order.trie, admitted, order.closed_nodes(excluded, admitted)))
        folders = tuple(path for _, path in self._tries)
        return StoredTitles(OpenTitles(tuple(segments), frozenset(excluded)), folders, kept, self)

    def _filter(self, allowed: NDArray[np.bool_]) -> _Filter:
        key = hashlib.blake2b(np.packbits(allowed).tobytes(), digest_size=16).digest()
        if key in self._filters:
            self._filters.move_to_end(key)
            return self._filters[key]
        admitted = tuple(order.trie.admit(allowed) for order, _ in self._tries)
        files = tuple(self._folder / f"{key.hex()}-{at}.npy" for at in range(len(admitted)))
        for path, one in zip(files, admitted, strict=True):
            np.save(path, one.counts)
        made = self._filters[key] = _Filter(admitted, files)
        weakref.finalize(made, _unlink, files)  # once neither this object nor a request holds it
        if len(self._filters) > _MOST_FILTERS:
            self._filters.popitem(last=False)
        return made


def _new_folder() -> Path:
    return Path(tempfile.mkdtemp(prefix="softrec-titles-"))


def _unlink(files: Sequence[Path]) -> None:
    for path in files:
        path.unlink(missing_ok=True)
