"""SFT as the list of methods knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.recipes.method import TRUE_TITLE, Method, Preview

if TYPE_CHECKING:
    from index.workspace import Workspace
    from training.adapter import Adapter
    from training.data.dataset import Dataset
    from training.loop.run import TrainingRun
    from training.settings import TrainSettings


def _train(run: TrainingRun, name: str) -> Adapter:
    from training.recipes.sft.recipe import SftRecipe
    from training.report.diagnosis import diagnose

    return run.train(SftRecipe(run), name, method=SFT.name, explain=diagnose)


def _preview(workspace: Workspace, dataset: Dataset, settings: TrainSettings) -> Preview:
    from training.loop.fit import Plan
    from training.recipes.sft.recipe import SftRecipe, sft_loss

    windows = dataset.split.train
    samples = dataset.samples(windows, dataset.titles(windows))
    return Preview(samples, (TRUE_TITLE,), Plan(sft_loss, (0,)), SftRecipe.scorer)


SFT = Method("sft", "learns the true next title", _train, _preview)
