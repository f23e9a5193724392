"""Search and building of the index against raw FAISS and raw sentence-transformers.

    python -m benchmarks.index.search [--quick] [--threads 1] [--items CSV]

Ours and the raw one take turns within one run, on the same vectors and queries; a ratio is of medians over the turns.
With one thread CPU seconds are counted, which a busy machine changes little; with more, seconds by the clock. Vectors
are made up (`made_vectors.py`); a query is a title's vector moved by half the median distance to the nearest neighbour.

    single_*     seconds of IndexFlatL2.search over those of FlatIndex.search, one query, k = 10
    batch64      the same for 64 queries at 100k
    ann_speedup  seconds of IndexFlatL2.search at 1M over those of the kind that `build_search` chose, one query
    ann_recall   its recall@10, on queries that did not tune it
    build        titles per second of `encode_titles` and `build_search` over those of SentenceTransformer.encode

"Identical" is checked, not assumed, and ends the run where it fails: our rows and distances equal a brute force in
float64 (rounded once, ties by row); FAISS's distances, and the true ones of its rows, equal ours place by place within
1e-5 of themselves (one query) or 1e-4 (64: its product cancels), and how many of its rows are the same is printed.

`--items` embeds a shop's titles. `--quick` makes fewer and smaller ones, a million rows become 50k; it is no measure.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import faiss
import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.index.made_titles import make_titles, read_titles
from benchmarks.index.made_vectors import make_vectors
from benchmarks.training.clock import describe_clock, seconds
from benchmarks.training.measuring import peak_mib
from index.live.versions import encode_titles
from index.search.encoder import SentenceTransformerEncoder
from index.search.flat import FlatIndex
from index.search.kind import SearchRequest, build_search, recall_of, sample_queries

K = 10
LARGEST = "1m"
SIZES = {"17k": 17_000, "100k": 100_000, LARGEST: 1_000_000}
QUICK_SIZES = {"17k": 17_000, "100k": 30_000, LARGEST: 50_000}

Vectors = NDArray[np.float32]


@dataclass(frozen=True)
class Turns:
    """How often each side is measured."""

    single: int
    batch: int
    approximate: int
    encode: int
    titles: int


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--items", type=Path, help="an items file whose titles are embedded (default: made up)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    faiss.omp_set_num_threads(arguments.threads)
    blas = {name: os.environ.get(name) for name in ("OMP_NUM_THREADS", "OPENBLAS_CORETYPE")}
    print(f"{describe_clock()}; FAISS {faiss.__version__}, numpy {np.__version__}, {blas}\n")
    turns = Turns(20, 2, 20, 1, 256) if arguments.quick else Turns(60, 7, 60, 4, 2048)
    figures: dict[str, float] = {}
    for name, rows in (QUICK_SIZES if arguments.quick else SIZES).items():
        flat = FlatIndex.build(make_vectors(rows))
        queries = sample_queries(flat, 64, seed=1)
        _check_identical(flat, queries)
        figures[f"single_{name}"] = _single(flat, queries, turns.single)
        if name == "100k":
            figures["batch64"] = _batch(flat, queries, turns.batch)
        if name == LARGEST:
            figures["ann_speedup"], figures["ann_recall"] = _approximate(flat, turns.approximate)
    titles = read_titles(arguments.items) if arguments.items else make_titles(turns.encode * turns.titles)
    figures["build"] = _build(titles, turns)
    print(f"\npeak {peak_mib():,.0f} MiB")
    order = ("single_17k", "single_100k", "single_1m", "batch64", "ann_speedup", "ann_recall", "build")
    print(json.dumps({name: float(f"{figures[name]:.4g}") for name in order}))


def _take_turns(raw: Callable[[int], object], ours: Callable[[int], object], turns: int) -> tuple[float, float]:
    """Median seconds of each, given the number of the turn; two turns warm both up."""
    taken: tuple[list[float], list[float]] = ([], [])
    for turn in range(-2, turns):
        for side, search in zip(taken, (raw, ours), strict=True):
            started = seconds()
            search(turn)
            if turn >= 0:
                side.append(seconds() - started)
    return statistics.median(taken[0]), statistics.median(taken[1])


def _single(flat: FlatIndex, queries: Vectors, turns: int) -> float:
    one = [queries[at : at + 1] for at in range(len(queries))]
    raw, ours = _take_turns(
        lambda turn: flat.storage.search(one[turn % 64], K), lambda turn: flat.search(one[turn % 64], K), turns
    )
    _say(f"1 query, {len(flat):,} rows", raw, ours)
    return raw / ours


def _batch(flat: FlatIndex, queries: Vectors, turns: int) -> float:
    raw, ours = _take_turns(lambda _: flat.storage.search(queries, K), lambda _: flat.search(queries, K), turns)
    _say(f"64 queries, {len(flat):,} rows", raw, ours)
    return raw / ours


def _approximate(flat: FlatIndex, turns: int) -> tuple[float, float]:
    started = seconds()
    request = SearchRequest("auto" if len(flat) >= SIZES[LARGEST] else "pq")
    search, facts = build_search(flat.matrix, request)
    print(f"build_search of {len(flat):,} rows: {seconds() - started:.1f} s, {facts}")
    queries = sample_queries(flat, 1000, seed=2)
    exact, _ = flat.search(queries, K)
    one = [queries[at : at + 1] for at in range(len(queries))]
    raw, ours = _take_turns(
        lambda turn: flat.storage.search(one[turn], K), lambda turn: search.search(one[turn], K), turns
    )
    recall = recall_of(search, queries, exact)
    _say(f"1 query, {facts['kind']}, recall@10 {recall:.4f} of 1,000 other queries", raw, ours)
    titles = flat.vectors(np.arange(0, len(flat), len(flat) // 1000)[:1000])
    alone, _ = _take_turns(lambda turn: flat.search(one[turn], K), lambda turn: search.search(one[turn], K), turns // 3)
    print(f"    against our own exact search: {alone / ours:.1f}")
    print(f"    unmoved titles as queries: recall@10 {recall_of(search, titles, flat.search(titles, K)[0]):.4f}")
    for share in (0.5, 0.1, 0.02):
        allowed = np.random.default_rng(0).random(len(flat)) < share
        some = queries[:200]
        expected, _ = flat.search(some, K, allowed=allowed)
        found, _ = search.search(some, K, allowed=allowed)
        exactly, nearly = _take_turns(
            lambda turn: flat.search(one[turn], K, allowed=allowed),  # noqa: B023
            lambda turn: search.search(one[turn], K, allowed=allowed),  # noqa: B023
            turns // 3,
        )
        recall_filtered = float(np.mean(found <= expected[:, -1:]))
        print(f"    {share:.0%} allowed: flat {1e3 * exactly:.2f} ms, {1e3 * nearly:.2f} ms at {recall_filtered:.4f}")
    return raw / ours, recall


def _build(titles: list[str], turns: Turns) -> float:
    """Sets of titles in turns; each side sorts its set as it would sort all."""
    encoder = SentenceTransformerEncoder()
    model = encoder._model
    parts = [titles[turn * turns.titles : (turn + 1) * turns.titles] for turn in range(turns.encode)]
    model.encode(titles[:64], show_progress_bar=False)
    taken: tuple[list[float], list[float]] = ([], [])
    for part in parts:
        started = seconds()
        raw = model.encode(part, show_progress_bar=False)
        taken[0].append(seconds() - started)
        started = seconds()
        vectors = encode_titles(part, encoder)
        build_search(vectors, SearchRequest())
        taken[1].append(seconds() - started)
        np.testing.assert_allclose(vectors, raw, atol=2e-6)
    slow, fast = statistics.median(taken[0]), statistics.median(taken[1])
    print(
        f"build: {len(parts)} x {turns.titles} titles; sentence-transformers {turns.titles / slow:.0f} titles/s, "
        f"ours {turns.titles / fast:.0f} titles/s: {slow / fast:.2f}"
    )
    return slow / fast


def _check_identical(flat: FlatIndex, queries: Vectors) -> None:
    distances, rows = flat.search(queries, K)
    for place in range(0, len(queries), 8):
        query = queries[place : place + 1]
        expected, expected_rows = _brute_force(flat, query[0])
        alone, alone_rows = flat.search(query, K)
        for found, found_rows in ((distances[place], rows[place]), (alone[0], alone_rows[0])):
            np.testing.assert_array_equal(found, expected)
            np.testing.assert_array_equal(found_rows, expected_rows)
    others = [flat.storage.search(queries[at : at + 1], K) for at in range(len(queries))]
    _check_faiss(flat, queries, np.concatenate([other[0] for other in others]), [other[1][0] for other in others], 1e-5)
    _check_faiss(flat, queries, *flat.storage.search(queries, K), 1e-4)


def _check_faiss(
    flat: FlatIndex, queries: Vectors, squared: Vectors, rows: Sequence[NDArray[np.int64]], tolerance: float
) -> None:
    distances, ours = flat.search(queries, K)
    np.testing.assert_allclose(np.sqrt(np.maximum(squared, 0)), distances, rtol=tolerance)
    for query, found, near in zip(queries, rows, distances, strict=True):
        np.testing.assert_allclose(flat.measure(query, found)[0], near, rtol=tolerance)
    same = float(np.mean(np.array(rows) == ours))
    print(f"{len(flat):,} rows: equal to brute force; FAISS's rows are ours in {same:.2%} of places, else a near tie")


def _brute_force(flat: FlatIndex, query: Vectors) -> tuple[Vectors, NDArray[np.int64]]:
    distances = np.empty(len(flat), dtype=np.float32)
    for start in range(0, len(flat), 50_000):
        rows = np.arange(start, min(start + 50_000, len(flat)))
        difference = flat.vectors(rows).astype(np.float64) - query
        distances[rows] = np.sqrt((difference**2).sum(axis=1))
    order = np.argsort(distances, kind="stable")[:K]
    return distances[order], order


def _say(what: str, raw: float, ours: float) -> None:
    print(f"{what}: IndexFlatL2 {1e3 * raw:.2f} ms, ours {1e3 * ours:.3f} ms: {raw / ours:.2f}", flush=True)


if __name__ == "__main__":
    main()
