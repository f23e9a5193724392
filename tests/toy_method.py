"""A training method in one file: SFT whose loss is smoothed over what the model itself finds likely.

What a new method has to say, and no more: settings, a loss, a recipe, how to train and how to look ahead.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from index.workspace import Workspace
from training.adapter import Adapter
from training.data.dataset import Dataset
from training.loop.fit import Plan
from training.loop.run import TrainingRun
from training.model.batches import Batch, UpdateSize
from training.model.language_model import CompletionScorer
from training.recipes.method import TRUE_TITLE, Method, Part, Preview, Sweep
from training.report.diagnosis import diagnose
from training.settings import TrainSettings


@dataclass(frozen=True)
class ToySettings(TrainSettings):
    """Settings of the toy.

    Attributes:
        sharpness: tokens count by probability ** sharpness; near 0 it is SFT.
    """

    sharpness: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("sharpness")


def toy_loss(scorer: Any, batch: Batch, size: UpdateSize, *, sharpness: float) -> tuple[Tensor, dict[str, float]]:
    """Negative log-likelihood per token, weighed by the token's own probability: noise counts less."""
    log_probs = scorer(batch)
    weights = (sharpness * log_probs.detach()).exp()
    loss = -(weights * log_probs).sum() / size.tokens[0]
    return loss, {"loss": float(loss.detach()), "loss_real": float(-log_probs.detach().sum() / size.tokens[0])}


class ToyRecipe:
    scorer = CompletionScorer

    def __init__(self, run: TrainingRun, settings: ToySettings) -> None:
        windows = run.dataset.split.train
        self.samples = run.dataset.samples(windows, run.dataset.titles(windows))
        self._run, self._loss = run, partial(toy_loss, sharpness=settings.sharpness)

    def measures(self, update: int) -> bool:
        return False

    def plan(self, epoch: int, update: int) -> Plan:
        return Plan(self._loss, (0,))

    def validate(self) -> dict[str, float]:
        return self._run.validation.measure(self._run.model)

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: dict[str, float]) -> None:
        return None


def _train(run: TrainingRun, name: str) -> Adapter:
    assert isinstance(run.settings, ToySettings)
    return run.train(ToyRecipe(run, run.settings), name, method="toy", explain=diagnose)


def _preview(workspace: Workspace, dataset: Dataset, settings: ToySettings) -> Preview:
    windows = dataset.split.train
    samples = dataset.samples(windows, dataset.titles(windows))
    plan = Plan(partial(toy_loss, sharpness=settings.sharpness), (0,))
    return Preview(samples, (TRUE_TITLE,), plan, ToyRecipe.scorer)


TOY = Method(
    "toy",
    "learns the true next title, and noise in it less",
    _train,
    _preview,
    settings=ToySettings,
    sweep=Sweep("sharpness", "sharpness", (0.25, 0.5)),
    ablations=lambda updates: (Part("flat", "nearly SFT", {"sharpness": 1e-6}),),
)
