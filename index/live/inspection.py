"""Is the index sound? Each check states its finding and, where needed, a remedy."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog
from index.live.live import MERGE_AT
from index.live.outcome import NEAR
from index.live.snapshot import Snapshot
from index.search.flat import FlatIndex
from index.search.kind import recall_of, sample_queries

Severity = Literal["ok", "notice", "wrong"]

SAMPLE = 1000  # rows that are looked at where all of them would take too long
FEWER, MANY_ROWS = 200, 100_000  # of so many rows only so few are looked at: exact search is linear in them
_BATCH = 256
_QUERIES = 64
_SAMPLING = 0.01  # tolerance below the recall floor: these 64 queries are not those of the build
_SHOWN = 3
_AGREE = 1e-3  # of a vector's length: how far the same title's vectors may lie apart, embedded in another batch
_TIMED = 100

Rows = NDArray[np.int64]
Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        verdict: "notice" is worth knowing but breaks nothing; "wrong" gives wrong or fewer answers.
        remedy: empty when nothing is to be done.
    """

    what: str
    verdict: Severity
    found: str
    remedy: str = ""


def inspect_index(snapshot: Snapshot, *, pending: int, rebuild: str) -> list[Check]:
    """Look at a loaded index, with the changes laid over it.

    Args:
        snapshot: the index.
        pending: changes that its version does not cover.
        rebuild: the command that builds it again, for remedies.
    """
    alive = np.array(
        [row for row in range(len(snapshot.catalog)) if row not in snapshot.catalog.empty_rows], dtype=np.int64
    )
    if not len(alive):
        return [Check("rows", "wrong", "the catalog has no item left", "put items with `softrec index change`")]
    finite = _check_vectors(snapshot, rebuild)
    if finite.verdict == "wrong":
        return [finite]  # nothing can be searched with such values
    sample, most = alive, SAMPLE if len(alive) <= MANY_ROWS else FEWER
    if len(alive) > most:
        sample = np.sort(np.random.default_rng(0).choice(alive, most, replace=False))
    vectors = snapshot.grounder.index.vectors(sample)
    nearest = _search(snapshot, vectors, 2)
    return [
        _describe_changes(snapshot, pending, rebuild),
        finite,
        _check_encoder(snapshot, sample, len(alive), rebuild),
        _check_self_retrieval(snapshot, sample, vectors, nearest, len(alive), rebuild),
        _describe_duplicates(snapshot.catalog),
        _describe_near(snapshot, sample, vectors, nearest, len(alive)),
        _check_recall(snapshot, rebuild),
        _time_search(snapshot, sample),
    ]


def _describe_changes(snapshot: Snapshot, pending: int, rebuild: str) -> Check:
    added = len(snapshot.catalog) - len(snapshot.catalog.overlaid)
    found = f"{pending} since this version, {added} new titles; {len(snapshot.catalog.empty_rows)} rows without items"
    remedy = f"merge them: `{rebuild}`" if pending >= MERGE_AT else ""
    return Check("pending changes", "notice" if remedy else "ok", found, remedy)


def _check_vectors(snapshot: Snapshot, rebuild: str) -> Check:
    lengths = []
    for start in range(0, len(snapshot.catalog), 65_536):
        rows = np.arange(start, min(start + 65_536, len(snapshot.catalog)))
        vectors = snapshot.grounder.index.vectors(rows).astype(np.float64)
        lengths.append(np.sqrt(np.einsum("nd,nd->n", vectors, vectors)))
    norms = np.concatenate(lengths)
    broken = np.flatnonzero(~np.isfinite(norms))
    if len(broken):
        found = f"{len(broken)} are not finite: {_titles(snapshot.catalog, broken)}"
        return Check("vectors", "wrong", found, f"build it again: `{rebuild}`")
    zero = np.flatnonzero(norms == 0)
    if len(zero):
        found = f"{len(zero)} are zero, so the encoder sees nothing in their titles: {_titles(snapshot.catalog, zero)}"
        return Check("vectors", "notice", found, "give these titles text, or choose another encoder")
    low, middle, high = norms.min(), np.median(norms), norms.max()
    return Check("vectors", "ok", f"finite; length {low:.3f} to {high:.3f}, median {middle:.3f}")


def _check_encoder(snapshot: Snapshot, sample: Rows, rows: int, rebuild: str) -> Check:
    stored = snapshot.grounder.index.vectors(sample)
    again = snapshot.grounder.encoder.encode([snapshot.catalog.titles[row] for row in sample])
    apart = np.linalg.norm(stored.astype(np.float64) - again, axis=1)
    bound = _AGREE * max(1.0, float(np.linalg.norm(stored, axis=1).max()))
    off = sample[apart > bound]
    if len(off):
        found = f"{len(off)} {_of(sample, rows)} titles embed to another vector: {_titles(snapshot.catalog, off)}"
        return Check("encoder", "wrong", found, f"build it again: `{rebuild}`")
    return Check(
        "encoder", "ok", f"{snapshot.encoder_name}; {_of(sample, rows)} titles embed to the stored vector again"
    )


def _check_self_retrieval(
    snapshot: Snapshot, sample: Rows, vectors: Vectors, nearest: tuple[Vectors, Rows], rows: int, rebuild: str
) -> Check:
    """A title's own vector must find it, or a row of the very same vector."""
    first = nearest[1][:, 0]
    same = (snapshot.grounder.index.vectors(first) == vectors).all(axis=1)
    lost = sample[(first != sample) & ~same]
    share = 1 - len(lost) / len(sample)
    found_text = f"{share:.2%} of {_of(sample, rows)} titles"
    if len(lost):
        found_text += f"; not found: {_titles(snapshot.catalog, lost)}"
        return Check("self-retrieval", "wrong", found_text, f"build it again: `{rebuild}`")
    return Check("self-retrieval", "ok", found_text)


def _describe_duplicates(catalog: Catalog) -> Check:
    several = [row for row in range(len(catalog)) if len(catalog.items_of(row)) > 1]
    if not several:
        return Check("duplicate titles", "ok", "none")
    shown = ", ".join(
        f"{catalog.titles[row]!r} ({', '.join(item.item_id for item in catalog.items_of(row)[:_SHOWN])})"
        for row in several[:_SHOWN]
    )
    return Check(
        "duplicate titles",
        "notice",
        f"titles that stand for several items: {len(several)}; {shown}",
        "tell them apart in the title (year, edition), or leave them: they follow each other in answers",
    )


def _describe_near(
    snapshot: Snapshot, sample: Rows, vectors: Vectors, nearest: tuple[Vectors, Rows], rows: int
) -> Check:
    """Titles whose nearest other lies within `NEAR` of their vector's length."""
    pairs: dict[tuple[int, int], float] = {}
    for row, length, distances, others in zip(sample.tolist(), np.linalg.norm(vectors, axis=1), *nearest, strict=True):
        for distance, other in zip(distances.tolist(), others.tolist(), strict=True):
            if other != row and distance <= NEAR * length:
                pairs[min(row, other), max(row, other)] = distance
    if not pairs:
        return Check("near-duplicate titles", "ok", f"none among {_of(sample, rows)}")
    titles = snapshot.catalog.titles
    shown = "; ".join(
        f"{titles[one]!r} and {titles[other]!r} ({distance:.3f})"
        for (one, other), distance in sorted(pairs.items(), key=lambda pair: (pair[1], pair[0]))[:_SHOWN]
    )
    return Check(
        "near-duplicate titles",
        "notice",
        f"pairs among {_of(sample, rows)}: {len(pairs)}; {shown}",
        "if they are one thing, give them one title; if not, L2 search takes one for the other: tell them apart",
    )


def _check_recall(snapshot: Snapshot, rebuild: str) -> Check:
    """Share of the exact ten nearest that the index finds, for vectors a little off the titles'."""
    index = snapshot.grounder.index
    flat = FlatIndex.build(index.vectors(np.arange(len(snapshot.catalog))))
    queries = sample_queries(flat, _QUERIES)
    alive = np.array([row not in snapshot.catalog.empty_rows for row in range(len(flat))], dtype=np.bool_)
    exact, _ = flat.search(queries, 10, allowed=alive)
    recall = recall_of(index, queries, exact)
    floor = snapshot.search_request.recall_floor
    text = f"{recall:.3f} against exact search, {len(queries)} queries"
    if recall < floor - _SAMPLING:
        return Check("recall@10", "wrong", f"{text}; {floor} is asked for", f"build it again: `{rebuild}`")
    return Check("recall@10", "ok", text)


def _time_search(snapshot: Snapshot, sample: Rows) -> Check:
    took_ms = []
    for row in np.resize(sample, _TIMED):
        vector = snapshot.grounder.index.vectors(np.array([row]))
        start = time.perf_counter()
        snapshot.grounder.index.search(vector, 10)
        took_ms.append((time.perf_counter() - start) * 1000)
    middle, slow = np.percentile(took_ms, [50, 95])
    return Check("search latency", "ok", f"one query, one thread: p50 {middle:.2f} ms, p95 {slow:.2f} ms")


def _search(snapshot: Snapshot, queries: Vectors, k: int) -> tuple[Vectors, Rows]:
    parts = [snapshot.grounder.index.search(queries[at : at + _BATCH], k) for at in range(0, len(queries), _BATCH)]
    return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])


def _of(sample: Rows, rows: int) -> str:
    return f"all {rows}" if len(sample) == rows else f"{len(sample)} of {rows}"


def _titles(catalog: Catalog, rows: Rows | Sequence[int]) -> str:
    return ", ".join(repr(catalog.titles[row]) for row in list(rows)[:_SHOWN])
