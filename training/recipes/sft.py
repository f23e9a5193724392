"""SFT: learn the true next title."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from index.ranking.grounding import Grounder
from index.workspace import Workspace
from training.adapter import Adapter
from training.loop.fit import Plan
from training.loop.run import TrainingRun, open_run
from training.model.batches import Batch, UpdateSize
from training.model.losses import title_loss
from training.progress import Progress
from training.settings import TrainSettings


def sft_loss(scorer: Any, batch: Batch, size: UpdateSize) -> tuple[Tensor, dict[str, float]]:
    """Mean negative log-likelihood per token of the response, its end token included (SOFT, equation 2)."""
    loss, figures = title_loss(scorer(batch), batch.slot, 0, size, name="loss_real")
    return loss, {"loss": float(loss.detach()), **figures}


class SftRecipe:
    """The true titles, in every epoch alike."""

    def __init__(self, run: TrainingRun) -> None:
        windows = run.dataset.split.train
        self.samples = run.dataset.samples(windows, run.dataset.titles(windows))
        self._run = run

    def plan(self, epoch: int, update: int) -> Plan:
        return Plan(sft_loss, (0,))

    def validate(self) -> dict[str, float]:
        return self._run.validation.measure(self._run.model)

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: dict[str, float]) -> None:
        return None


def train_sft(
    workspace: Workspace, settings: TrainSettings, grounder: Grounder, progress: Progress, *, name: str = "sft"
) -> Adapter:
    """Train and publish an SFT adapter.

    Args:
        grounder: of the shop's index; validation HR@10 is measured with it.

    Raises:
        MissingArtifactError: no catalog, log or base yet.
        DivergedError: the loss stopped being a number.
        StoppedError: a signal came; the same call goes on.
    """
    with open_run(workspace, settings, grounder, progress) as run:
        return run.train(SftRecipe(run), name, method="sft")
