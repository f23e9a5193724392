"""The loop keeps the best epoch, stops early, refuses what diverges."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from training.batches import Sample
from training.errors import DivergedError
from training.fit import Epoch, fit, make_accelerator
from training.progress import Silence
from training.settings import PRESETS

SETTINGS = replace(PRESETS["tiny"], batch_size=2, micro_batch_size=1, max_epochs=6, patience=2, warmup_steps=0)
SAMPLES = [Sample((1,), ((2, 3),)) for _ in range(4)]


class Scale(torch.nn.Module):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))


def pull_up(model: Any, batch: Any, tokens: Sequence[int]) -> tuple[torch.Tensor, dict[str, float]]:
    loss = -model.weight * len(batch.labels) / tokens[0]
    return loss, {"loss": float(loss.detach())}


def run(scores: list[float], **changes: Any) -> tuple[Any, Scale, list[float]]:
    model, weights = Scale(), []

    def validate() -> float:
        weights.append(float(model.weight.detach()))
        return scores[len(weights) - 1]

    settings = replace(SETTINGS, **changes)
    result = fit(
        make_accelerator(settings),
        model,
        settings,
        plan_epoch=lambda epoch: Epoch(SAMPLES, pull_up, {"tau": 0.5}),
        validate=validate,
        progress=Silence(),
    )
    return result, model, weights


def test_the_best_epoch_is_kept_and_two_worse_ones_end_it():
    result, model, weights = run([0.1, 0.3, 0.2, 0.3, 0.9])
    assert result.best_epoch == 2
    assert len(result.history) == 4  # epochs 3 and 4 were not better than 2
    assert float(model.weight.detach()) == weights[1] != weights[3]
    assert result.best["validation_hr10"] == 0.3
    assert [row["tau"] for row in result.history] == [0.5] * 4


def test_a_run_that_keeps_improving_runs_to_the_end():
    result, _, _ = run([0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (result.best_epoch, len(result.history)) == (6, 6)


@pytest.mark.parametrize("micro_batch_size", [1, 2])
def test_figures_are_means_over_updates_however_an_update_is_cut(micro_batch_size):
    """Each update's loss is -weight; Adam moves it by lr per update: epoch 1 sees 0 and -lr, their mean is -lr / 2."""
    result, _, _ = run([0.0] * 6, micro_batch_size=micro_batch_size, max_epochs=1, learning_rate=0.1)
    assert result.history[0]["loss"] == pytest.approx(-0.05, rel=1e-4)


def test_a_loss_that_is_not_a_number_stops_the_run():
    model = Scale()
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    with pytest.raises(
        DivergedError, match=r"epoch 1, update 1: loss is nan; nothing is published; lower the learning"
    ):
        fit(
            make_accelerator(SETTINGS),
            model,
            SETTINGS,
            plan_epoch=lambda epoch: Epoch(SAMPLES, pull_up, {}),
            validate=lambda: 0.0,
            progress=Silence(),
        )
