"""SOFT: from the model's own easy titles to the true ones, at the pace at which it learns (arXiv:2505.20771)."""

from __future__ import annotations

from functools import partial
from typing import Any

from torch import Tensor

from index.artifact import text_digest
from training.adapter import Adapter, read_adapter
from training.loop.fit import Plan
from training.loop.run import TrainingRun
from training.model.batches import Batch, UpdateSize
from training.model.language_model import CompletionScorer
from training.model.losses import curriculum_loss, title_loss
from training.recipes.soft.curriculum import curriculum_weight, fixed_weight
from training.recipes.soft.distance import DistanceProbe
from training.recipes.soft.distillation import Distilled, ensure_distilled
from training.recipes.soft.settings import SoftSettings
from training.recipes.soft.signs import DISTANCE_STUCK, explain_soft
from training.report.distilled_signs import describe_distilled
from training.report.finished_run import read_run

DISTILLED, REAL = 0, 1  # completion slots of a sample


def soft_loss(scorer: Any, batch: Batch, size: UpdateSize, *, tau: float) -> tuple[Tensor, dict[str, float]]:
    """tau * L_SD + (1 - tau) * L_SFT, each a mean over its tokens (SOFT, equation 4). One forward for both titles.

    A title that weighs nothing, the true one at tau = 1 or the distilled one at tau = 0, need not be in the batch.
    """
    log_probs = scorer(batch)
    losses: dict[int, Tensor] = {}
    figures: dict[str, float] = {}
    for slot, name in ((DISTILLED, "loss_distilled"), (REAL, "loss_real")):
        if slot in size.tokens:
            losses[slot], figures_of_slot = title_loss(log_probs, batch.slot, slot, size, name=name)
            figures |= figures_of_slot
    nothing = log_probs.new_zeros(())
    loss = curriculum_loss(losses.get(DISTILLED, nothing), losses.get(REAL, nothing), tau=tau)
    return loss, {"loss": float(loss.detach()), **figures}


class SoftRecipe:
    """Distilled and true titles, weighed by the curriculum."""

    scorer = CompletionScorer

    def __init__(self, run: TrainingRun, settings: SoftSettings, distilled: Distilled) -> None:
        windows = run.dataset.split.train
        self.samples = run.dataset.samples(windows, distilled.titles, run.dataset.titles(windows))
        self._run, self._settings = run, settings
        self._probe = DistanceProbe(run, settings)
        self._state: dict[str, float] = {}

    def measures(self, update: int) -> bool:
        every = self._settings.distance_every
        return update == 0 or (every is not None and update % every == 0)

    def plan(self, epoch: int, update: int) -> Plan:
        """Measure d_t where it is due, which a resumed run may have done already; weigh accordingly."""
        if self.measures(update) and (self._state.get("epoch"), self._state.get("update")) != (epoch, update):
            self._measure(epoch, update)
        distance, initial, tau = (self._state[name] for name in ("distance", "initial_distance", "tau"))
        slots = (DISTILLED,) if tau == 1.0 else (REAL,) if tau == 0.0 else (DISTILLED, REAL)
        figures = {"d_t": distance, "d_ratio": distance / initial, "tau": tau}
        return Plan(partial(soft_loss, tau=tau), slots, figures)

    def _measure(self, epoch: int, update: int) -> None:
        distance = self._probe.distance()
        initial = self._state.get("initial_distance", distance)
        tau = self._weight(epoch, distance, initial)
        self._state = {
            "epoch": epoch,
            "update": update,
            "distance": distance,
            "initial_distance": initial,
            "tau": tau,
        }
        if epoch > 1 and self._settings.schedule == "adaptive" and distance > DISTANCE_STUCK * initial:
            self._run.progress.note(
                f"d_t is {distance / initial:.2f} of d_0: it does not fall, so the true titles hardly count "
                f"(tau {tau:.2f}); compare the adapter with sft before you serve it"
            )

    def _weight(self, epoch: int, distance: float, initial: float) -> float:
        settings = self._settings
        if settings.schedule == "adaptive":
            return curriculum_weight(distance, initial, curriculum_alpha=settings.curriculum_alpha)
        return fixed_weight(settings.schedule, epoch, settings.max_epochs)

    def validate(self) -> dict[str, float]:
        return self._run.validation.measure(self._run.model)

    def state(self) -> dict[str, float]:
        return self._state

    def restore(self, state: dict[str, float]) -> None:
        self._state = state


def train_soft(run: TrainingRun, settings: SoftSettings, name: str, *, teacher: str) -> Adapter:
    """Train and publish a SOFT adapter: a fresh LoRA on the base, not the SFT adapter continued.

    The distilled titles are read from the workspace when they fit, and made otherwise.

    Args:
        name: of the adapter.
        teacher: name of the SFT adapter that writes the distilled titles.
    """
    parent = read_adapter(run.workspace.adapter_dir(teacher))
    distilled = ensure_distilled(run, parent)
    described = describe_distilled(distilled.titles, distilled.truths, run.dataset.catalog)
    run.progress.note("  ".join(f"{figure} {value:.3f}" for figure, value in described.metrics().items()))
    return run.train(
        SoftRecipe(run, settings, distilled),
        name,
        method="soft",
        explain=partial(explain_soft, parent=read_run(parent), distilled=described),
        parent=parent,
        decisive={"distilled titles": text_digest(*distilled.titles)},
    )
