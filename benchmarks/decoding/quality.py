"""How good decodings and rankings are: the same adapter and test windows for all.

    python -m benchmarks.decoding.quality [--quick] [--workspace SHOP] [--adapter sft] [--exact 256]

HR@10 over the full catalog with 95 % intervals for the paper's way (greedy and beam, L2 neighbours of the one title),
drawn titles, the constrained beam ranked by likelihood in several widths, by the model's own
scores, and the fusion; then, on some of the windows, how many of the ten titles that the exact scorer puts first each
width finds. Without a workspace a base and an adapter are trained on the demo's shop first, for a few minutes.
`--quick` trains less and takes few windows; it is no measure.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.shops import train_demo_shop
from clients.commands.index import open_index
from index.ranking.ranking import Ranker, Written
from index.ranking.ranking_spec import BY_DISTANCE, RankingSpec
from index.titles.trie_store import open_trie
from index.workspace import Workspace
from training.adapter import read_adapter
from training.data.dataset import load_dataset
from training.data.windows import Window, count_rows
from training.generation.decoding import LISTED, Decoder, OfflineMode
from training.generation.title_scorer import TitleScorer
from training.measure.fusion import GAMMAS, fit_fusion
from training.measure.metrics import UserBootstrap, gains, hits
from training.measure.ranks import rank_targets
from training.model.language_model import load_base, read_merged
from training.parallel.processes import Processes
from training.progress import Silence
from training.recipes.methods import settings_of

WIDTHS = (5, 10, 20, 50)
LIKELIHOOD = RankingSpec("likelihood")


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workspace", type=Path, help="a shop whose base and adapter write (default: the demo's)")
    parser.add_argument("--adapter", default="sft", help="which adapter of the workspace")
    parser.add_argument("--exact", type=int, default=256, help="windows for which every title is scored")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        if arguments.workspace:
            workspace = Workspace.open(arguments.workspace)
        else:
            workspace = train_demo_shop(Path(folder) / "shop", quick=arguments.quick)
        bench = _Bench(workspace, arguments.adapter, windows=64 if arguments.quick else None)
        figures = bench.compare_modes()
        figures |= bench.compare_with_exact(16 if arguments.quick else arguments.exact)
    print(json.dumps({name: None if value is None else float(f"{value:.4g}") for name, value in figures.items()}))


class _Bench:
    """An adapter with the windows, the ranker and the trie."""

    def __init__(self, workspace: Workspace, adapter_name: str, *, windows: int | None) -> None:
        adapter = read_adapter(workspace.adapter_dir(adapter_name))
        settings = settings_of(adapter)
        self._dataset = load_dataset(workspace, settings, Silence())
        self._model = read_merged(load_base(self._dataset.base.path, precision="fp32"), adapter.path)
        self._trie = open_trie(workspace.index_dir, self._dataset.catalog, self._dataset.renderer)
        self._grounder = open_index(workspace, Silence()).grounder
        popularity = count_rows(self._dataset.split.histories, len(self._grounder.catalog))
        self._ranker = Ranker(self._grounder, popularity)
        self._decoder = Decoder(self._dataset, settings, self._trie, Processes(), Silence())
        self._test = self._dataset.split.test[:windows]
        self._bootstrap = UserBootstrap([window.user_id for window in self._test])

    def compare_modes(self) -> dict[str, float | None]:
        """HR@10 of every decoding and ranking; prints a line each."""
        print(f"\n{len(self._test)} test windows, {len(self._trie.rows)} titles, {len(self._trie)} trie nodes\n")
        greedy, beam = self._write("greedy", 1), self._write("beam", 4)
        l2 = {
            "greedy": self._show("greedy, l2 (paper's ranking)", greedy, BY_DISTANCE),
            "beam": self._show("beam 4, l2 (the paper)", beam, BY_DISTANCE),
        }
        gamma = self._best_gamma()
        self._show(f"greedy, l2, BIGRec's gamma {gamma:g}", greedy, RankingSpec(popularity_gamma=gamma))
        self._show("20 samples, likelihood", self._write("sample_n", 20), LIKELIHOOD)
        by_width = {}
        for width in WIDTHS:
            constrained = self._write("constrained_beam", width)
            by_width[width] = self._show(f"constrained beam {width}, likelihood", constrained, LIKELIHOOD)
        self._show("constrained beam 20, divided by length", self._divided(20), LIKELIHOOD)
        fitted = self._fit("constrained_beam", 20)
        self._show("constrained beam 20, fusion", self._write("constrained_beam", 20), fitted)
        best_l2 = max(l2.values())
        return {
            "hr10_gain": by_width[20] / best_l2 if best_l2 else None,
            "hr10_l2": best_l2,
            "hr10_likelihood": by_width[20],
            **{f"hr10_likelihood_width{width}": value for width, value in by_width.items()},
            "hr10_sasrec": None,  # there is no SASRec here yet
        }

    def compare_with_exact(self, n: int) -> dict[str, float | None]:
        """Share of the exact scorer's first ten titles that each width finds, on n windows spread over the test."""
        some = [self._test[at * len(self._test) // n] for at in range(min(n, len(self._test)))]
        prompts = self._dataset.prompts(some)
        exact = [self._best(scores) for scores in TitleScorer(self._model, self._trie).score(prompts)]
        overlaps: dict[str, float | None] = {}
        for width in WIDTHS:
            found = self._decoder.decode(self._model, some, "constrained_beam", width=width, step="")
            shared = [
                len(set((one.rows or ())[:10]) & set((other.rows or ())[:10])) / 10
                for one, other in zip(exact, found, strict=True)
            ]
            overlaps[f"beam{width}_overlap"] = float(np.mean(shared))
        verdict = rank_targets(exact, [window.target for window in some], self._ranker, LIKELIHOOD)
        print(
            f"\nagainst the exact scorer on {len(some)} windows (its HR@10 {hits(verdict.positions, 10).mean():.4f}): "
            + ", ".join(f"{name} {value:.4f}" for name, value in overlaps.items())
        )
        return overlaps

    def _write(self, mode: OfflineMode, width: int, windows: Sequence[Window] | None = None) -> list[Written]:
        return self._decoder.decode(self._model, self._test if windows is None else windows, mode, width=width, step="")

    def _show(self, name: str, written: Sequence[Written], choice: RankingSpec) -> float:
        positions = rank_targets(written, [window.target for window in self._test], self._ranker, choice).positions
        hr10, ndcg10 = (self._bootstrap.interval(values) for values in (hits(positions, 10), gains(positions, 10)))
        print(f"{name:<42} HR@10 {hr10}  NDCG@10 {ndcg10}  HR@50 {hits(positions, 50).mean():.4f}", flush=True)
        return hr10.mean

    def _fit(self, mode: OfflineMode, width: int) -> RankingSpec:
        validation = self._dataset.split.validation
        written, targets = self._write(mode, width, validation), [window.target for window in validation]
        return RankingSpec("fusion", fit_fusion(self._ranker, self._grounder, written, targets))

    def _best_gamma(self) -> float:
        validation = self._dataset.split.validation
        written, targets = self._write("greedy", 1, validation), [window.target for window in validation]

        def gain(gamma: float) -> float:
            choice = RankingSpec(popularity_gamma=gamma)
            return float(gains(rank_targets(written, targets, self._ranker, choice).positions, 10).mean())

        return max(GAMMAS, key=gain)

    def _divided(self, width: int) -> list[Written]:
        """The titles of the constrained beam, ordered by their log-probability per token."""
        lists = self._write("constrained_beam", width)
        divided = []
        for one in lists:
            lengths = [len(self._dataset.renderer.completion_ids(text)) for text in one.texts]
            scores = np.array(one.log_probs) / lengths
            order = np.argsort(-scores)
            divided.append(self._written(np.array(one.rows)[order], scores[order]))
        return divided

    def _best(self, scores: Any) -> Written:
        order = np.lexsort((self._trie.rows, -scores))[:LISTED]
        return self._written(self._trie.rows[order], scores[order])

    def _written(self, rows: Any, scores: Any) -> Written:
        texts = tuple(self._dataset.catalog.titles[row] for row in rows)
        return Written(texts, tuple(scores.tolist()), tuple(rows.tolist()))


if __name__ == "__main__":
    main()
