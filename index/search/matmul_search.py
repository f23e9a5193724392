"""The best rows of a batch of queries by one blocked matrix product: proposals for an exact search to measure."""

from __future__ import annotations

import numpy as np

from index.search.search import Rows, Vectors

_BLOCK = 1 << 18  # scores at once: 1 MiB, which stays in a core's cache between product and selection
_QUERIES = 256  # queries at once: more shrink the block of rows below what a product needs


def propose(vectors: Vectors, half_squares: Vectors, queries: Vectors, n: int) -> tuple[Vectors, Rows]:
    """Return the n rows of largest score q.v - |v|^2 / 2 of each query, in no order.

    That is the order of |q - v|^2 = |q|^2 - 2 score, turned round. A block's columns join the best so far only where
    one beats some query's n-th best, so nearly all the time goes to the product.

    Args:
        vectors: float32 [rows, dimension].
        half_squares: float32 [rows], |v|^2 / 2; infinity leaves a row out.
        queries: float32 [m, dimension].
        n: how many, at most the number of rows that are not left out.

    Returns:
        scores float32 [m, n], each query's smallest first; rows int64 [m, n].
    """
    scores = np.empty((len(queries), n), dtype=np.float32)
    rows = np.empty((len(queries), n), dtype=np.int64)
    for start in range(0, len(queries), _QUERIES):
        part = slice(start, start + _QUERIES)
        scores[part], rows[part] = _propose(vectors, half_squares, queries[part], n)
    return scores, rows


def _propose(vectors: Vectors, half_squares: Vectors, queries: Vectors, n: int) -> tuple[Vectors, Rows]:
    width = max(_BLOCK // len(queries), 2 * n)
    best = np.full((len(queries), n), -np.inf, dtype=np.float32)
    rows = np.full((len(queries), n), -1, dtype=np.int64)
    for start in range(0, len(vectors), width):
        scores = queries @ vectors[start : start + width].T  # [m, width]
        scores -= half_squares[start : start + width]
        columns = np.flatnonzero((scores > best[:, :1]).any(axis=0))
        if not len(columns):
            continue
        joined = np.concatenate([best, scores[:, columns]], axis=1)
        joined_rows = np.concatenate([rows, np.broadcast_to(columns + start, (len(queries), len(columns)))], axis=1)
        order = np.argpartition(joined, len(columns), axis=1)[:, len(columns) :]  # the n largest, the smallest first
        best = np.take_along_axis(joined, order, axis=1)
        rows = np.take_along_axis(joined_rows, order, axis=1)
    return best, rows
