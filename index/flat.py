"""Exact L2 search over the titles' vectors. The only module that imports faiss."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

_SPARE = 16  # candidates proposed beyond k; more only where ties or near ties ask for them
_EPSILON = float(np.finfo(np.float32).eps)
_LARGEST_SQUARE = 1e36  # the square of a distance must not overflow float32


class FlatIndex:
    """Vectors in rows, searched exhaustively: no training, no recall below 1.

    FAISS returns *squared* distances, and computes them in larger batches as |q|^2 + |v|^2 - 2 q.v, which cancels where
    vectors nearly coincide, so an answer depends on its batch. Here FAISS only proposes candidates, with as many spare
    ones as its rounding could confuse; their distances are then measured as sqrt(sum((q - v)^2)) in float64 and rounded
    once. The result equals brute force, whatever else is in the batch.
    """

    def __init__(self, index: Any) -> None:
        """Wrap a faiss.IndexFlatL2; use `build` or `read`."""
        self._index = index
        self._vectors: Vectors = faiss.rev_swig_ptr(index.get_xb(), index.ntotal * index.d).reshape(-1, index.d)
        self._largest_norm = float(np.sqrt(_squares(self._vectors).max()))

    @classmethod
    def build(cls, vectors: Vectors) -> FlatIndex:
        """Index vectors [n, dimension], n > 0; row r of the array is row r of the index. The array is copied.

        Raises:
            ValueError: the array is not two-dimensional, is empty, or holds a value that is not finite.
        """
        vectors = np.ascontiguousarray(vectors, dtype=np.float32)
        if vectors.ndim != 2 or 0 in vectors.shape:
            raise ValueError(f"vectors must be [n, dimension] with both positive, got shape {vectors.shape}")
        _check_finite("vectors", vectors)
        index = faiss.IndexFlatL2(vectors.shape[1])
        index.add(vectors)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> FlatIndex:
        """Read what `write` wrote. Check the file's digest first: FAISS trusts what it reads.

        Raises:
            ValueError: the file holds no flat L2 index.
        """
        try:
            index = faiss.read_index(str(path))
        except RuntimeError as error:
            raise ValueError(f"{path}: not a FAISS index ({str(error).splitlines()[0]})") from error
        if not isinstance(index, faiss.IndexFlatL2):
            raise ValueError(f"{path}: expected IndexFlatL2, found {type(index).__name__}")
        return cls(index)

    def write(self, path: Path) -> None:
        """Write the index; not atomic, so write into a draft."""
        faiss.write_index(self._index, str(path))

    def __len__(self) -> int:
        return int(self._index.ntotal)

    @property
    def dimension(self) -> int:
        return int(self._index.d)

    def vectors(self, rows: NDArray[np.int64]) -> Vectors:
        """Return a copy of the vectors of some rows, [len(rows), dimension]."""
        return self._vectors[rows]

    def search(
        self, queries: Vectors, k: int, *, allowed: NDArray[np.bool_] | None = None, threads: int = 1
    ) -> tuple[Vectors, NDArray[np.int64]]:
        """Find the k nearest rows of each query.

        Args:
            queries: float32 [n, dimension], finite.
            k: how many; cut to the number of (allowed) rows.
            allowed: bool [len(index)]; rows that may be returned. None: all.
            threads: OpenMP threads of this search. One is best for single queries, which are bound by memory.

        Returns:
            distances float32 [n, k], true L2 (not squared), ascending; rows int64 [n, k]; equal distances by row.

        Raises:
            ValueError: a shape does not fit, k < 1, or a query is not finite.
        """
        queries = np.ascontiguousarray(queries, dtype=np.float32)
        if queries.ndim != 2 or queries.shape[1] != self.dimension:
            raise ValueError(f"queries must be [n, {self.dimension}], got shape {queries.shape}")
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}")
        if allowed is not None and allowed.shape != (len(self),):
            raise ValueError(f"allowed must be [{len(self)}], got shape {allowed.shape}")
        _check_finite("queries", queries)
        reachable = len(self) if allowed is None else int(np.count_nonzero(allowed))
        k = min(k, reachable)
        distances = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        if k == 0:
            return distances, rows
        parameters = None
        if allowed is not None:
            bitmap = np.packbits(allowed, bitorder="little")
            selector = faiss.IDSelectorBitmap(len(bitmap), faiss.swig_ptr(bitmap))  # borrows bitmap
            parameters = faiss.SearchParameters()
            parameters.sel = selector  # borrowed, too
        # FAISS rounds a squared distance by at most about dimension * eps * (|q| + |v|)^2, with either formula.
        slack = 2 * (self.dimension + 8) * _EPSILON * (np.sqrt(_squares(queries)) + self._largest_norm) ** 2
        pending = np.arange(len(queries))
        proposed = min(k + _SPARE, reachable)
        with _omp_threads(threads):
            while len(pending):
                squared, candidates = self._index.search(queries[pending], proposed, params=parameters)
                left_out = squared[:, -1] - slack[pending]  # what was not proposed lies at least this far
                unsure = []
                for place, found, bound in zip(pending, candidates, left_out, strict=True):
                    exact, ordered = self._measure(queries[place], found)
                    distances[place], rows[place] = exact[:k], ordered[:k]
                    if proposed < reachable and bound <= float(exact[k - 1]) ** 2:
                        unsure.append(place)
                pending = np.array(unsure, dtype=np.int64)
                proposed = min(2 * proposed, reachable)
        return distances, rows

    def _measure(self, query: Vectors, candidates: NDArray[np.int64]) -> tuple[Vectors, NDArray[np.int64]]:
        """Order candidate rows [m] by their exact distance to one query, then by row."""
        rows = np.sort(candidates)
        difference = self._vectors[rows].astype(np.float64) - query  # [m, dimension]
        distances = np.sqrt(np.einsum("md,md->m", difference, difference)).astype(np.float32)
        order = np.argsort(distances, kind="stable")
        return distances[order], rows[order]


def _squares(vectors: Vectors) -> Vectors:
    squares: Vectors = np.einsum("nd,nd->n", vectors, vectors)
    return squares


def _check_finite(name: str, vectors: Vectors) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        fine = _squares(vectors) < _LARGEST_SQUARE  # False for NaN, too
    if not fine.all():
        raise ValueError(f"{name} must be finite and shorter than 1e18, row {int(np.argmin(fine))} is not")


@contextmanager
def _omp_threads(threads: int) -> Iterator[None]:
    """Set this thread's OpenMP width for a while; whoever shares the runtime finds it as it was."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(threads)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
