"""How good a model in training is, on the validation windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from index.ranking.grounding import Grounder
from index.ranking.ranking import Ranker, Written
from index.ranking.ranking_spec import BY_DISTANCE
from index.titles.trie_store import open_trie
from training.data.dataset import Dataset
from training.data.windows import count_rows
from training.generation.decoding import Decoder
from training.generation.title_writer import TitleWriter
from training.measure.calibration import Calibration, calibrate
from training.measure.metrics import hits
from training.measure.mode_choice import Trial, choose_mode
from training.measure.ranks import rank_targets
from training.model.batches import collate
from training.model.language_model import CompletionScorer
from training.parallel.processes import Processes
from training.progress import Progress
from training.settings import TrainSettings


class Validation:
    """Measures HR@10 as evaluation does, and the loss of the true titles.

    Args:
        grounder: of the shop's index.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        processes: Processes,
        writer: TitleWriter,
        grounder: Grounder,
    ) -> None:
        self._windows = dataset.split.validation
        self._samples = dataset.samples(self._windows, dataset.titles(self._windows))
        self._dataset, self._settings, self._processes, self._writer = dataset, settings, processes, writer
        self._grounder = grounder
        self._popularity = count_rows(dataset.split.histories, len(grounder.catalog))
        self._ranker = Ranker(grounder, self._popularity)

    def measure(self, model: Any) -> dict[str, float]:
        """Return validation_hr10, and validation_loss in nats per token of the true titles."""
        written = self._writer.write(model, self._windows, decoding="greedy", step="validate")
        titles = [Written((title,), (generation.log_prob,)) for title, generation in written]
        return {
            "validation_hr10": self._processes.on_main(lambda: self._hr10(titles)),
            "validation_loss": self._loss(model),
        }

    def choose_mode(self, model: Any, index_dir: Path, progress: Progress) -> tuple[Trial, list[Trial]]:
        """Choose how the model is served (see `training.measure.mode_choice`); every process gets the same answer.

        Args:
            index_dir: the workspace's, where the title trie is kept.
        """
        with self._processes.accelerator.main_process_first():  # the others find what it made
            trie = open_trie(index_dir, self._dataset.catalog, self._dataset.renderer)
        decoder = Decoder(self._dataset, self._settings, trie, self._processes, progress)
        return choose_mode(
            lambda mode, width: decoder.decode(
                model, self._windows, mode, width=width, step=f"validate {mode} {width}"
            ),
            self._windows,
            self._grounder,
            self._popularity,
        )

    def calibrate(self) -> Calibration | None:
        """Choose the distance beyond which a title counts as a hallucination."""
        targets = [window.target for window in self._windows]
        return calibrate(self._grounder, targets, self._dataset.renderer, seed=self._settings.seed)

    def _hr10(self, written: Sequence[Written]) -> float:
        targets = [window.target for window in self._windows]
        return float(hits(rank_targets(written, targets, self._ranker, BY_DISTANCE).positions, 10).mean())

    def _loss(self, model: Any) -> float:
        scorer, size = CompletionScorer(model).eval(), self._settings.micro_batch_size
        mine = sorted(self._processes.share(self._samples), key=len)
        total, tokens = 0.0, 0
        with torch.inference_mode():
            for begin in range(0, len(mine), size):
                batch = collate(mine[begin : begin + size], pad_id=0, device=self._processes.device)
                log_probs = scorer(batch)
                total, tokens = total - float(log_probs.sum()), tokens + len(log_probs)
        total, count = self._processes.sum([total, tokens])
        return total / count
