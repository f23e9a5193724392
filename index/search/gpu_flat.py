"""Exact L2 search whose candidates come from a GPU, where the GPU build of FAISS is installed."""

from __future__ import annotations

import threading
from typing import Any

import faiss
import numpy as np

from index.search.flat import FlatIndex, OverFlat
from index.search.search import Mask, Rows, Vectors, check_search

_SPARE = 22  # candidates beyond k; doubts go to the processor, so there are more than in a scan there
_MOST = 1024  # candidates that a GPU search gives; 2048 is FAISS's limit
_EPSILON = float(np.finfo(np.float32).eps)


def find_gpu() -> bool:
    """Say whether FAISS was built for GPUs and one is visible."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class GpuFlatIndex(OverFlat):
    """A `FlatIndex` whose vectors also lie on the first GPU, 4 * dimension bytes per row. A `TitleSearch`; exact.

    The GPU proposes by |q|^2 + |v|^2 - 2 q.v in float32; measuring, and whatever its rounding leaves in doubt, stays on
    the processor, and so do filters, which FAISS's GPU indexes do not take. One search at a time: FAISS's GPU resources
    allow no more.
    """

    def __init__(self, flat: FlatIndex) -> None:
        """Copy a flat index to the GPU; `find_gpu` must be true."""
        self.flat = flat
        self._resources = faiss.StandardGpuResources()
        self._index: Any = faiss.index_cpu_to_gpu(self._resources, 0, flat.storage)
        self._lock = threading.Lock()

    def search(self, queries: Vectors, k: int, *, allowed: Mask | None = None) -> tuple[Vectors, Rows]:
        """Find the k nearest rows of each query, as `TitleSearch.search` says; exact."""
        queries, squares = check_search(queries, k, allowed, shape=(len(self), self.dimension))
        k = min(k, len(self))
        proposed = min(k + _SPARE, len(self))
        if proposed > _MOST or not len(queries) or (allowed is not None and not allowed.all()):
            return self.flat.search(queries, k, allowed=allowed)
        with self._lock:
            squared, candidates = self._index.search(queries, proposed)
        slack = 4 * (self.dimension + 8) * _EPSILON * (np.sqrt(squares) + self.flat.largest_norm) ** 2
        distances = np.empty((len(queries), k), dtype=np.float32)
        rows = np.empty((len(queries), k), dtype=np.int64)
        for number, found in enumerate(candidates):
            exact, ordered = self.flat.measure(queries[number], found)
            if proposed < len(self) and squared[number, -1] - slack[number] <= float(exact[k - 1]) ** 2:
                answer = self.flat.search(queries[number : number + 1], k)
                exact, ordered = answer[0][0], answer[1][0]
            distances[number], rows[number] = exact[:k], ordered[:k]
        return distances, rows
