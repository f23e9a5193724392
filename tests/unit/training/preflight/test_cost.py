"""What is measured, and the arithmetic from it; never how long it took."""

from __future__ import annotations

from dataclasses import replace

import torch

from tests.random_llama import random_llama
from training.model.batches import Sample
from training.model.language_model import add_lora
from training.parallel.processes import Processes
from training.preflight import cost
from training.preflight.cost import Part, measure_updates, peak_memory_bytes, seconds_per_title
from training.recipes.sft import sft_loss
from training.settings import PRESETS


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
    settings = replace(PRESETS["tiny"], batch_size=2, micro_batch_size=1, lora_rank=2, lora_modules="q_proj")
    model = add_lora(random_llama(50), settings)
    found = measure_updates(Processes(), model, samples, settings, sft_loss, (0,))
    assert found.updates_per_epoch == 4
    assert found.longest.tokens == 18
    assert found.typical.tokens in (6, 18)
    assert found.trainable_parameters == 256
    assert found.parameters == sum(weight.numel() for weight in random_llama(50).parameters()) + 256


def test_one_batch_of_titles_is_timed_after_a_warm_up(monkeypatch):
    """A clock that each title written moves by half a second: the one of the warm-up does not count."""
    clock = [0.0]
    monkeypatch.setattr(cost.time, "perf_counter", lambda: clock[0])
    asked: list[int] = []

    def write(n: int) -> None:
        asked.append(n)
        clock[0] += 0.5 * n

    assert seconds_per_title(write, 100, 8) == 0.5
    assert seconds_per_title(write, 3, 8) == 0.5
    assert asked == [1, 8, 1, 3]


def test_the_peak_of_memory_is_in_bytes():
    """torch alone takes more than 50 MB, and nobody tests this with a terabyte."""
    assert 50e6 < peak_memory_bytes(torch.device("cpu")) < 1e12
