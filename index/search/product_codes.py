"""Approximate search: four-bit product codes of all rows propose, the float32 vectors measure."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.search.flat import FlatIndex, OverFlat, one_thread, read_faiss
from index.search.search import Mask, Rows, Vectors, check_search

_LEAST_ROWS = 16  # that the codes can be trained on
_FIRST_BREADTH = 20
_KEPT_SHARE, _KEPT_LEAST = 1 / 3, 64  # dimensions of a vector that are coded: of 384, 192 take longer, 96 miss more
_TRAINED_ON = 65_536  # rows that the codes are fitted to
_SPARE = 6  # candidates beyond k that are measured
_EXACT_BELOW = 1 / 20  # share of allowed rows: in fewer a scan is as fast, and exact
# The largest k that is not answered exactly: a fusion asks for up to 116 (`index.ranking.grounding`), and `DeltaSearch`
# for 256 more where the nearest are empty. Of 200,000 rows codes take 2.2 ms at 116 and 4.7 at 372, a scan 5.3 and 5.8
_DEEPEST = 400


class ProductCodesIndex(OverFlat):
    """A `TitleSearch` that finds most of the nearest rows, and measures exactly those it returns.

    FAISS scans 4-bit codes of all rows, dimension / 12 bytes per row, and proposes k rows and more. Their distances are
    measured in the float32 vectors of a `FlatIndex`. So every distance and the order among the rows found are exact;
    a nearer row can be missing.

    The codes keep the third of the dimensions (of 64 or fewer: all) in which the titles differ most: principal
    components, rotated at random to equal variance, 4 bits for each pair. FAISS's scan takes no filter, so more rows
    are proposed until enough are allowed. The flat index answers if fewer than one row in twenty is allowed, if k is
    over 400, or if fewer than k rows came back.

    Attributes:
        flat: the exact search over the same rows.
        breadth: candidates measured per ten of k. May be set.
    """

    def __init__(self, flat: FlatIndex, codes: Any, *, breadth: int = _FIRST_BREADTH) -> None:
        """Wrap a faiss.IndexPreTransform over the same rows; use `build` or `read`.

        Raises:
            ValueError: it is another class, has other rows or another dimension, or breadth < 1.
        """
        if not isinstance(codes, faiss.IndexPreTransform):
            raise ValueError(f"product codes need IndexPreTransform, found {type(codes).__name__}")
        if (codes.ntotal, codes.d) != (len(flat), flat.dimension):
            raise ValueError(
                f"the product codes hold {codes.ntotal} vectors of dimension {codes.d}, "
                f"the flat index {len(flat)} of dimension {flat.dimension}"
            )
        if breadth < 1:
            raise ValueError(f"breadth must be at least 1, got {breadth}")
        self.flat = flat
        self.breadth = breadth
        self._codes = codes

    @classmethod
    def build(cls, flat: FlatIndex) -> ProductCodesIndex:
        """Code the rows of a flat index; the breadth is the least that makes sense.

        Raises:
            ValueError: fewer than 16 rows.
        """
        vectors = flat.matrix
        rows, dimension = vectors.shape
        if rows < _LEAST_ROWS:
            raise ValueError(f"product codes need at least {_LEAST_ROWS} rows, got {rows}")
        kept = max(round(dimension * _KEPT_SHARE), min(dimension, _KEPT_LEAST))
        kept -= kept % 2 if kept > 1 else 0
        codes = faiss.index_factory(dimension, f"PCAR{kept},PQ{max(kept // 2, 1)}x4fs")
        faiss.downcast_index(codes.index).pq.cp.min_points_per_centroid = 1
        with one_thread():
            codes.train(np.ascontiguousarray(vectors[:: max(1, rows // _TRAINED_ON)]))
            codes.add(vectors)
        return cls(flat, codes)

    @classmethod
    def read(cls, flat: FlatIndex, path: Path, *, breadth: int) -> ProductCodesIndex:
        """Read what `write` wrote. Check the file's digest first: FAISS trusts what it reads.

        Raises:
            ValueError: the file holds no product codes of these rows.
        """
        return cls(flat, read_faiss(path), breadth=breadth)

    def write(self, path: Path) -> None:
        """Write the codes without the flat index; not atomic, so write into a draft."""
        faiss.write_index(self._codes, str(path))

    @property
    def broadest(self) -> int:
        """The breadth from which a search is about as slow as a scan."""
        return max(len(self.flat) // 32, 64)

    def search(self, queries: Vectors, k: int, *, allowed: Mask | None = None) -> tuple[Vectors, Rows]:
        """Find k near rows of each query, as `TitleSearch.search` says; min(k, allowed rows) always come back."""
        queries, _ = check_search(queries, k, allowed, shape=(len(self), self.dimension))
        reachable = len(self) if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, reachable)
        if reachable < _EXACT_BELOW * len(self) or k > _DEEPEST or k == 0:
            return self.flat.search(queries, max(k, 1), allowed=allowed)
        if reachable == len(self):
            allowed = None
        with one_thread():
            candidates = self._propose(queries, k, allowed, reachable)
        distances = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for number, found in enumerate(candidates):
            if len(found) < k:
                answer = self.flat.search(queries[number : number + 1], k, allowed=allowed)
                distances[number], rows[number] = answer[0][0], answer[1][0]
            else:
                exact, ordered = self.flat.measure(queries[number], self._nearest(queries[number], found, k + _SPARE))
                distances[number], rows[number] = exact[:k], ordered[:k]
        return distances, rows

    def _propose(self, queries: Vectors, k: int, allowed: Mask | None, reachable: int) -> list[Rows]:
        """Propose allowed candidates of each query, more and more until there are as many as without a filter.

        A query that would need more than every sixteenth row gets none, and so an exact answer.
        """
        enough = min(max(math.ceil(self.breadth * k / 10), k + _SPARE), reachable)
        proposed = math.ceil(enough * len(self) / reachable)
        found: list[Rows] = [np.empty(0, dtype=np.int64)] * len(queries)
        pending = list(range(len(queries)))
        most = len(self) // 16 if allowed is not None else enough
        while pending and proposed <= most:
            _, candidates = self._codes.search(queries[pending], proposed)
            short = []
            for number, rows in zip(pending, candidates, strict=True):
                kept = rows[rows >= 0]  # FAISS fills up with -1
                if allowed is not None:
                    kept = kept[allowed[kept]]
                if len(kept) >= enough:
                    found[number] = kept
                else:
                    short.append(number)
            pending = short
            proposed *= 2
        return found

    def _nearest(self, query: Vectors, candidates: Rows, n: int) -> Rows:
        """The n nearest of many candidates by float32 distances, in no order: fewer to measure exactly."""
        if len(candidates) <= 2 * n:
            return candidates
        candidates = np.sort(candidates)  # memory is read forwards
        difference = self.flat.vectors(candidates)
        difference -= query
        nearest: Rows = candidates[np.argpartition(np.einsum("md,md->m", difference, difference), n)[:n]]
        return nearest
