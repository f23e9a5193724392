"""SFT: learn the true next title."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from training.loop.fit import Plan
from training.loop.run import TrainingRun
from training.model.batches import Batch, UpdateSize
from training.model.language_model import CompletionScorer
from training.model.losses import title_loss


def sft_loss(scorer: Any, batch: Batch, size: UpdateSize) -> tuple[Tensor, dict[str, float]]:
    """Mean negative log-likelihood per token of the response, its end token included (SOFT, equation 2)."""
    loss, figures = title_loss(scorer(batch), batch.slot, 0, size, name="loss_real")
    return loss, {"loss": float(loss.detach()), **figures}


class SftRecipe:
    """The true titles, in every epoch alike."""

    scorer = CompletionScorer

    def __init__(self, run: TrainingRun) -> None:
        windows = run.dataset.split.train
        self.samples = run.dataset.samples(windows, run.dataset.titles(windows))
        self._run = run

    def measures(self, update: int) -> bool:
        return False

    def plan(self, epoch: int, update: int) -> Plan:
        return Plan(sft_loss, (0,))

    def validate(self) -> dict[str, float]:
        return self._run.validation.measure(self._run.model)

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: dict[str, float]) -> None:
        return None
