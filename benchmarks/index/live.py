"""What a change of the catalog costs, and what changes cost those who search.

    python -m benchmarks.index.live [--quick] [--rows 100000] [--dimension 384]

A made-up catalog and random vectors: the encoder is not measured. One thread; medians by the clock, and of the
processor's time, which other work on the machine changes little. `--quick` takes 2 000 rows and is no measure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from clients.tables import show_table
from index.catalog.catalog import Catalog, Item, write_catalog
from index.catalog.changes import Change
from index.live.live import LiveIndex
from index.live.versions import build_index
from index.workspace import ShopSettings, Workspace
from serving.schema import Filters
from serving.snapshots.candidates import select_candidates

CHANGES = 50


class RandomEncoder:
    """A random unit vector per title."""

    name = fingerprint = "random"

    def __init__(self, dimension: int) -> None:
        self.dimension = dimension
        self._draw = np.random.default_rng(0)

    def encode(self, titles: Sequence[str]) -> NDArray[np.float32]:
        vectors = self._draw.standard_normal((len(titles), self.dimension), dtype=np.float32)
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dimension", type=int, default=384)
    arguments = parser.parse_args()
    rows = 2000 if arguments.quick else arguments.rows
    with tempfile.TemporaryDirectory() as folder:
        figures = measure(Path(folder), rows, arguments.dimension)
    show_table([{"what": what, "ms": clock, "CPU ms": cpu} for what, (clock, cpu) in figures.items()])
    keys = {what.replace(" ", "_") + "_cpu_ms": round(cpu, 3) for what, (_, cpu) in figures.items()}
    print(json.dumps({"rows": rows, "dimension": arguments.dimension, **keys}))


def measure(root: Path, rows: int, dimension: int) -> dict[str, tuple[float, float]]:
    """Return what was done -> median milliseconds by the clock, and of the processor."""
    workspace, encoder = Workspace.create(root, ShopSettings()), RandomEncoder(dimension)
    catalog = Catalog.from_items(Item(str(row), f"title number {row}", f"shelf {row % 50}") for row in range(rows))
    write_catalog(workspace.catalog_path, catalog)
    build_index(workspace.index_dir, catalog, encoder, np.zeros(rows, dtype=np.int64))
    figures: dict[str, tuple[float, float]] = {}

    def timed(what: str, work: Callable[[int], object], times: int = CHANGES) -> None:
        took = []
        for number in range(times):
            start = time.perf_counter(), time.process_time()
            work(number)
            took.append((time.perf_counter() - start[0], time.process_time() - start[1]))
        figures[what] = (
            1000 * statistics.median(clock for clock, _ in took),
            1000 * statistics.median(c for _, c in took),
        )

    live = LiveIndex(workspace, encoder, merge_at=0)
    _ = live.snapshot.slots  # as a server does when it starts
    queries = live.snapshot.grounder.index.vectors(np.arange(1000, 1000 + CHANGES))
    base = live.snapshot.grounder.index
    timed("search before changes", lambda n: base.search(queries[n : n + 1], 10))
    timed("put a new title", lambda n: live.apply(Change("put", f"new {n}", f"new title {n}", "shelf 1")))
    timed("hide an item", lambda n: live.apply(Change("patch", str(n), available=False)))
    timed("remove an item", lambda n: live.apply(Change("remove", str(CHANGES + n))))

    snapshots = []
    for number in range(CHANGES):
        live.apply(Change("patch", str(2 * CHANGES + number), available=False))
        snapshots.append(live.snapshot)
    timed("show a change to requests", lambda n: snapshots[n].slots)
    timed("look for changes of others", lambda _: live.is_stale())
    timed("filter", lambda _: select_candidates(live.snapshot.slots, Filters(category=["shelf 3"]), ["1", "2"]))
    timed("search after changes", lambda n: live.snapshot.grounder.index.search(queries[n : n + 1], 10))
    timed("merge in the background", lambda _: live.merge(), 1)
    live.close()
    return figures


if __name__ == "__main__":
    main()
