"""HR and NDCG of adapters over the full catalog, beside popularity. One row per method, decoding and ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.artifact import write_file
from index.catalog.popularity import popularity_order
from index.ranking.grounding import Grounder
from index.ranking.ranking import Ranker, Written
from index.ranking.ranking_spec import BY_DISTANCE, RankingMode, RankingSpec
from index.titles.trie_store import open_trie
from index.workspace import Workspace
from training.adapter import Adapter, Decoding, read_adapter
from training.data.dataset import Dataset, check_trained_on, load_dataset
from training.data.windows import DataSplit, Window, count_rows
from training.generation.decoding import Decoder, OfflineMode
from training.measure.fusion import fit_fusion
from training.measure.metrics import Interval, UserBootstrap, hits, metric_table
from training.measure.mode_choice import WIDTHS
from training.measure.ranks import Ranks, find_position, rank_targets
from training.model.language_model import load_base, read_merged
from training.parallel.processes import Processes
from training.progress import Progress
from training.settings import TrainSettings

POPULARITY = "popularity"

Mode = tuple[OfflineMode | None, RankingMode]  # None: greedy for l2, the constrained beam for the others

PAPERS: tuple[Mode, ...] = (("greedy", "l2"),)  # to compare trainings: nothing chosen per adapter


@dataclass(frozen=True)
class Evaluation:
    """One method on the test windows.

    Attributes:
        method: an adapter's name, "base" for the bare base, or "popularity".
        adapter_id: name@digest; empty where there is no adapter.
        decoding: see `training.generation.decoding`; empty where nothing is decoded.
        ranking: see `index.ranking.ranking`, or "count" for popularity.
        positions: int64 [n], 0-based position of each window's target, -1 beyond 50.
        metrics: HR@k and NDCG@k with 95 % intervals.
        users: user_id of each window.
        on_catalog: share of best titles that exist word for word; None where nothing is written.
        hallucinated: share of best titles farther from the catalog than the adapter's calibrated distance; None where
            there is none.
        lost: where HR@10 is lost, see `attribute_misses`; empty where the model's own ranking was not measured beside.
        is_served: the adapter's manifest names this mode.
    """

    method: str
    adapter_id: str
    decoding: str
    ranking: str
    positions: NDArray[np.int64]
    metrics: dict[str, Interval]
    users: tuple[str, ...]
    on_catalog: float | None
    hallucinated: float | None = None
    lost: dict[str, float] = field(default_factory=dict)
    is_served: bool = False

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
            "hallucinated": self.hallucinated,
            "served": self.is_served,
            **self.lost,
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
    dataset: Dataset | None = None,
    modes: Sequence[Mode] = (),
    with_served: bool = False,
) -> list[Evaluation]:
    """Evaluate popularity and the named adapters on the same test windows.

    Args:
        names: adapters' names; "base" stands for the bare base model.
        grounder: of the shop's index.
        dataset: of these settings, where it is loaded already.
        modes: how to decode and rank; none: as each adapter's manifest says.
        with_served: evaluate the manifest's mode too, where it is none of the modes.

    Returns:
        Popularity first, then the adapters in order, each in every mode. Positions also go to
        `reports/positions-<method>-<decoding>-<ranking>.parquet`.

    Raises:
        MissingArtifactError, MismatchError: an adapter is missing or belongs to another base or catalog.
    """
    adapters = {name: read_adapter(workspace.adapter_dir(name)) for name in names if name != "base"}
    dataset = dataset or load_dataset(workspace, settings, progress)
    for trained in adapters.values():
        check_trained_on(trained, dataset)
    bootstrap = UserBootstrap([window.user_id for window in dataset.split.test])
    evaluations = [popularity_baseline(dataset.split, len(dataset.catalog), bootstrap)]
    if names:
        bench = _Bench(workspace, dataset, settings, grounder, progress, bootstrap)
        for name in names:
            evaluations += bench.evaluate(name, adapters.get(name), modes, with_served=with_served)
    return evaluations


def popularity_baseline(split: DataSplit, n_rows: int, bootstrap: UserBootstrap) -> Evaluation:
    """Recommend everyone what the training histories hold most often."""
    order = popularity_order(count_rows(split.histories, n_rows))[:50]
    positions = np.array([find_position(order, window.target) for window in split.test], dtype=np.int64)
    users = tuple(window.user_id for window in split.test)
    return Evaluation(POPULARITY, "", "", "count", positions, metric_table(positions, bootstrap), users, None)


def attribute_misses(positions: NDArray[np.int64], own: NDArray[np.int64]) -> dict[str, float]:
    """Say where HR@10 is lost: in what the model writes, or in how that is tied to the catalog.

    Args:
        positions: of the targets in a ranking, 0-based.
        own: in the model's own ranking, by likelihood: what grounding without loss would give.

    Returns:
        lost_in_generation = 1 - HR@10 of the model's own ranking, lost_in_grounding (the oracle gap) = that less HR@10
        of this ranking; HR@10 = 1 - their sum. The gap is negative where a ranking knows more than the model.
    """
    best = float(hits(own, 10).mean())
    return {"lost_in_generation": 1 - best, "lost_in_grounding": best - float(hits(positions, 10).mean())}


class _Bench:
    """The test windows and what is needed to rank for them."""

    def __init__(
        self,
        workspace: Workspace,
        dataset: Dataset,
        settings: TrainSettings,
        grounder: Grounder,
        progress: Progress,
        bootstrap: UserBootstrap,
    ) -> None:
        self._workspace, self._dataset, self._settings = workspace, dataset, settings
        self._grounder, self._progress, self._bootstrap = grounder, progress, bootstrap
        self._processes = Processes()
        trie = open_trie(workspace.index_dir, dataset.catalog, dataset.renderer)
        self._decoder = Decoder(dataset, settings, trie, self._processes, progress)
        # of the training histories: the index's own counts know the test period
        self._ranker = Ranker(grounder, count_rows(dataset.split.histories, len(grounder.catalog)))

    def evaluate(
        self, name: str, adapter: Adapter | None, modes: Sequence[Mode], *, with_served: bool
    ) -> list[Evaluation]:
        """Evaluate one adapter, or without one the bare base, in every mode."""
        base = self._dataset.base.path
        model = load_base(base, precision=self._settings.precision, device=self._processes.device)
        model = read_merged(model, adapter.path) if adapter else model
        served = adapter.facts.decoding if adapter else Decoding("greedy", self._dataset.renderer.max_new_tokens)
        ranking = adapter.facts.ranking if adapter else BY_DISTANCE
        limit = adapter.facts.hallucination_distance_in(self._grounder.encoder.fingerprint) if adapter else None
        written: dict[OfflineMode, list[Written]] = {}  # each decoding once, whatever ranks it
        found: list[tuple[OfflineMode, RankingSpec, Ranks]] = []

        def judge_mode(mode: OfflineMode, choice: RankingSpec | None) -> None:
            width = served.width if mode == served.mode else max(WIDTHS)
            if mode not in written:
                written[mode] = self._decode(model, self._dataset.split.test, mode, width, f"evaluate {name}: {mode}")
            choice = choice or self._fit(model, mode, width, name)
            found.append((mode, choice, rank_targets(written[mode], self._targets, self._ranker, choice)))

        for decoding, wanted in modes:
            mode: OfflineMode = decoding or ("greedy" if wanted == "l2" else "constrained_beam")
            known = ranking if mode == served.mode else BY_DISTANCE
            if wanted == "fusion" and known.weights is None:
                judge_mode(mode, None)
            else:  # l2 as in the paper, whatever gamma is served
                judge_mode(mode, RankingSpec(wanted, known.weights))
        if not modes or (with_served and (served.mode, ranking) not in [(mode, choice) for mode, choice, _ in found]):
            judge_mode(served.mode, ranking)
        by_likelihood = {mode: ranks.positions for mode, choice, ranks in found if choice.mode == "likelihood"}
        own = by_likelihood.get("exact", by_likelihood.get("constrained_beam"))
        evaluations = []
        for mode, choice, ranks in found:
            label = choice.mode + (f"+popularity^{choice.popularity_gamma:g}" if choice.popularity_gamma else "")
            ranked_by = choice.mode + ("-popularity" if choice.popularity_gamma else "")
            path = self._workspace.reports_dir / f"positions-{name}-{mode}-{ranked_by}.parquet"
            _write_positions(path, self._dataset.split.test, ranks.positions, ranks.titles)
            evaluations.append(
                Evaluation(
                    method=name,
                    adapter_id=adapter.adapter_id if adapter else "",
                    decoding=mode,
                    ranking=label,
                    positions=ranks.positions,
                    metrics=metric_table(ranks.positions, self._bootstrap),
                    users=tuple(window.user_id for window in self._dataset.split.test),
                    on_catalog=float(ranks.on_catalog.mean()),
                    hallucinated=None if limit is None else float((ranks.distances > limit).mean()),
                    lost={} if own is None else attribute_misses(ranks.positions, own),
                    is_served=adapter is not None and (mode, choice) == (served.mode, ranking),
                )
            )
        return evaluations

    @property
    def _targets(self) -> list[int]:
        return [window.target for window in self._dataset.split.test]

    def _decode(self, model: Any, windows: Sequence[Window], mode: OfflineMode, width: int, step: str) -> list[Written]:
        return self._decoder.decode(model, windows, mode, width=width, step=step)

    def _fit(self, model: Any, mode: OfflineMode, width: int, name: str) -> RankingSpec:
        """Fusion weights that no manifest holds."""
        windows = self._dataset.split.validation
        written = self._decode(model, windows, mode, width, f"fit the fusion of {name} on validation: {mode}")
        targets = [window.target for window in windows]
        return RankingSpec("fusion", fit_fusion(self._ranker, self._grounder, written, targets))


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
