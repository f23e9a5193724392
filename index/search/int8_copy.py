"""Eight bits per number of every vector, with a bound on what they hide: a faster first look that misses nothing."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np

from index.search.search import Rows, Vectors

_BLOCK = 8192  # rows decoded at once
_EPSILON = float(np.finfo(np.float32).eps)
_TINY = float(np.finfo(np.float32).tiny)


class Int8Copy:
    """The vectors rounded to 8 bits per number, each dimension over its own range; `dimension` bytes per row.

    A scan is bound by memory, so a quarter of the bytes is read in less than half the time. Let v' be what remains of
    v, and E the largest |v - v'| of all rows, measured when the copy is made. By the triangle inequality

        |q - v| >= |q - v'| - E

    so every row that was not proposed lies at least (the farthest proposed |q - v'|) - E away.
    """

    def __init__(self, vectors: Vectors) -> None:
        """Copy finite vectors [n, dimension]."""
        dimension = vectors.shape[1]
        index = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_L2)
        index.train(vectors)
        index.add(vectors)
        self._index = index
        worst = 0.0
        for start in range(0, len(vectors), _BLOCK):
            block = vectors[start : start + _BLOCK]
            hidden = index.reconstruct_n(start, len(block)).astype(np.float64) - block
            worst = max(worst, float(np.einsum("nd,nd->n", hidden, hidden).max()))
        largest = max(float(vectors.max()), -float(vectors.min()))
        # every search decodes the numbers again, and fused operations may round them otherwise: by a few eps of a
        # range of at most twice the largest number
        self._hidden = worst**0.5 + 16 * _EPSILON * largest * dimension**0.5
        self._relative = 1 - 2 * (dimension + 8) * _EPSILON  # what summing d squares may add
        self._absolute = dimension * _TINY  # and what underflow may take

    def propose(self, query: Vectors, n: int, parameters: Any) -> tuple[Rows, float]:
        """Return n candidates of one query [1, dimension] under FAISS search parameters, in no order.

        Returns:
            rows int64 [n], and the distance that every other row lies beyond or at.
        """
        squared, rows = self._index.search(query, n, params=parameters)
        return rows[0], max(float(squared[0, -1]) * self._relative - self._absolute, 0.0) ** 0.5 - self._hidden
