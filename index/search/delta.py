"""A version's index with the titles that were added since, searched as one."""

from __future__ import annotations

import numpy as np

from index.search.flat import FlatIndex
from index.search.search import Mask, Rows, TitleSearch, Vectors, check_search

# Over-fetch beyond k, because the nearest rows may be empty. Start small: a mask over all rows costs more than many
_FIRST_OVERFETCHED, _MOST_OVERFETCHED = 4, 256


class DeltaSearch:
    """A base, rows added behind its end, and rows that are empty: those are never found.

    As exact as the base is: the k nearest of two parts together are among the k nearest of each.

    Args:
        base: rows 0 .. len(base).
        added: float32 [n, dimension], vectors of the rows behind them; None: no rows.
        empty: rows without items, in the base or behind.
    """

    def __init__(self, base: TitleSearch, added: Vectors | None = None, empty: frozenset[int] = frozenset()) -> None:
        self.base = base
        self.added = np.empty((0, base.dimension), dtype=np.float32) if added is None else added
        self._delta = FlatIndex.build(self.added) if len(self.added) else None
        self._empty = np.array(sorted(empty), dtype=np.int64)
        self._empty_in_base = int(np.searchsorted(self._empty, len(base)))

    def extended(self, added: Vectors, empty: frozenset[int]) -> DeltaSearch:
        """Return an index with further rows, [n, dimension], at the end, and these empty rows; the base is shared."""
        return DeltaSearch(self.base, np.concatenate([self.added, added]), empty)

    def __len__(self) -> int:
        return len(self.base) + len(self.added)

    @property
    def dimension(self) -> int:
        return self.base.dimension

    def vectors(self, rows: Rows) -> Vectors:
        """Return a copy of the vectors of some rows, [len(rows), dimension]; empty rows have theirs still."""
        behind = rows >= len(self.base)
        found = np.empty((len(rows), self.dimension), dtype=np.float32)
        found[~behind] = self.base.vectors(rows[~behind])
        found[behind] = self.added[rows[behind] - len(self.base)]
        return found

    def search(self, queries: Vectors, k: int, *, allowed: Mask | None = None) -> tuple[Vectors, Rows]:
        """Find the k nearest rows of each query that are not empty: see `TitleSearch.search`."""
        queries, _ = check_search(queries, k, allowed, shape=(len(self), self.dimension))
        distances, rows = self._search_base(queries, k, allowed)
        if self._delta is None:
            return distances, rows
        behind = self._delta_mask(allowed)
        more_distances, more_rows = self._delta.search(queries, k, allowed=behind)
        distances = np.concatenate([distances, more_distances], axis=1)
        rows = np.concatenate([rows, more_rows + len(self.base)], axis=1)
        order = np.lexsort((rows, distances))[:, :k]
        return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)

    def _search_base(self, queries: Vectors, k: int, allowed: Mask | None) -> tuple[Vectors, Rows]:
        empty = self._empty[: self._empty_in_base]
        if allowed is not None:
            allowed = allowed[: len(self.base)]
        elif len(empty) and (found := self._overfetch(queries, k, empty)) is not None:
            return found
        elif len(empty):
            allowed = np.ones(len(self.base), dtype=np.bool_)
        if allowed is not None and allowed[empty].any():
            allowed = allowed.copy()
            allowed[empty] = False
        return self.base.search(queries, k, allowed=allowed)

    def _overfetch(self, queries: Vectors, k: int, empty: Rows) -> tuple[Vectors, Rows] | None:
        """Ask for some rows more and drop the empty ones; None when too many of the nearest are empty."""
        reachable = min(k, len(self.base) - len(empty))
        spare = _FIRST_OVERFETCHED
        while spare <= _MOST_OVERFETCHED:
            distances, rows = self.base.search(queries, k + min(spare, len(empty)))
            gone = np.isin(rows, empty)
            if rows.shape[1] - int(gone.sum(axis=1).max(initial=0)) >= reachable:
                order = np.argsort(gone, axis=1, kind="stable")[:, :reachable]  # the others first, in their order
                return np.take_along_axis(distances, order, axis=1), np.take_along_axis(rows, order, axis=1)
            spare *= 4
        return None

    def _delta_mask(self, allowed: Mask | None) -> Mask | None:
        empty = self._empty[self._empty_in_base :]
        if allowed is None and not len(empty):
            return None
        mask = np.ones(len(self.added), dtype=np.bool_) if allowed is None else allowed[len(self.base) :].copy()
        mask[empty - len(self.base)] = False
        return mask
