"""The processes of a run: one, or as many as `accelerate launch` started.

Every process runs the same program. What must happen once happens on the main one and is told to the others; what can
be divided is divided by `share` and put together again by `gather`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import InitProcessGroupKwargs, broadcast_object_list, gather_object

from training.errors import TrainingError

T = TypeVar("T")

_PATIENCE = timedelta(hours=12)  # the others wait while the main process makes a base or an index


class Processes:
    """This process among the others.

    Args:
        accelerator: None starts one; the base model's own dtype decides the precision, not accelerate.

    Raises:
        TrainingError: several processes were launched that do not know of each other.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator or Accelerator(
            mixed_precision="no", kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)]
        )
        launched = int(os.environ.get("WORLD_SIZE", "1"))
        if launched != self.count:
            raise TrainingError(
                f"{launched} processes were launched, but accelerate sees {self.count}: each would train alone",
                remedy="on a CPU set ACCELERATE_USE_CPU=true",
            )

    @property
    def count(self) -> int:
        return int(self.accelerator.num_processes)

    @property
    def rank(self) -> int:
        return int(self.accelerator.process_index)

    @property
    def is_main(self) -> bool:
        return bool(self.accelerator.is_main_process)

    @property
    def device(self) -> torch.device:
        return torch.device(self.accelerator.device)

    def share(self, items: Sequence[T]) -> list[T]:
        """Every count-th item from this process's rank on: neighbours, of like length, go to different processes."""
        return list(items[self.rank :: self.count])

    def gather(self, mine: Sequence[T]) -> list[T]:
        """Put the results of `share`d items together again, in the items' order, on every process."""
        if self.count == 1:
            return list(mine)
        shares: list[list[T]] = gather_object([list(mine)])
        return [shares[at % self.count][at // self.count] for at in range(sum(map(len, shares)))]

    def on_main(self, make: Callable[[], T]) -> T:
        """Call `make` on the main process alone; every process returns its result.

        Raises:
            TrainingError: on the others, when `make` failed; the main process raises what `make` raised.
        """
        if self.count == 1:
            return make()
        outcome: list[tuple[T | None, str | None]] = [(None, None)]
        if self.is_main:
            try:
                outcome = [(make(), None)]
            except Exception as error:
                broadcast_object_list([(None, str(error))])  # the others would wait for ever
                raise
        [(result, failure)] = broadcast_object_list(outcome)
        if failure is not None:
            raise TrainingError(f"the main process stopped: {failure}")
        return result  # type: ignore[no-any-return]

    def sum(self, values: Sequence[float]) -> list[float]:
        """Add up each value over the processes, in double precision."""
        if self.count == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=self.device)
        torch.distributed.all_reduce(total)
        return [float(value) for value in total.tolist()]
