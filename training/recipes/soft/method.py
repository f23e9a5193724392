"""SOFT as the list of methods knows it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from training.errors import SettingError
from training.recipes.method import TRUE_TITLE, Method, Part, Preview, Sweep, TitleWork
from training.recipes.soft.settings import ALPHAS, SoftSettings

if TYPE_CHECKING:
    from index.workspace import Workspace
    from training.adapter import Adapter
    from training.data.dataset import Dataset
    from training.loop.run import TrainingRun

TEACHER = "sft"


def _train(run: TrainingRun, name: str) -> Adapter:
    from training.recipes.soft.recipe import train_soft

    assert isinstance(run.settings, SoftSettings)  # `training.recipes.methods.train` sees to it
    return train_soft(run, run.settings, name, teacher=TEACHER)


def _preview(workspace: Workspace, dataset: Dataset, settings: SoftSettings) -> Preview:
    from functools import partial

    from training.loop.fit import Plan
    from training.recipes.soft.distillation import check_distilled, find_distilled
    from training.recipes.soft.recipe import DISTILLED, REAL, SoftRecipe, soft_loss

    windows = dataset.split.train
    truths = dataset.titles(windows)
    notes = ["updates are measured with both titles; while tau is 1 or 0 one is enough, and they are faster"]
    distilled = find_distilled(workspace.distilled_path, windows)
    every = settings.distance_every
    work = [
        TitleWork(
            "d_t",
            "beam",
            lambda updates: settings.max_epochs * (-(-updates // every) if every else 1),
            min(settings.distance_samples, len(windows)),
        )
    ]
    name = "distilled title"
    if distilled is None:
        name += " (not made yet; the true one instead)"
        notes.append("no distilled titles for these windows yet: the true ones stand in for them")
        work.append(TitleWork("distillation", "beam", lambda updates: 1, len(windows)))
    elif empty := check_distilled(distilled, windows, workspace.distilled_path):
        notes.append(f"{empty} of {len(distilled)} distilled titles are empty")
    return Preview(
        dataset.samples(windows, distilled or truths, truths),
        (name, TRUE_TITLE),
        Plan(partial(soft_loss, tau=0.5), (DISTILLED, REAL)),
        SoftRecipe.scorer,
        tuple(work),
        tuple(notes),
    )


def _ablations(updates: int) -> tuple[Part, ...]:
    """SOFT with one of its parts changed.

    | name              | what it is                                               |
    |-------------------|----------------------------------------------------------|
    | "no-sa"           | the paper's "w/o SA": distilled titles in every epoch    |
    | "no-sd"           | the paper's "w/o SD": true titles in every epoch         |
    | "linear", "step"  | controls: tau falls whatever d_t is                      |
    | "distance-steps"  | d_t is measured four times per epoch instead of once     |
    | "distance-minilm" | d_t in the space of sentence-transformers' MiniLM        |
    """
    every = max(1, updates // 4)
    return (
        Part("no-sa", "without the adaptive schedule: distilled titles in every epoch", {"schedule": "distilled"}),
        Part("no-sd", "without self-distillation: true titles in every epoch", {"schedule": "real"}),
        Part("linear", "tau falls on a line from 1 to 0", {"schedule": "linear"}),
        Part("step", "tau is 1 in the first half of the epochs, then 0", {"schedule": "step"}),
        Part("distance-steps", f"d_t measured every {every} updates", {"distance_every": every}),
        Part("distance-minilm", "d_t measured with MiniLM", {"distance_encoder": "minilm"}),
    )


def _check_adaptive(settings: SoftSettings) -> None:
    """Refuse a schedule that ignores d_t: then alpha does nothing, nor has SOFT a part to lose."""
    if settings.schedule != "adaptive":
        raise SettingError(
            f"schedule {settings.schedule!r} looks neither at d_t nor at alpha", remedy="--set schedule=adaptive"
        )


SOFT = Method(
    "soft",
    "learns the SFT adapter's own titles first, then the true ones at the pace of learning (arXiv:2505.20771)",
    _train,
    _preview,
    settings=SoftSettings,
    teacher=TEACHER,
    sweep=Sweep("curriculum_alpha", "alpha", ALPHAS),
    ablations=_ablations,
    check_variants=_check_adaptive,
    last_figures=("tau", "d_ratio"),
)
