"""HR and NDCG of adapters over the full catalog, beside popularity. One row per method; positions kept per window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.artifact import write_file
from index.grounding import Grounder
from index.popularity import popularity_order
from index.workspace import Workspace
from training.adapter import DecodingMode, read_adapter
from training.dataset import check_trained_on, load_dataset
from training.generation.title_writer import TitleWriter
from training.judge import find_position, judge
from training.language_model import load_base, read_lora
from training.metrics import Interval, UserBootstrap, metric_table
from training.parallel.processes import Processes
from training.progress import Progress
from training.settings import TrainSettings
from training.windows import DataSplit, Window, count_rows

POPULARITY = "popularity"


@dataclass(frozen=True)
class Evaluation:
    """One method on the test windows.

    Attributes:
        method: an adapter's name, "base" for the bare base, or "popularity".
        adapter_id: name@digest; empty where there is no adapter.
        decoding: "greedy" or "beam"; empty where nothing is decoded.
        ranking: "l2", or "count" for popularity.
        positions: int64 [n], 0-based place of each window's target, -1 beyond 50.
        metrics: HR@k and NDCG@k with 95 % intervals.
        users: user_id of each window.
        on_catalog: share of written titles that exist word for word; None where nothing is written.
    """

    method: str
    adapter_id: str
    decoding: str
    ranking: str
    positions: NDArray[np.int64]
    metrics: dict[str, Interval]
    users: tuple[str, ...]
    on_catalog: float | None

    def to_json(self) -> dict[str, Any]:
        """A flat object: means under the metric's name, interval ends under name_low and name_high."""
        flat: dict[str, Any] = {
            "method": self.method,
            "adapter_id": self.adapter_id,
            "decoding": self.decoding,
            "ranking": self.ranking,
            "users": len(set(self.users)),
            "windows": len(self.positions),
            "on_catalog": self.on_catalog,
        }
        for name, interval in self.metrics.items():
            flat |= {name: interval.mean, f"{name}_low": interval.low, f"{name}_high": interval.high}
        return flat


def evaluate_adapters(
    workspace: Workspace,
    names: Sequence[str],
    settings: TrainSettings,
    grounder: Grounder,
    progress: Progress,
    *,
    decoding: DecodingMode | None = None,
) -> list[Evaluation]:
    """Evaluate popularity and the named adapters on the same test windows.

    Args:
        names: adapters' names; "base" stands for the bare base model.
        grounder: of the shop's index.
        decoding: how titles are written; None: as each adapter's manifest says.

    Returns:
        Popularity first, then the adapters in order. Each one's positions also go to
        `reports/positions-<method>.parquet`.

    Raises:
        MissingArtifactError, MismatchError: an adapter is missing or belongs to another base or catalog.
    """
    adapters = {name: read_adapter(workspace.adapter_dir(name)) for name in names if name != "base"}
    dataset = load_dataset(workspace, settings, progress)
    for trained in adapters.values():
        check_trained_on(trained, dataset)
    processes = Processes()
    writer = TitleWriter(dataset, settings, processes, progress)
    windows = dataset.split.test
    users = tuple(window.user_id for window in windows)
    bootstrap = UserBootstrap(users)
    evaluations = [popularity_baseline(dataset.split, len(dataset.catalog), bootstrap)]
    for name in names:
        adapter = adapters.get(name)
        mode = decoding or (adapter.facts.decoding.mode if adapter else "greedy")
        model = None  # the one before goes first: two need not be in memory
        model = load_base(dataset.base.path, precision=settings.precision, device=processes.device)
        model = read_lora(model, adapter.path) if adapter else model
        written = writer.write(model, windows, decoding=mode, step=f"evaluate {name}")
        verdict = judge([title for title, _ in written], [window.target for window in windows], grounder)
        _write_positions(
            workspace.reports_dir / f"positions-{name}.parquet", windows, verdict.positions, verdict.titles
        )
        evaluations.append(
            Evaluation(
                method=name,
                adapter_id=adapter.adapter_id if adapter else "",
                decoding=mode,
                ranking="l2",
                positions=verdict.positions,
                metrics=metric_table(verdict.positions, bootstrap),
                users=users,
                on_catalog=float(verdict.on_catalog.mean()),
            )
        )
    return evaluations


def popularity_baseline(split: DataSplit, n_rows: int, bootstrap: UserBootstrap) -> Evaluation:
    """Recommend everyone what the training histories hold most often."""
    order = popularity_order(count_rows(split.histories, n_rows))[:50]
    positions = np.array([find_position(order, window.target) for window in split.test], dtype=np.int64)
    users = tuple(window.user_id for window in split.test)
    return Evaluation(POPULARITY, "", "", "count", positions, metric_table(positions, bootstrap), users, None)


def _write_positions(
    path: Path, windows: Sequence[Window], positions: NDArray[np.int64], titles: Sequence[str]
) -> None:
    table = pa.table(
        {
            "user_id": [window.user_id for window in windows],
            "timestamp": [window.timestamp for window in windows],
            "target_row": [window.target for window in windows],
            "generation": list(titles),
            "position": positions,
        }
    )
    buffer = BytesIO()
    pq.write_table(table, buffer)
    write_file(path, buffer.getvalue())
