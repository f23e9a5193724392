"""What a run would take: a few real updates and titles, measured, and the arithmetic from them to the whole."""

from __future__ import annotations

import resource
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from training.loop.fit import Plan
from training.loop.update import Updater
from training.model.batches import Sample, update_batches
from training.parallel.processes import Processes
from training.progress import Progress
from training.settings import TrainSettings

TIMED = 3  # repetitions of each update, after one that warms up
TITLES_S = 10.0  # about so long titles are written to time them


@dataclass(frozen=True)
class UpdateTime:
    """One measured update.

    Attributes:
        tokens: of its samples, prompts included.
        seconds: median of `TIMED` repetitions.
    """

    samples: int
    tokens: int
    seconds: float


@dataclass(frozen=True)
class Part:
    """One part of a run's time: `rounds` rounds of `count` units, each of which takes `seconds`.

    Attributes:
        what: "updates", "validation", ...
        rounds: epochs, mostly.
        unit: "update" or "title".
    """

    what: str
    rounds: int
    count: int
    unit: str
    seconds: float

    @property
    def total_seconds(self) -> float:
        return self.rounds * self.count * self.seconds


@dataclass(frozen=True)
class UpdateCost:
    """What updates take.

    Attributes:
        trainable_parameters, parameters: scalars that learn, and all there are.
        updates_per_epoch: of `batch_size` windows, the last one perhaps smaller.
        typical: the update whose number of tokens is nearest the epoch's mean; an epoch is that many of these.
        longest: the update with most tokens; it decides the memory.
    """

    trainable_parameters: int
    parameters: int
    updates_per_epoch: int
    typical: UpdateTime
    longest: UpdateTime


def measure_updates(
    processes: Processes,
    model: Any,
    scorer: Callable[[Any], Any],
    samples: Sequence[Sample],
    settings: TrainSettings,
    plan: Plan,
    progress: Progress,
) -> UpdateCost:
    """Do a few updates of the first epoch and time them. They change the model's LoRA weights.

    Args:
        model: a base with LoRA.
        scorer: see `training.loop.fit.Recipe`.
        samples: of the whole epoch.
        plan: of these updates.
    """
    trainable_parameters, parameters = model.get_nb_trainable_parameters()  # of the whole model: before it is sharded
    updater = Updater(processes, scorer(model), settings)
    lengths = [len(sample) for sample in samples]
    updates = list(update_batches(lengths, batch_size=settings.batch_size, seed=settings.seed * 1000 + 1))
    tokens = [sum(lengths[at] for at in update) for update in updates]
    typical = min(range(len(updates)), key=lambda at: abs(tokens[at] - statistics.mean(tokens)))
    longest = max(range(len(updates)), key=lambda at: tokens[at])

    with progress.step("measure updates", 2 * (1 + TIMED)) as advance:

        def measured(at: int) -> UpdateTime:
            chosen = [samples[index] for index in updates[at]]

            def update() -> None:
                updater.update(plan.loss, plan.slots, chosen, step=1)
                advance(1)

            return UpdateTime(len(chosen), tokens[at], _median_seconds(update, processes.device))

        return UpdateCost(
            trainable_parameters=trainable_parameters,
            parameters=parameters,
            updates_per_epoch=len(updates),
            longest=measured(longest),  # first: what it allocates is there for the others too
            typical=measured(typical),
        )


@dataclass(frozen=True)
class TitleTime:
    """How long titles take.

    Attributes:
        written: titles that were timed, at once.
        seconds: per title.
    """

    written: int
    seconds: float


def measure_titles(write: Callable[[int], object], n: int, batch_size: int) -> TitleTime:
    """Time the writing of one batch of titles, or of as many of it as take about `TITLES_S`.

    Args:
        write: writes so many titles.
        n: titles that are to be written in all.
        batch_size: titles written at once in the run; fewer take longer each.
    """
    started = time.perf_counter()
    write(1)  # warms up, and says how many the time allows
    alone = time.perf_counter() - started
    some = max(1, min(n, batch_size, int(TITLES_S / alone)))
    started = time.perf_counter()
    write(some)
    return TitleTime(some, (time.perf_counter() - started) / some)


def peak_memory_bytes(device: torch.device) -> int:
    """The most memory that was in use so far: allocated on the GPU, or resident in this process on the CPU."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB


def _median_seconds(act: Callable[[], object], device: torch.device) -> float:
    seconds = []
    for _ in range(1 + TIMED):
        started = time.perf_counter()
        act()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
