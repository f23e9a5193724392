"""GpuFlatIndex without a GPU: FAISS's processor index stands in for the copy, so all but the GPU itself is run."""

from typing import Any

import faiss
import numpy as np
import pytest
from numpy.typing import NDArray

from index.search.flat import FlatIndex
from index.search.gpu_flat import GpuFlatIndex, find_gpu
from index.search.kind import read_search, write_search


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Pretend that FAISS sees a GPU; holds what was copied to it."""
    copied: list[Any] = []
    monkeypatch.setattr(faiss, "StandardGpuResources", object, raising=False)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 1, raising=False)
    monkeypatch.setattr(
        faiss, "index_cpu_to_gpu", lambda _resources, _gpu, index: copied.append(index) or index, raising=False
    )
    return copied


def ties(n: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).integers(-2, 3, size=(n, 4)).astype(np.float32)


def test_equals_the_flat_index_whether_sure_or_in_doubt(copies: list[Any]) -> None:
    """400 rows on 625 places leave ties, so in doubt; k and filters also go beyond what the GPU takes."""
    vectors, queries = ties(400), ties(30)
    flat = FlatIndex.build(vectors)
    index = GpuFlatIndex(flat)
    assert copies == [flat.storage]
    assert (len(index), index.dimension, index.vectors(np.array([3])).tolist()) == (400, 4, [vectors[3].tolist()])
    allowed = np.arange(400) % 3 == 0
    for k, mask in ((1, None), (10, None), (10, allowed), (999, None), (2, np.ones(400, dtype=bool))):
        for ours, theirs in zip(
            index.search(queries, k, allowed=mask), flat.search(queries, k, allowed=mask), strict=True
        ):
            np.testing.assert_array_equal(ours, theirs)
    assert index.search(queries[:0], 3)[1].shape == (0, 3)


def test_large_flat_catalogs_move_to_the_gpu_where_there_is_one(
    copies: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    write_search(tmp_path, FlatIndex.build(ties(50)))
    assert isinstance(read_search(tmp_path, {"kind": "flat"}), FlatIndex)
    monkeypatch.setattr("index.search.kind._GPU_FROM", 50)
    assert isinstance(read_search(tmp_path, {"kind": "flat"}), GpuFlatIndex)
    monkeypatch.setattr(faiss, "get_num_gpus", lambda: 0)
    assert not find_gpu()
    assert isinstance(read_search(tmp_path, {"kind": "flat"}), FlatIndex)
