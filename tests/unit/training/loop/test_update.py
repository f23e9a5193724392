"""An update is the same however it is cut into micro-batches; a restored state goes on as the one it was taken from."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from tests.random_llama import random_llama
from training.loop.update import Loss, Updater
from training.model.batches import Batch, Sample, UpdateSize
from training.model.language_model import CompletionScorer, add_lora
from training.parallel.processes import Processes
from training.recipes.sft.recipe import sft_loss
from training.recipes.soft.recipe import DISTILLED, REAL, soft_loss
from training.settings import TrainSettings

SETTINGS = replace(TrainSettings(), batch_size=8, micro_batch_size=8, warmup_steps=1, learning_rate=1e-4)
Figures = list[dict[str, float]]
METHODS: list[tuple[Loss, tuple[int, ...]]] = [
    (sft_loss, (DISTILLED,)),
    (partial(soft_loss, tau=0.3), (DISTILLED, REAL)),
]


def draw_samples(n: int) -> list[Sample]:
    """Prompts of 1 to 5 tokens, two completions of 1 to 4."""
    draw = torch.Generator().manual_seed(3)

    def ids(most: int) -> tuple[int, ...]:
        length = int(torch.randint(1, most + 1, (), generator=draw))
        return tuple(torch.randint(50, (length,), generator=draw).tolist())

    return [Sample(ids(5), (ids(4), ids(4))) for _ in range(n)]


SAMPLES = draw_samples(29)  # updates of 8, 8, 8 and 5


def make_updater(**changes: Any) -> Updater:
    settings = replace(SETTINGS, **changes)
    return Updater(Processes(), CompletionScorer(add_lora(random_llama(50), settings)), settings)


def learn(updater: Updater, loss: Loss, slots: tuple[int, ...], updates: range = range(4)) -> Figures:
    return [updater.update(loss, slots, SAMPLES[8 * at : 8 * at + 8], step=at + 1) for at in updates]


def distance(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> float:
    assert ours.keys() == theirs.keys()
    return max(float((ours[name] - theirs[name]).abs().max()) for name in ours)


@pytest.mark.parametrize("micro_batch_size", [1, 2, 4])
@pytest.mark.parametrize(("loss", "slots"), METHODS)
def test_an_update_of_8_windows_is_the_same_however_it_is_cut(micro_batch_size, loss, slots):
    """8 x 1 equals 1 x 8, to 1e-6: figures and weights after four updates, the last of 5 windows only.

    Every weight moves by up to 4e-4 (Adam: at most the learning rate per update).
    """
    whole, cut = make_updater(), make_updater(micro_batch_size=micro_batch_size)
    for ours, theirs in zip(learn(cut, loss, slots), learn(whole, loss, slots), strict=True):
        assert ours == pytest.approx(theirs, rel=1e-6)
    assert distance(cut.weights(), whole.weights()) < 1e-6
    assert distance(cut.weights(), make_updater().weights()) > 1e-4  # they learned


def test_a_restored_state_goes_on_to_the_last_bit_and_stays_as_it_was():
    first = make_updater(lora_dropout=0.3)
    learn(first, *METHODS[1], range(2))
    state = first.state()
    expected = learn(first, *METHODS[1], range(2, 4))
    for _ in range(2):
        again = make_updater(lora_dropout=0.3)
        again.restore(state)
        assert learn(again, *METHODS[1], range(2, 4)) == expected
        assert distance(again.weights(), first.weights()) == 0.0


def test_loaded_weights_are_those_that_were_taken():
    updater = make_updater()
    taken = updater.weights()
    learn(updater, *METHODS[0])
    assert distance(updater.weights(), taken) > 0.0
    updater.load(taken)
    assert distance(updater.weights(), taken) == 0.0


def test_an_update_that_failed_leaves_no_gradient_behind():
    """The third of four micro-batches fails; the update that follows is what it would have been."""

    def failing(scorer: Any, batch: Batch, size: UpdateSize, *, calls: list[int]) -> tuple[Tensor, dict[str, float]]:
        calls.append(1)
        if len(calls) == 3:
            raise ValueError("broken")
        return sft_loss(scorer, batch, size)

    updater = make_updater(micro_batch_size=2)
    with pytest.raises(ValueError, match="broken"):
        updater.update(partial(failing, calls=[]), (0,), SAMPLES[:8], step=1)
    assert learn(updater, *METHODS[0]) == learn(make_updater(micro_batch_size=2), *METHODS[0])


def test_the_launch_cannot_scale_the_loss(monkeypatch):
    """accelerate divides losses by the accumulation steps of its configuration; ours are counted by the update."""
    expected = learn(make_updater(), *METHODS[0])
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "4")
    assert learn(make_updater(), *METHODS[0]) == expected
