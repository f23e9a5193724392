"""Which search a catalog gets: exact while that is fast, else product codes that keep a recall floor."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from index.search.flat import FlatIndex
from index.search.gpu_flat import GpuFlatIndex, find_gpu
from index.search.product_codes import ProductCodesIndex
from index.search.search import TitleSearch, Vectors

SearchKind = Literal["auto", "flat", "pq"]

VECTORS = "vectors.faiss"
CODES = "search.faiss"  # beside it, for "pq"

FLAT_UP_TO = 200_000  # rows: one exact query takes 5 ms there on one core
CODES_FROM = 1_000  # rows: with fewer a scan is faster
RECALL_FLOOR = 0.98

_QUERIES = 256  # that measure recall
_DEPTH = 10  # of the recall
_STEP = 1.5  # by which the breadth grows from one try to the next
_GPU_FROM = 100_000  # rows: in fewer the processor answers before the GPU would


@dataclass(frozen=True)
class SearchRequest:
    """Which search a version was asked for, which a merge asks for again; see `build_search`.

    Raises:
        ValueError: recall_floor is not in (0, 1], or the kind is unknown.
    """

    kind: SearchKind = "auto"
    recall_floor: float = RECALL_FLOOR

    def __post_init__(self) -> None:
        if not 0 < self.recall_floor <= 1:
            raise ValueError(f"recall_floor must be in (0, 1], got {self.recall_floor}")
        if self.kind not in get_args(SearchKind):
            raise ValueError(f"kind must be one of {', '.join(get_args(SearchKind))}, got {self.kind!r}")


def build_search(vectors: Vectors, request: SearchRequest) -> tuple[TitleSearch, dict[str, Any]]:
    """Index vectors [n, dimension], n > 0; row r of the array is row r of the search.

    "auto" is flat up to 200,000 rows and "pq" above. Product codes propose more and more candidates until their
    recall@10 reaches the floor, on 256 titles' vectors moved by half the median distance to the nearest neighbour (as a
    written title misses the one it means). Where they would have to propose nearly everything, the search is flat.

    Args:
        vectors: float32, finite.
        request: which kind, and the share of the ten nearest rows that must be found.

    Returns:
        The search, and its facts for the manifest: `kind`, `breadth`, `recall_at_10`, `queries`; of a flat search
        `kind` and `recall_at_10` = 1; `instead_of` where it replaces product codes, because there are under 1,000 rows
        or because the floor was not reached, then with `recall_reached`.

    Raises:
        ValueError: the vectors are empty or not finite.
    """
    flat = FlatIndex.build(vectors)
    exact = {"kind": "flat", "recall_at_10": 1.0}
    if request.kind == "flat" or (request.kind == "auto" and len(flat) <= FLAT_UP_TO):
        return flat, exact
    if len(flat) < CODES_FROM:
        return flat, exact | {"instead_of": "pq"}
    search = ProductCodesIndex.build(flat)
    recall = _widen(search, sample_queries(flat, _QUERIES), request.recall_floor)
    if recall < request.recall_floor:
        return flat, exact | {"instead_of": "pq", "recall_reached": recall}
    return search, {"kind": "pq", "breadth": search.breadth, "recall_at_10": recall, "queries": _QUERIES}


def _widen(search: ProductCodesIndex, queries: Vectors, recall_floor: float) -> float:
    """Raise the search's breadth until the floor holds or a scan is as fast; returns the recall reached."""
    exact, _ = search.flat.search(queries, _DEPTH)
    while True:
        recall = recall_of(search, queries, exact)
        wider = math.ceil(search.breadth * _STEP)
        if recall >= recall_floor or wider > search.broadest // 2:
            return recall
        search.breadth = wider


def recall_of(search: TitleSearch, queries: Vectors, exact: Vectors) -> float:
    """Share of the k nearest that a search finds, given their exact distances [n, k].

    A row counts when it is no farther than the k-th nearest, so any of several ties counts.
    """
    found, _ = search.search(queries, exact.shape[1])
    return float(np.mean(found <= exact[:, -1:]))


def sample_queries(flat: FlatIndex, n: int, *, seed: int = 0) -> Vectors:
    """Return up to n vectors of an index, each moved in a random direction by half the median nearest distance."""
    generator = np.random.default_rng(seed)
    rows = np.sort(generator.choice(len(flat), size=min(n, len(flat)), replace=False))
    vectors = flat.vectors(rows)
    nearest, _ = flat.search(vectors, 2)
    step = generator.normal(size=vectors.shape)
    step *= 0.5 * float(np.median(nearest[:, -1])) / np.linalg.norm(step, axis=1, keepdims=True)
    moved: Vectors = (vectors + step).astype(np.float32)
    return moved


def describe_search(facts: Mapping[str, Any]) -> str:
    """Describe the search of a manifest in a few words, and why it is not the requested one.

    Example:
        >>> describe_search({"kind": "pq", "breadth": 68, "recall_at_10": 0.98437, "queries": 256})
        'pq, recall@10 0.984 over 256 queries'
        >>> describe_search({"kind": "flat", "recall_at_10": 1.0, "instead_of": "pq", "recall_reached": 0.95})
        'flat (exact) instead of pq, whose recall@10 stayed at 0.950'
    """
    if facts["kind"] != "flat":
        return f"{facts['kind']}, recall@10 {facts['recall_at_10']:.3f} over {facts['queries']} queries"
    if "instead_of" not in facts:
        return "flat (exact)"
    if "recall_reached" not in facts:
        return f"flat (exact) instead of {facts['instead_of']}, which needs {CODES_FROM:,} titles"
    return f"flat (exact) instead of {facts['instead_of']}, whose recall@10 stayed at {facts['recall_reached']:.3f}"


def write_search(directory: Path, search: TitleSearch) -> None:
    """Write the files of a search that `build_search` gave into an artifact's draft."""
    if isinstance(search, ProductCodesIndex):
        search.write(directory / CODES)
        search = search.flat
    if not isinstance(search, FlatIndex):
        raise TypeError(f"only what build_search returns can be written, got {type(search).__name__}")
    search.write(directory / VECTORS)


def read_search(directory: Path, facts: Mapping[str, Any]) -> TitleSearch:
    """Read what `write_search` wrote, on a GPU where FAISS has one and the catalog is large enough.

    Args:
        directory: the artifact's folder; its digests are checked already.
        facts: the manifest's entry of the search.

    Raises:
        ValueError: a file is truncated or is no such index, or the facts name another kind or no breadth.
    """
    match facts:
        case {"kind": "flat"}:
            flat = FlatIndex.read(directory / VECTORS)
            return GpuFlatIndex(flat) if len(flat) >= _GPU_FROM and find_gpu() else flat
        case {"kind": "pq", "breadth": int(breadth)}:
            return ProductCodesIndex.read(FlatIndex.read(directory / VECTORS), directory / CODES, breadth=breadth)
    raise ValueError(f"the search must be flat, or pq with a breadth; the manifest says {facts!r}")
