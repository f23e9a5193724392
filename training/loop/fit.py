"""The training loop: our own small one on accelerate.

A recipe hands it samples; before every update the loop asks the recipe what to learn from them, after every epoch how
good the model is. It keeps the best epoch, not the last.

Nothing depends on where a run was cut. The order of an epoch depends on (seed, epoch) alone, dropout in an update on
(seed, update, process), the learning rate on the update; all the rest (weights, optimizer, figures of the epoch so
far, best epoch, the recipe's own state) is in the checkpoint. So a run that was killed and started again gives the
numbers of an unbroken one, to the last bit on one kind of CPU with one number of threads.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from training.errors import DivergedError
from training.loop.interruption import Interruption, catch_signals
from training.loop.run_folder import RunFolder
from training.loop.trackers import Trackers
from training.loop.update import Loss, Updater
from training.model.batches import Sample, check_samples, update_batches
from training.parallel.processes import Processes
from training.progress import Advance, Progress
from training.settings import IDLE, TrainSettings


@dataclass(frozen=True)
class Plan:
    """What to learn from the samples of the coming update.

    Attributes:
        loss: computed on every micro-batch, of what the recipe's scorer gives.
        slots: the completions that it needs; the others are not computed.
        figures: what the recipe adds to the log (tau, d_t).
    """

    loss: Loss
    slots: tuple[int, ...]
    figures: dict[str, float] = field(default_factory=dict)


class Recipe(Protocol):
    """A training method."""

    @property
    def samples(self) -> Sequence[Sample]:
        """What an epoch goes over, one sample per window."""
        ...

    @property
    def scorer(self) -> Callable[[Any], Any]:
        """Makes of a model the module that the losses call: completion log-probabilities, say.

        One per run: it is prepared for the processes (DDP, FSDP, DeepSpeed) before the first update.
        """
        ...

    def measures(self, update: int) -> bool:
        """Whether `plan` measures the model before this update of an epoch: the loop gathers and saves it first."""
        ...

    def plan(self, epoch: int, update: int) -> Plan:
        """Say what the coming update learns from; it may measure the model first.

        Args:
            epoch: counted from 1.
            update: of this epoch, counted from 0.
        """
        ...

    def validate(self) -> dict[str, float]:
        """Measure the model as it stands: at least `validation_hr10`, by which the best epoch is chosen."""
        ...

    def state(self) -> dict[str, float]:
        """The recipe's own state, for the checkpoint."""
        ...

    def restore(self, state: dict[str, float]) -> None:
        """Resume from what `state` gave."""
        ...


@dataclass(frozen=True)
class FitResult:
    """The best epoch (counted from 1) and one row of figures per epoch."""

    best_epoch: int
    history: list[dict[str, float]]

    @property
    def best(self) -> dict[str, float]:
        return self.history[self.best_epoch - 1]


@dataclass
class _Place:
    """Where a run is: the next update to do, and the figures so far.

    Attributes:
        epoch: counted from 1.
        update: updates of this epoch that are done.
        step: updates of the whole run that are done.
        figures: of the plan in force.
        totals: losses of this epoch, name to (sum over its updates, number of updates that had it).
        train_s: seconds spent on this epoch's updates.
        is_over: nothing is left but to publish.
    """

    epoch: int = 1
    update: int = 0
    step: int = 0
    figures: dict[str, float] = field(default_factory=dict)
    totals: dict[str, tuple[float, int]] = field(default_factory=dict)
    train_s: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list)
    best_epoch: int = 0
    is_over: bool = False


class _Run:
    """State of one training run, shared by the loop's steps."""

    def __init__(
        self,
        processes: Processes,
        scorer: Any,
        recipe: Recipe,
        folder: RunFolder,
        settings: TrainSettings,
        trackers: Trackers,
        progress: Progress,
    ) -> None:
        self.processes, self.recipe, self.folder, self.trackers = processes, recipe, folder, trackers
        self.settings, self.progress = settings, progress
        self.updater = Updater(processes, scorer, settings)
        self.lengths = [len(sample) for sample in recipe.samples]
        self.updates = math.ceil(len(self.lengths) / settings.batch_size)  # per epoch
        self.place = _Place()
        self.best: dict[str, Tensor] = {}

    def restore(self, state: dict[str, Any]) -> None:
        self.updater.restore(state["updater"])
        self.recipe.restore(state["recipe"])
        self.best = state["best"]
        self.place = _Place(**state["place"])
        place = self.place
        self.progress.note(f"going on from {self.folder.path}: epoch {place.epoch}, {place.update} updates done")

    def save(self) -> None:
        state = {
            "updater": self.updater.state(),
            "recipe": self.recipe.state(),
            "best": self.best,
            "place": vars(self.place),
        }
        self.processes.on_main(lambda: self.folder.save(state))

    def log(self, event: str, row: Mapping[str, float]) -> None:
        if self.processes.is_main:
            self.folder.log(event, row)
            self.trackers.log(self.place.step, row)

    def train_epoch(self, interruption: Interruption) -> None:
        """Do what is left of the epoch's updates."""
        place, settings = self.place, self.settings
        order = list(
            update_batches(self.lengths, batch_size=settings.batch_size, seed=settings.seed * 1000 + place.epoch)
        )
        with self.progress.step(f"epoch {place.epoch}", self.updates - place.update) as advance:
            while place.update < self.updates:
                with self._measuring(interruption) if self.recipe.measures(place.update) else nullcontext():
                    plan = self.recipe.plan(place.epoch, place.update)
                if plan.figures != place.figures:
                    place.figures = plan.figures
                    self.log("plan", {"epoch": place.epoch, "step": place.step, **plan.figures})
                self._update(plan, order[place.update], advance)
                stops = any(self.processes.sum([interruption.signal is not None]))
                if stops or self._saves_now():
                    self.save()
                if stops:
                    interruption.stop()

    @contextmanager
    def _measuring(self, interruption: Interruption) -> Iterator[None]:
        """The model may write titles; a signal ends that at once, since the run was saved just before."""
        with interruption.at_once(), self.updater.whole():
            yield

    def _saves_now(self) -> bool:
        """A checkpoint is due: after so many updates, before the model is measured, and at the epoch's end."""
        update = self.place.update
        return update % self.settings.checkpoint_every == 0 or update == self.updates or self.recipe.measures(update)

    def _update(self, plan: Plan, indices: Sequence[int], advance: Advance) -> None:
        place, started = self.place, time.perf_counter()
        samples = [self.recipe.samples[index] for index in indices]
        figures = self.updater.update(plan.loss, plan.slots, samples, step=place.step + 1)
        for name, value in figures.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"epoch {place.epoch}, update {place.update + 1}: {name} is {value}; nothing is published",
                    remedy=f"lower the learning rate (--set learning_rate={self.settings.learning_rate / 3:.1g})",
                )
            if name.startswith("loss"):
                total, n = place.totals.get(name, (0.0, 0))
                place.totals[name] = (total + value, n + 1)
        place.update, place.step = place.update + 1, place.step + 1
        place.train_s += time.perf_counter() - started
        self.log("update", {"epoch": place.epoch, "step": place.step, **plan.figures, **figures})
        advance(1, loss=figures["loss"])

    def end_epoch(self) -> None:
        """Measure the model, keep it if it is the best so far, and go to the next epoch or to the end."""
        place = self.place
        figures = {name: total / n for name, (total, n) in place.totals.items()}
        with self.updater.whole():
            scores = self.recipe.validate()
        row = {"epoch": place.epoch, **place.figures, **figures, "train_s": place.train_s, **scores}
        place.history.append(row)
        self.progress.note("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        self.log("epoch", row)
        if not self.best or row["validation_hr10"] > place.history[place.best_epoch - 1]["validation_hr10"]:
            place.best_epoch, self.best = place.epoch, self.updater.weights()
        elif place.epoch - place.best_epoch >= self.settings.patience:
            self.progress.note(
                f"no better validation HR@10 for {self.settings.patience} epochs: stopping, "
                f"epoch {place.best_epoch} is kept"
            )
            place.is_over = True
        place.is_over = place.is_over or place.epoch == self.settings.max_epochs
        place.epoch, place.update, place.totals, place.train_s = place.epoch + 1, 0, {}, 0.0
        self.save()


def fit(
    processes: Processes,
    scorer: Any,
    recipe: Recipe,
    settings: TrainSettings,
    *,
    folder: RunFolder,
    identity: Mapping[str, str],
    progress: Progress,
    trackers: Trackers | None = None,
) -> FitResult:
    """Train the scorer's trainable weights with early stopping; leave the best epoch's in it.

    AdamW without weight decay, linear warm-up, then constant (SOFT, section 4.1). After each epoch the recipe's
    `validation_hr10` is asked for; `settings.patience` epochs without a better one end the run. On equal HR@10 the
    earlier epoch stays.

    Args:
        folder: where the run keeps its checkpoint and its log; the caller holds its lock. A run of the same identity
            that was killed goes on.
        identity: what decides the run's numbers, beside the settings and the layout of the processes.
        trackers: get every logged row too; None: there are none.

    Raises:
        EmptyDataError: samples without a token to learn; names them.
        DivergedError: a loss or a gradient is not finite; names the samples.
        StoppedError: SIGTERM or SIGINT came; the state is saved.
        OSError: a checkpoint could not be written; the last one stays.
    """
    check_samples(recipe.samples)
    run = _Run(processes, scorer, recipe, folder, settings, trackers or Trackers(), progress)
    decisive = dict(identity) | {name: str(value) for name, value in settings.to_json().items() if name not in IDLE}
    decisive["processes"] = processes.layout
    state = processes.on_main(lambda: folder.open(decisive, progress))
    if state is not None:
        run.restore(state)
    with catch_signals() as interruption:
        while not run.place.is_over:
            run.train_epoch(interruption)
            with interruption.at_once():
                run.end_epoch()
    run.updater.load(run.best)
    run.updater.unshard()
    scorer.eval()
    return FitResult(run.place.best_epoch, run.place.history)
