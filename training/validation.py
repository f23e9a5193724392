"""How good a model in training is, on the validation windows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from index.grounding import Grounder
from training.batches import collate
from training.dataset import Dataset
from training.generation.title_writer import TitleWriter
from training.judge import judge
from training.language_model import CompletionScorer
from training.metrics import hits
from training.parallel.processes import Processes
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
        self._settings, self._processes, self._writer, self._grounder = settings, processes, writer, grounder

    def measure(self, model: Any) -> dict[str, float]:
        """Return validation_hr10, and validation_loss in nats per token of the true titles."""
        written = self._writer.write(model, self._windows, decoding="greedy", step="validate")
        titles = [title for title, _ in written]
        return {
            "validation_hr10": self._processes.on_main(lambda: self._hr10(titles)),
            "validation_loss": self._loss(model),
        }

    def _hr10(self, titles: Sequence[str]) -> float:
        verdict = judge(titles, [window.target for window in self._windows], self._grounder)
        return float(hits(verdict.positions, 10).mean())

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
