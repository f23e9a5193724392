"""Searches that do not look at every row, or not at all of it: HNSW, inverted lists, 8-bit codes, 4-bit codes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Literal

import faiss
import numpy as np

from index.search.flat import FlatIndex, filtering, omp_threads, read_faiss
from index.search.search import Mask, Rows, Vectors, check_search

ApproximateKind = Literal["hnsw", "ivf", "sq", "pq"]

LEAST_ROWS = 16  # that "pq" can be trained on

_CLASSES = {
    "hnsw": "IndexHNSWFlat",
    "ivf": "IndexIVFFlat",
    "sq": "IndexIVFScalarQuantizer",
    "pq": "IndexPreTransform",
}
_LINKS = 32  # of HNSW: neighbours of a row in every layer but the lowest, which has twice as many
_CONSTRUCTION = 100  # efConstruction of HNSW: with FAISS's 40, clusters of titles are left without links between them
_LISTS_PER_ROOT = 2  # inverted lists per square root of the rows
_TRAINED_ON = 48  # rows per list that k-means sees; FAISS warns below 39
_KEPT_SHARE, _KEPT_LEAST = 1 / 3, 64  # dimensions of a vector that "pq" looks at: of 384, 192 take longer, 96 miss more
_CODES_TRAINED_ON = 65_536  # rows that "pq" is fitted to
_SPARE = 6  # candidates beyond k that are measured
_CODES_SPARE = 26  # the same where 8-bit codes proposed them, beyond 2k
_EXACT_BELOW = 1 / 20  # share of allowed rows: in fewer a scan is as fast, and exact
# The largest k that is not answered exactly: a fusion asks for up to 116 (`index.ranking.grounding`), and `DeltaSearch`
# for 256 more where the nearest are empty. Of 200,000 rows "pq" takes 2.2 ms at 116 and 4.7 at 372, a scan 5.3 and 5.8
_DEEPEST = 400


class ApproximateIndex:
    """A `TitleSearch` that finds most of the nearest rows, and measures exactly those it returns.

    FAISS proposes k rows and some more; their distances are measured in the float32 vectors, which a `FlatIndex` keeps.
    So no distance is approximate, and no order among the rows found; what can happen is that a nearer row is missing.
    The flat index also answers what is not answered here, and takes, with its coarse copy, 5 * dimension bytes per row.

        kind    looks at                                            bytes per row beside the flat index's
        hnsw    a graph over the flat index's own vectors           about 8 * 32
        ivf     a copy of the vectors in some of the lists          4 * dimension + 8
        sq      8-bit codes in some of the lists                    dimension + 8
        pq      4-bit codes of all rows                             dimension / 12

    "pq" keeps the third of the dimensions (of 64 or fewer: all) in which the titles differ most, principal components
    rotated at random so that each says as much, and 4 bits for each pair of them. That is so little that looking at all
    of it takes less time than choosing where to look, and unlike lists and graphs it loses nothing between clusters.

    A filter works inside the search, except for "pq", which proposes more until enough of them are allowed. As a filter
    thins out what a list or a neighbourhood offers, the breadth of the search grows as the allowed share falls. Below
    one allowed row in twenty, for a k over 400, or where fewer than k rows came back, the exact search answers.

    Attributes:
        kind: as above.
        flat: the exact search over the same rows.
        breadth: how far a search looks: efSearch of "hnsw", the number of lists of "ivf" and "sq", the number of
            candidates measured per ten of k for "pq". May be set.
    """

    def __init__(self, kind: ApproximateKind, flat: FlatIndex, index: Any, breadth: int) -> None:
        """Wrap a FAISS index over the same rows; use `build` or `read`.

        Raises:
            ValueError: the index is of another kind, has other rows or another dimension, or breadth < 1.
        """
        expected = _CLASSES[kind]
        if type(index).__name__ != expected:
            raise ValueError(f"a search of kind {kind} needs {expected}, found {type(index).__name__}")
        if (index.ntotal, index.d) != (len(flat), flat.dimension):
            raise ValueError(
                f"the {kind} index holds {index.ntotal} vectors of dimension {index.d}, "
                f"the flat one {len(flat)} of dimension {flat.dimension}"
            )
        if breadth < 1:
            raise ValueError(f"breadth must be at least 1, got {breadth}")
        if kind == "hnsw":
            index.own_fields = False
            index.storage = flat.storage
        self.kind = kind
        self.flat = flat
        self.breadth = breadth
        self._index = index

    @classmethod
    def build(cls, kind: ApproximateKind, flat: FlatIndex, *, threads: int = 1) -> ApproximateIndex:
        """Build the structure over the rows of a flat index; the breadth is the least that makes sense.

        Raises:
            ValueError: "pq" of fewer than 16 rows.
        """
        if kind == "pq" and len(flat) < LEAST_ROWS:
            raise ValueError(f"a search of kind pq needs at least {LEAST_ROWS} rows, got {len(flat)}")
        vectors = flat.matrix
        index = faiss.index_factory(flat.dimension, _recipe(kind, *vectors.shape))
        trained_on = vectors
        if kind == "hnsw":
            index.hnsw.efConstruction = _CONSTRUCTION
        elif kind == "pq":
            trained_on = np.ascontiguousarray(vectors[:: max(1, len(vectors) // _CODES_TRAINED_ON)])
            faiss.downcast_index(index.index).pq.cp.min_points_per_centroid = 1
        else:
            index.cp.max_points_per_centroid = _TRAINED_ON
            index.cp.min_points_per_centroid = 1  # tiny catalogs are allowed to have tiny lists
        with omp_threads(threads):
            index.train(trained_on)
            index.add(vectors)
        if kind == "hnsw":  # its own copy of the vectors goes; the flat index's takes its place
            index = faiss.deserialize_index(faiss.serialize_index(index, faiss.IO_FLAG_SKIP_STORAGE))
        return cls(kind, flat, index, breadth={"hnsw": 16, "pq": 20}.get(kind, 1))

    @classmethod
    def read(cls, kind: ApproximateKind, flat: FlatIndex, path: Path, *, breadth: int) -> ApproximateIndex:
        """Read what `write` wrote. Check the file's digest first: FAISS trusts what it reads.

        Raises:
            ValueError: the file holds no index of this kind over these rows.
        """
        return cls(kind, flat, read_faiss(path), breadth)

    def write(self, path: Path) -> None:
        """Write the structure without the flat index's vectors; not atomic, so write into a draft."""
        faiss.write_index(self._index, str(path), faiss.IO_FLAG_SKIP_STORAGE if self.kind == "hnsw" else 0)

    @property
    def broadest(self) -> int:
        """The breadth from which a search is about as slow as a scan."""
        return int(self._index.nlist) if self.kind in ("ivf", "sq") else max(len(self.flat) // 32, 64)

    def __len__(self) -> int:
        return len(self.flat)

    @property
    def dimension(self) -> int:
        return self.flat.dimension

    def vectors(self, rows: Rows) -> Vectors:
        """Return a copy of the vectors of some rows, [len(rows), dimension]."""
        return self.flat.vectors(rows)

    def search(
        self, queries: Vectors, k: int, *, allowed: Mask | None = None, threads: int = 1
    ) -> tuple[Vectors, Rows]:
        """Find k near rows of each query, as `TitleSearch.search` says; min(k, allowed rows) always come back."""
        queries, _ = check_search(queries, k, allowed, shape=(len(self), self.dimension))
        reachable = len(self) if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, reachable)
        if reachable < _EXACT_BELOW * len(self) or k > _DEEPEST or k == 0:
            return self.flat.search(queries, max(k, 1), allowed=allowed, threads=threads)
        if reachable == len(self):
            allowed = None
        with omp_threads(threads):
            candidates = self._propose(queries, k, allowed, reachable)
        distances = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for place, found in enumerate(candidates):
            if len(found) < k:
                answer = self.flat.search(queries[place : place + 1], k, allowed=allowed, threads=threads)
                distances[place], rows[place] = answer[0][0], answer[1][0]
            else:
                exact, ordered = self.flat.measure(queries[place], self._nearest(queries[place], found, k + _SPARE))
                distances[place], rows[place] = exact[:k], ordered[:k]
        return distances, rows

    def _propose(self, queries: Vectors, k: int, allowed: Mask | None, reachable: int) -> list[Rows]:
        """Candidates of each query, allowed ones only; perhaps fewer than k."""
        if self.kind == "pq":
            return self._overfetch(queries, k, allowed, reachable)
        proposed = min(2 * k + _CODES_SPARE if self.kind == "sq" else k + _SPARE, reachable)
        breadth = math.ceil(self.breadth * len(self) / reachable)
        if self.kind == "hnsw":
            settings = filtering(allowed, faiss.SearchParametersHNSW, efSearch=max(breadth, proposed))
        else:
            settings = filtering(allowed, faiss.SearchParametersIVF, nprobe=min(breadth, self.broadest))
        with settings as parameters:
            _, candidates = self._index.search(queries, proposed, params=parameters)
        return [found[found >= 0] for found in candidates]  # FAISS fills up with -1

    def _nearest(self, query: Vectors, candidates: Rows, n: int) -> Rows:
        """The n nearest of many candidates by float32 distances, in no order: fewer to measure exactly."""
        if len(candidates) <= 2 * n:
            return candidates
        candidates = np.sort(candidates)  # memory is read forwards
        difference = self.flat.vectors(candidates)
        difference -= query
        nearest: Rows = candidates[np.argpartition(np.einsum("md,md->m", difference, difference), n)[:n]]
        return nearest

    def _overfetch(self, queries: Vectors, k: int, allowed: Mask | None, reachable: int) -> list[Rows]:
        """Propose more and more until a query has as many allowed candidates as it would measure without a filter.

        A query that would need more than every sixteenth row gets none, and so an exact answer.
        """
        wanted = min(max(math.ceil(self.breadth * k / 10), k + _SPARE), reachable)
        proposed = math.ceil(wanted * len(self) / reachable)
        found: list[Rows] = [np.empty(0, dtype=np.int64)] * len(queries)
        pending = np.arange(len(queries))
        most = len(self) // 16 if allowed is not None else wanted
        while len(pending) and proposed <= most:
            _, candidates = self._index.search(queries[pending], proposed)
            kept = [rows[rows >= 0] for rows in candidates]  # FAISS fills up with -1
            if allowed is not None:
                kept = [rows[allowed[rows]] for rows in kept]
            enough = np.array([len(rows) >= wanted for rows in kept])
            for place, rows in zip(pending[enough], (kept[at] for at in np.flatnonzero(enough)), strict=True):
                found[place] = rows
            pending = pending[~enough]
            proposed *= 2
        return found


def _recipe(kind: ApproximateKind, rows: int, dimension: int) -> str:
    """FAISS's name for the structure."""
    if kind == "hnsw":
        return f"HNSW{_LINKS},Flat"
    if kind == "pq":
        kept = max(round(dimension * _KEPT_SHARE), min(dimension, _KEPT_LEAST))
        kept -= kept % 2 if kept > 1 else 0
        return f"PCAR{kept},PQ{max(kept // 2, 1)}x4fs"
    lists = max(1, min(int(_LISTS_PER_ROOT * math.sqrt(rows)), rows // _TRAINED_ON))
    return f"IVF{lists},{'Flat' if kind == 'ivf' else 'SQ8'}"
