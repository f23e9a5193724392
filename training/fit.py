"""The training loop: our own small one on accelerate.

A recipe hands it samples and a loss; between epochs it asks the recipe what to train on next, and after each how good
the model is. It keeps the best epoch, not the last.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from accelerate import Accelerator
from torch import Tensor

from training.batches import Batch, Sample, collate, update_batches
from training.errors import DivergedError, TrainingError
from training.progress import Advance, Progress
from training.settings import TrainSettings


class Loss(Protocol):
    """A batch's share of an update's loss."""

    def __call__(self, model: Any, batch: Batch, tokens: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of one micro-batch.

        Args:
            tokens: completion tokens per slot in the whole update; dividing by them makes the update the same however
                it is cut into micro-batches.

        Returns:
            The scalar to differentiate, and this batch's addends to the update's figures (name to value).
        """
        ...


@dataclass(frozen=True)
class Epoch:
    """What to train on in one epoch: samples, their loss, and figures that the recipe wants in the log (tau, d_t)."""

    samples: Sequence[Sample]
    loss: Loss
    figures: dict[str, float]


@dataclass(frozen=True)
class FitResult:
    """The best epoch (counted from 1) and one row of figures per epoch."""

    best_epoch: int
    history: list[dict[str, float]]

    @property
    def best(self) -> dict[str, float]:
        return self.history[self.best_epoch - 1]


def make_accelerator(settings: TrainSettings) -> Accelerator:
    """One process. Training in several belongs to `accelerate launch` and is refused until it is proven."""
    accelerator = Accelerator(mixed_precision="no")  # the base model's own dtype decides
    if accelerator.num_processes > 1:
        raise TrainingError(
            f"softrec trains in one process, not {accelerator.num_processes}",
            remedy="start it without accelerate launch",
        )
    return accelerator


def fit(
    accelerator: Accelerator,
    model: Any,
    settings: TrainSettings,
    *,
    plan_epoch: Callable[[int], Epoch],
    validate: Callable[[], float],
    progress: Progress,
) -> FitResult:
    """Train LoRA weights with early stopping; leave the best epoch's in the model.

    AdamW without weight decay, linear warm-up, then constant (SOFT, section 4.1). After each epoch `validate` gives
    HR@10; `settings.patience` epochs without a better one end the run. On equal HR@10 the earlier epoch stays.

    Args:
        plan_epoch: called before each epoch (from 1) with the model as it stands.
        validate: HR@10 on the validation windows.

    Raises:
        DivergedError: a loss is not finite.
    """
    weights = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(weights.values(), lr=settings.learning_rate, weight_decay=0.0)
    warmup = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min(1.0, (step + 1) / (settings.warmup_steps + 1))
    )
    model, optimizer = accelerator.prepare(model, optimizer)
    history: list[dict[str, float]] = []
    best_epoch, best_weights = 0, {}
    for epoch in range(1, settings.max_epochs + 1):
        plan = plan_epoch(epoch)
        started = time.perf_counter()
        updates = math.ceil(len(plan.samples) / settings.batch_size)
        with progress.step(f"epoch {epoch}", updates) as advance:
            figures = _run_epoch(accelerator, model, optimizer, warmup, plan, settings, epoch, advance)
        row = {
            "epoch": epoch,
            **plan.figures,
            **figures,
            "train_s": time.perf_counter() - started,
            "validation_hr10": validate(),
        }
        history.append(row)
        progress.note("  ".join(f"{name} {value:.4g}" for name, value in row.items()))
        if not best_epoch or row["validation_hr10"] > history[best_epoch - 1]["validation_hr10"]:
            best_epoch, best_weights = epoch, {name: weight.detach().clone() for name, weight in weights.items()}
        elif epoch - best_epoch >= settings.patience:
            progress.note(
                f"no better validation HR@10 for {settings.patience} epochs: stopping, epoch {best_epoch} is kept"
            )
            break
    with torch.no_grad():
        for name, weight in weights.items():
            weight.copy_(best_weights[name])
    model.eval()
    return FitResult(best_epoch, history)


def _run_epoch(
    accelerator: Accelerator,
    model: Any,
    optimizer: Any,
    warmup: Any,
    plan: Epoch,
    settings: TrainSettings,
    epoch: int,
    advance: Advance,
) -> dict[str, float]:
    model.train()
    totals: dict[str, float] = {}
    lengths = [len(sample) for sample in plan.samples]
    updates = 0
    for indices in update_batches(lengths, batch_size=settings.batch_size, seed=settings.seed * 1000 + epoch):
        samples = [plan.samples[index] for index in indices]
        figures = _update(accelerator, model, optimizer, plan.loss, samples, settings)
        warmup.step()
        updates += 1
        for name, value in figures.items():
            if not math.isfinite(value):
                raise DivergedError(
                    f"epoch {epoch}, update {updates}: {name} is {value}; nothing is published",
                    remedy=f"lower the learning rate (--set learning_rate={settings.learning_rate / 3:.1g})",
                )
            totals[name] = totals.get(name, 0.0) + value
        advance(1, **figures)
    return {name: value / updates for name, value in totals.items()}


def _update(
    accelerator: Accelerator, model: Any, optimizer: Any, loss: Loss, samples: Sequence[Sample], settings: TrainSettings
) -> dict[str, float]:
    slots = max(len(sample.completions) for sample in samples)
    tokens = [sum(len(sample.completions[slot]) for sample in samples) for slot in range(slots)]
    figures: dict[str, float] = {}
    optimizer.zero_grad(set_to_none=True)
    for begin in range(0, len(samples), settings.micro_batch_size):
        batch = collate(samples[begin : begin + settings.micro_batch_size], pad_id=0).to(accelerator.device)
        value, addends = loss(model, batch, tokens)
        accelerator.backward(value)
        for name, addend in addends.items():
            figures[name] = figures.get(name, 0.0) + addend
    accelerator.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
    optimizer.step()
    return figures
