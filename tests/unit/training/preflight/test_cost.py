"""What is measured, and the arithmetic from it; never how long it took."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from tests.random_llama import random_llama
from training.loop.fit import Plan
from training.model.batches import Sample
from training.model.language_model import CompletionScorer, add_lora
from training.parallel.processes import Processes
from training.preflight import cost
from training.preflight.cost import Part, measure_titles, measure_updates, peak_memory_bytes
from training.progress import Silence
from training.recipes.sft.recipe import sft_loss
from training.settings import TrainSettings


def test_a_part_takes_rounds_times_units():
    assert Part("validation", 3, 512, "title", 0.25).total_seconds == 384.0


def test_updates_are_counted_and_the_longest_and_a_typical_one_are_named():
    """Seven samples in updates of two: four updates.

    Sorted by length within a pool, the updates are (3, 3), (3, 3), (9, 9) and (18): 6, 6, 18 and 18 tokens; their mean
    is 12, so any is as typical, and the longest has 18. LoRA of rank 2 on one projection of two layers, 32 -> 32:
    2 layers x (2 x 32 + 32 x 2) = 256 scalars learn.
    """
    lengths = (3, 3, 3, 3, 9, 9, 18)
    samples = [Sample(tuple(range(1, length)), ((7,),)) for length in lengths]
    settings = replace(TrainSettings(), batch_size=2, micro_batch_size=1, lora_rank=2, lora_modules="q_proj")
    model = add_lora(random_llama(50), settings)
    found = measure_updates(Processes(), model, CompletionScorer, samples, settings, Plan(sft_loss, (0,)), Silence())
    assert found.updates_per_epoch == 4
    assert found.longest.tokens == 18
    assert found.typical.tokens in (6, 18)
    assert found.trainable_parameters == 256
    assert found.parameters == sum(weight.numel() for weight in random_llama(50).parameters()) + 256


@pytest.mark.parametrize(("seconds", "asked"), [(0.5, [1, 8, 1, 3]), (3.0, [1, 3, 1, 3]), (60.0, [1, 1, 1, 1])])
def test_a_batch_of_titles_is_timed_or_what_ten_seconds_allow(seconds, asked, monkeypatch):
    """A clock that each title moves. At 0.5 s a batch of 8 takes 4 s; at 3 s three take 9; one is timed anyway."""
    clock = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    written: list[int] = []

    def write(n: int) -> None:
        written.append(n)
        clock[0] += seconds * n

    times = [measure_titles(write, n, 8) for n in (100, 3)]
    assert [time.seconds for time in times] == [seconds] * 2
    assert [time.written for time in times] == asked[1::2]
    assert written == asked


def test_the_peak_of_memory_is_in_bytes():
    """torch alone takes more than 50 MB, and nobody tests this with a terabyte."""
    assert 50e6 < peak_memory_bytes(torch.device("cpu")) < 1e12
