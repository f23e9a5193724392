"""The loop keeps the best epoch, stops early, refuses what diverges, and goes on where it was cut."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from index.errors import CorruptArtifactError
from tests.notes import Notes
from tests.random_llama import random_llama
from training.errors import DivergedError, StoppedError, TrainingError
from training.loop.fit import FitResult, Plan, fit
from training.loop.run_folder import RunFolder
from training.model.batches import Batch, Sample, UpdateSize
from training.model.language_model import CompletionScorer, add_lora
from training.parallel.processes import Processes
from training.progress import Advance, Silence
from training.recipes.sft.recipe import sft_loss
from training.settings import TrainSettings

SETTINGS = replace(TrainSettings(), batch_size=2, micro_batch_size=1, max_epochs=6, patience=2, warmup_steps=0)
SAMPLES = [Sample((1,), ((2, 3),), "user 7 -> 'Doom'") for _ in range(4)]


class Scale(torch.nn.Module):
    """One weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> torch.Tensor:
        return self.weight.expand(len(batch.labels))


def pull_up(scorer: Any, batch: Batch, size: UpdateSize) -> tuple[torch.Tensor, dict[str, float]]:
    loss = -scorer.weight * len(batch.labels) / size.tokens[0]
    return loss, {"loss": float(loss.detach())}


class Script:
    """A recipe whose validation scores are given beforehand."""

    scorer = CompletionScorer

    def __init__(self, model: Scale, scores: list[float]) -> None:
        self.samples, self.model, self.scores = SAMPLES, model, scores
        self.seen: list[float] = []

    def measures(self, update: int) -> bool:
        return False

    def plan(self, epoch: int, update: int) -> Plan:
        return Plan(pull_up, (0,), {"tau": 0.5})

    def validate(self) -> dict[str, float]:
        self.seen.append(float(self.model.weight.detach()))
        return {"validation_hr10": self.scores[len(self.seen) - 1]}

    def state(self) -> dict[str, float]:
        return {}

    def restore(self, state: dict[str, float]) -> None:
        return None


def run(folder: Path, scores: list[float], **changes: Any) -> tuple[FitResult, Scale, list[float]]:
    model = Scale()
    recipe = Script(model, scores)
    settings = replace(SETTINGS, **changes)
    result = fit(Processes(), model, recipe, settings, folder=RunFolder(folder), identity={}, progress=Silence())
    return result, model, recipe.seen


def test_the_best_epoch_is_kept_and_two_worse_ones_end_it(tmp_path):
    result, model, weights = run(tmp_path, [0.1, 0.3, 0.2, 0.3, 0.9])
    assert result.best_epoch == 2
    assert len(result.history) == 4  # epochs 3 and 4 were not better than 2
    assert float(model.weight.detach()) == weights[1] != weights[3]
    assert result.best["validation_hr10"] == 0.3
    assert [row["tau"] for row in result.history] == [0.5] * 4


def test_a_run_that_keeps_improving_runs_to_the_end(tmp_path):
    result, _, _ = run(tmp_path, [0.1, 0.2, 0.3, 0.4, 0.5, 0.6])
    assert (result.best_epoch, len(result.history)) == (6, 6)


@pytest.mark.parametrize("micro_batch_size", [1, 2])
def test_figures_are_means_over_updates_however_an_update_is_cut(tmp_path, micro_batch_size):
    """Each update's loss is -weight; Adam moves it by lr per update: epoch 1 sees 0 and -lr, their mean is -lr / 2."""
    result, _, _ = run(tmp_path, [0.0] * 6, micro_batch_size=micro_batch_size, max_epochs=1, learning_rate=0.1)
    assert result.history[0]["loss"] == pytest.approx(-0.05, rel=1e-4)


def test_a_loss_that_is_not_a_number_stops_the_run(tmp_path):
    model = Scale()
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    with pytest.raises(
        DivergedError,
        match="update 1: the loss is not finite, because of user 7 -> 'Doom'; nothing is published; lower",
    ):
        fit(
            Processes(),
            model,
            Script(model, []),
            SETTINGS,
            folder=RunFolder(tmp_path),
            identity={},
            progress=Silence(),
        )


def test_every_update_is_logged(tmp_path):
    run(tmp_path, [0.0] * 6, max_epochs=2, warmup_steps=3, learning_rate=0.4)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    updates = [row for row in rows if row["event"] == "update"]
    assert [row["step"] for row in updates] == [1, 2, 3, 4]
    assert [row["learning_rate"] for row in updates] == pytest.approx([0.1, 0.2, 0.3, 0.4])  # warm-up, then constant
    assert {row["grad_norm"] for row in updates} == {1.0}
    assert {row["tokens"] for row in updates} == {4.0}
    assert [row["event"] for row in rows] == ["plan", "update", "update", "epoch", "update", "update", "epoch"]


class Killed(BaseException):
    """Stands for SIGKILL: nothing in the product catches it."""


class KillAfter(Silence):
    """Ends the run while it reports its n-th update."""

    def __init__(self, n: int, kill: Callable[[], None]) -> None:
        self.left, self.kill = n, kill

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        def advance(n: int = 1, **figures: float) -> None:
            self.left -= n
            if self.left == 0:
                self.kill()

        yield advance


class Wandering:
    """A recipe over a real LoRA, with dropout and a state of its own; its scores depend on the weights."""

    scorer = CompletionScorer

    def __init__(self, model: Any) -> None:
        draw = torch.Generator().manual_seed(1)
        self.samples = [
            Sample(
                tuple(torch.randint(50, (3 + at % 4,), generator=draw).tolist()),
                (tuple(torch.randint(50, (2 + at % 3,), generator=draw).tolist()),),
            )
            for at in range(10)
        ]
        self.model, self.measured = model, {"sum": 0.0}

    def measures(self, update: int) -> bool:
        return update == 0

    def plan(self, epoch: int, update: int) -> Plan:
        if update == 0 and self.measured.get("epoch") != epoch:
            self.measured = {"sum": self.measured["sum"] + epoch, "epoch": epoch}
        return Plan(sft_loss, (0,), {"measured": self.measured["sum"]})

    def validate(self) -> dict[str, float]:
        weights = [weight for name, weight in self.model.named_parameters() if "lora_B" in name]
        return {"validation_hr10": -abs(float(weights[0].detach().sum()))}

    def state(self) -> dict[str, float]:
        return self.measured

    def restore(self, state: dict[str, float]) -> None:
        self.measured = state


LORA = replace(SETTINGS, lora_dropout=0.3, max_epochs=3, batch_size=4, micro_batch_size=2, checkpoint_every=2)


def wander(folder: Path, progress: Silence) -> tuple[FitResult, dict[str, torch.Tensor], list[dict[str, Any]]]:
    model = add_lora(random_llama(50), LORA)
    result = fit(
        Processes(),
        CompletionScorer(model),
        Wandering(model),
        LORA,
        folder=RunFolder(folder),
        identity={"data": "x"},
        progress=progress,
    )
    weights = {name: weight.detach().clone() for name, weight in model.named_parameters() if weight.requires_grad}
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return result, weights, [{name: value for name, value in row.items() if name != "train_s"} for row in rows]


def die() -> None:
    raise Killed


@pytest.mark.parametrize("updates", range(1, 10))  # 3 epochs of 3 updates
def test_a_run_killed_after_any_update_goes_on_as_if_nothing_had_happened(tmp_path, updates):
    """Every logged number and every weight of the resumed run are those of the unbroken one, to the bit."""
    _, expected, log = wander(tmp_path / "whole", Silence())
    with pytest.raises(Killed):
        wander(tmp_path / "broken", KillAfter(updates, die))
    notes = Notes()
    result, weights, resumed = wander(tmp_path / "broken", notes)
    assert resumed == log
    assert len(result.history) == 3
    assert all(torch.equal(weights[name], expected[name]) for name in expected)
    assert any("going on from" in note for note in notes.said) == (updates > 2)  # the first checkpoint is after two


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_first_and_loses_no_update(tmp_path, number):
    """SIGTERM after update 3, between two checkpoints: the run that goes on begins with update 4."""
    _, expected, log = wander(tmp_path / "whole", Silence())
    with pytest.raises(StoppedError, match=f"stopped by {number.name}; the run is saved; the same command") as stopped:
        wander(tmp_path / "broken", KillAfter(3, lambda: os.kill(os.getpid(), number)))
    assert stopped.value.exit_code == 128 + number
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
    notes = Notes()
    _, weights, resumed = wander(tmp_path / "broken", notes)
    assert notes.said[0].endswith("epoch 1, 3 updates done")
    assert resumed == log
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_a_full_disk_keeps_the_last_checkpoint_and_names_the_file(tmp_path, monkeypatch):
    _, _, log = wander(tmp_path / "whole", Silence())
    saves = 0
    write = os.fsync

    def fill_up(descriptor: int) -> None:
        nonlocal saves
        saves += 1
        if saves == 3:  # run.json, the checkpoint after two updates, the one after three
            raise OSError(28, "No space left on device")
        write(descriptor)

    monkeypatch.setattr(os, "fsync", fill_up)
    with pytest.raises(OSError, match="No space left") as full:
        wander(tmp_path / "broken", Silence())
    assert full.value.filename == str(tmp_path / "broken" / "checkpoint")
    monkeypatch.undo()
    notes = Notes()
    assert wander(tmp_path / "broken", notes)[2] == log
    assert notes.said[0].endswith("epoch 1, 2 updates done")


def test_a_run_of_something_else_starts_over_and_says_why(tmp_path):
    with pytest.raises(Killed):
        wander(tmp_path, KillAfter(5, die))
    (tmp_path / "run.json").write_text(json.dumps({"data": "y"}))
    notes = Notes()
    wander(tmp_path, notes)
    assert notes.said[0].startswith("an unfinished run is discarded: it had another")
    assert "data" in notes.said[0]


def test_a_changed_checkpoint_is_refused(tmp_path):
    with pytest.raises(Killed):
        wander(tmp_path, KillAfter(5, die))
    data = bytearray((tmp_path / "checkpoint").read_bytes())
    data[-100] ^= 1
    (tmp_path / "checkpoint").write_bytes(data)
    with pytest.raises(CorruptArtifactError, match=r"checkpoint: changed since it was written.*remove"):
        wander(tmp_path, Silence())


def test_a_second_process_at_the_same_run_is_refused(tmp_path):
    """flock holds per open file, so two objects in one process stand for two processes."""
    first, second = RunFolder(tmp_path / "run"), RunFolder(tmp_path / "run")
    refused = pytest.raises(TrainingError, match=r"another process trains in .*; wait for it or end it")
    with first.lock(), refused, second.lock():
        pass
    with second.lock():
        pass


def test_a_lock_on_a_folder_that_was_removed_meanwhile_is_taken_again(tmp_path, monkeypatch):
    """The second process opens the lock file, then the first one publishes and removes the folder with it."""
    folder = RunFolder(tmp_path / "run")
    opened = folder._open_lock()
    folder.remove()
    files = iter([opened, folder._open_lock()])
    monkeypatch.setattr(folder, "_open_lock", lambda: next(files))
    with folder.lock(), pytest.raises(TrainingError), RunFolder(tmp_path / "run").lock():
        pass
