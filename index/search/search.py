"""The contract of every search over the titles' vectors."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]
Rows = NDArray[np.int64]
Mask = NDArray[np.bool_]

_LARGEST_SQUARE = 1e36  # the square of a distance must not overflow float32


class TitleSearch(Protocol):
    """Vectors in rows, and the nearest rows of a query by L2.

    Two promises hold for every kind: a distance is that of the stored float32 vector, measured in float64 and rounded
    once; and min(k, allowed rows) rows come back. Whether they are the *nearest* rows is what kinds differ in: always
    for the flat ones, with the recall in the index's manifest for the approximate ones.
    """

    def __len__(self) -> int: ...

    @property
    def dimension(self) -> int:
        """Length of a vector."""

    def vectors(self, rows: Rows) -> Vectors:
        """Return a copy of the vectors of some rows, [len(rows), dimension]."""

    def search(self, queries: Vectors, k: int, *, allowed: Mask | None = None) -> tuple[Vectors, Rows]:
        """Find the k nearest rows of each query.

        Args:
            queries: float32 [n, dimension], finite.
            k: how many; cut to the number of (allowed) rows.
            allowed: bool [len(index)]; rows that may be returned. None: all.

        Scans use one thread. Matrix products (batches, see `FlatIndex`) use those that numpy's BLAS was started with.

        Returns:
            distances float32 [n, k], true L2 (not squared), ascending; rows int64 [n, k]; equal distances by row.

        Raises:
            ValueError: a shape does not fit, k < 1, or a query is not finite.
        """


def check_search(queries: Vectors, k: int, allowed: Mask | None, *, shape: tuple[int, int]) -> tuple[Vectors, Vectors]:
    """Check the arguments of a search in an index of `shape` = (rows, dimension).

    Returns:
        The queries as contiguous float32 [n, dimension], and their squared norms [n].

    Raises:
        ValueError: as `TitleSearch.search`.
    """
    queries = np.ascontiguousarray(queries, dtype=np.float32)
    if queries.ndim != 2 or queries.shape[1] != shape[1]:
        raise ValueError(f"queries must be [n, {shape[1]}], got shape {queries.shape}")
    if k < 1:
        raise ValueError(f"k must be at least 1, got {k}")
    if allowed is not None and allowed.shape != (shape[0],):
        raise ValueError(f"allowed must be [{shape[0]}], got shape {allowed.shape}")
    return queries, finite_squares("queries", queries)


def finite_squares(name: str, vectors: Vectors) -> Vectors:
    """Return the squared norms of vectors [n, dimension] as float32 [n].

    Raises:
        ValueError: a row is not finite, or so long that the square of a distance could overflow.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        squares: Vectors = np.einsum("nd,nd->n", vectors, vectors)
        fine = squares < _LARGEST_SQUARE  # False for NaN, too
    if not fine.all():
        raise ValueError(f"{name} must be finite and shorter than 1e18, row {int(np.argmin(fine))} is not")
    return squares
