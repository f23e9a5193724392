"""Exact L2 search over the titles' vectors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np

from index.search.int8_copy import Int8Copy
from index.search.matmul_search import propose
from index.search.search import Mask, Rows, Vectors, check_search, finite_squares

_SPARE = 6  # candidates proposed beyond k; more only where ties or near ties ask for them
_PRODUCT_SPARE = 16  # the same where a product proposes, whose rounding leaves more in doubt
_PRODUCT_FROM = 4  # queries: with fewer FAISS's scan is faster than a product (100k x 384, one core: 16 against 17 ms)
_GATHER_BELOW = 1 / 16  # share of allowed rows: fewer are copied together faster than FAISS skips the others
_INT8_FROM = 10_000  # rows: in fewer, which fit into a cache, there is little to gain
_INT8_ROWS_PER_K = 100  # in fewer rows the exact measuring costs what the scan saves (10k x 384: from a k of 100 on)
_INT8_SPARE = 12  # candidates beyond 2k from the 8-bit copy
_EPSILON = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)


class FlatIndex:
    """Vectors in rows, searched exhaustively: no training, no recall below 1. A `TitleSearch`.

    A fast float32 pass proposes k rows and spare ones; their distances are measured as sqrt(sum((q - v)^2)) in float64
    and rounded once. A bound on the rounding of the pass says whether another row could belong to the answer; if so,
    more are proposed. So the result equals brute force, whatever else is in the batch.

    The pass: for up to three queries a scan of the 8-bit copy (`Int8Copy`), then FAISS's scan of the vectors; for more
    queries, or few allowed rows, a matrix product, whose doubts are scanned.

    Memory: 4 * dimension bytes per row, and `dimension` for the 8-bit copy, from 10,000 rows on.
    """

    def __init__(self, index: Any) -> None:
        """Wrap a faiss.IndexFlatL2; use `build` or `read`.

        Raises:
            ValueError: the index is empty, or holds a value that is not finite.
        """
        if index.ntotal < 1:
            raise ValueError("the index holds no vectors")
        self._index = index
        self._vectors: Vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, index.d)
        squares = finite_squares("vectors", self._vectors)
        self._half_squares: Vectors = np.multiply(squares, np.float32(0.5))  # [n], for products
        self.largest_norm = float(np.sqrt(squares.max()))
        self._int8_copy = Int8Copy(self._vectors) if len(self) >= _INT8_FROM else None

    @classmethod
    def build(cls, vectors: Vectors) -> FlatIndex:
        """Index vectors [n, dimension], n > 0; row r of the array is row r of the index. The array is copied.

        Raises:
            ValueError: the array is not two-dimensional, is empty, or holds a value that is not finite.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise ValueError(f"vectors must be [n, dimension] with both positive, got shape {vectors.shape}")
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> FlatIndex:
        """Read what `write` wrote. Check the file's digest first: FAISS trusts what it reads.

        Raises:
            ValueError: the file holds no flat L2 index, an empty one, or vectors that are not finite.
        """
        index = read_faiss(path)
        if not isinstance(index, faiss.IndexFlatL2):
            raise ValueError(f"{path}: expected IndexFlatL2, found {type(index).__name__}")
        return cls(index)

    def write(self, path: Path) -> None:
        """Write the index; not atomic, so write into a draft."""
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    @property
    def storage(self) -> Any:
        """The faiss.IndexFlatL2 that holds the vectors; an index built over it must keep this object."""
        return self._index

    @property
    def matrix(self) -> Vectors:
        """All vectors [n, dimension] where they lie, not a copy; not to be changed."""
        return self._vectors

    def vectors(self, rows: Rows) -> Vectors:
        """Return a copy of the vectors of some rows, [len(rows), dimension]."""
        return self._vectors[rows]

    def search(self, queries: Vectors, k: int, *, allowed: Mask | None = None) -> tuple[Vectors, Rows]:
        """Find the k nearest rows of each query, as `TitleSearch.search` says; exact."""
        queries, squares = check_search(queries, k, allowed, shape=self._vectors.shape)
        reachable = len(self) if allowed is None else int(np.count_nonzero(allowed))
        if reachable == len(self):
            allowed = None
        k = min(k, reachable)
        distances = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        if k == 0:
            return distances, rows
        few = reachable <= _GATHER_BELOW * len(self)
        doubtful = list(range(len(queries)))
        if few or len(queries) >= _PRODUCT_FROM:
            doubtful = self._multiply(queries, squares, allowed, reachable, few, distances, rows)
        if doubtful:
            with one_thread():
                for number in doubtful:
                    distances[number], rows[number] = self._scan(queries[number : number + 1], k, allowed, reachable)
        return distances, rows

    def _scan(self, query: Vectors, k: int, allowed: Mask | None, reachable: int) -> tuple[Vectors, Rows]:
        """One query [1, dimension] by scans, with more candidates until no other row could belong to the k."""
        with _filtering(allowed) as parameters:
            if self._int8_copy is not None and k * _INT8_ROWS_PER_K <= len(self):
                found, left_out = self._int8_copy.propose(query, min(2 * k + _INT8_SPARE, reachable), parameters)
                distances, rows = self.measure(query[0], found)
                if len(rows) == reachable or left_out > float(distances[k - 1]):
                    return distances[:k], rows[:k]
            proposed = min(k + _SPARE, reachable)
            while True:
                squared, candidates = self._index.search(query, proposed, params=parameters)
                distances, rows = self.measure(query[0], candidates[0])
                # a sum of d rounded squares is off by at most about d * eps of itself, and by what underflowed
                left_out = float(squared[0, -1]) * (1 - 2 * (self.dimension + 8) * _EPSILON) - self.dimension * _TINY
                if proposed == reachable or left_out > float(distances[k - 1]) ** 2:
                    return distances[:k], rows[:k]
                proposed = min(2 * proposed, reachable)

    def _multiply(
        self,
        queries: Vectors,
        squares: Vectors,
        allowed: Mask | None,
        reachable: int,
        few: bool,
        distances: Vectors,
        rows: Rows,
    ) -> list[int]:
        """Fill in distances and rows [n, k] by a product; returns which queries it leaves in doubt."""
        k = distances.shape[1]
        chosen = np.flatnonzero(allowed) if few and allowed is not None else None
        half_squares = self._half_squares
        if chosen is None and allowed is not None:
            half_squares = np.where(allowed, half_squares, np.float32(np.inf))
        scores, candidates = propose(
            self._vectors if chosen is None else self._vectors[chosen],
            half_squares if chosen is None else half_squares[chosen],
            queries,
            min(k + _PRODUCT_SPARE, reachable),
        )
        if chosen is not None:
            candidates = chosen[candidates]
        # either product is off by at most about d * eps of itself: in all less than half of this
        slack = 2 * (self.dimension + 8) * _EPSILON * (np.sqrt(squares) + self.largest_norm) ** 2
        # what was not proposed lies at least this far, squared
        left_out = squares - 2 * scores[:, 0] - slack - self.dimension * _TINY
        doubtful = []
        for number, found in enumerate(candidates):
            exact, ordered = self.measure(queries[number], found)
            distances[number], rows[number] = exact[:k], ordered[:k]
            if len(found) < reachable and left_out[number] <= float(exact[k - 1]) ** 2:
                doubtful.append(number)
        return doubtful

    def measure(self, query: Vectors, candidates: Rows) -> tuple[Vectors, Rows]:
        """Order candidate rows [m] by their exact distance to one query [dimension], then by row."""
        rows = np.sort(candidates)
        difference = self._vectors[rows].astype(np.float64)  # [m, dimension]
        difference -= query
        distances = np.sqrt(np.einsum("md,md->m", difference, difference)).astype(np.float32)
        order = np.argsort(distances, kind="stable")
        return distances[order], rows[order]


class OverFlat:
    """The part of a `TitleSearch` that an index over a `FlatIndex` takes from it: the same rows and vectors."""

    flat: FlatIndex

    def __len__(self) -> int:
        return len(self.flat)

    @property
    def dimension(self) -> int:
        return self.flat.dimension

    def vectors(self, rows: Rows) -> Vectors:
        return self.flat.vectors(rows)


def read_faiss(path: Path) -> Any:
    """Read any FAISS index.

    Raises:
        ValueError: the file holds none, or only a part of one.
    """
    try:
        return faiss.read_index(str(path))
    except (RuntimeError, MemoryError) as error:
        raise ValueError(f"{path}: not a FAISS index ({str(error).splitlines()[0]})") from error


@contextmanager
def _filtering(allowed: Mask | None) -> Iterator[Any]:
    """Lend FAISS search parameters that restrict a search to the allowed rows [len(index)]; None for all rows."""
    if allowed is None:
        yield None
        return
    bitmap = np.packbits(allowed, bitorder="little")
    selector = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))  # borrows bitmap, which lives until we end
    yield faiss.SearchParameters(sel=selector)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let FAISS use one OpenMP thread for a while: a single query is bound by memory, and servers run many."""
    before = faiss.omp_get_max_threads()
    if before == 1:
        yield
        return
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
