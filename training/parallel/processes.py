"""The processes of a run: one, or as many as `accelerate launch` or `torchrun` started.

Every process runs the same program. What must happen once happens on the main one, which sends it to the others.
`share` divides work among them, `gather` puts the results together again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import TypeVar

import torch
from accelerate import Accelerator
from accelerate.utils import (
    DeepSpeedPlugin,
    DistributedType,
    FullyShardedDataParallelPlugin,
    GradientAccumulationPlugin,
    InitProcessGroupKwargs,
    broadcast_object_list,
    gather_object,
)
from torch.distributed.fsdp import CPUOffloadPolicy

from training.errors import TrainingError

T = TypeVar("T")

_PATIENCE = timedelta(hours=12)  # the others wait while the main process makes a base or an index


class Processes:
    """This process among the others.

    Args:
        accelerator: None starts one. The base model's own dtype decides the precision, and `training.loop.update` how
            an update is cut into micro-batches, whatever the launch configuration says of them.

    Raises:
        TrainingError: the launch is one that training would not survive, or not as it was meant; see `check_launch`.
    """

    def __init__(self, accelerator: Accelerator | None = None) -> None:
        self.accelerator = accelerator or Accelerator(
            mixed_precision="no",
            gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
            kwargs_handlers=[InitProcessGroupKwargs(timeout=_PATIENCE)],
        )
        check_launch(self.accelerator)

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
    def layout(self) -> str:
        """How many processes share the work, and how; another layout rounds differently."""
        kind: DistributedType = self.accelerator.distributed_type
        return "1" if kind == DistributedType.NO else f"{self.count} {kind.value}"

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


def check_launch(accelerator: Accelerator) -> None:
    """Refuse what accelerate would do otherwise than it was asked, and what `training.loop.update` cannot do.

    Raises:
        TrainingError: processes that do not know of each other; FSDP where accelerate has none, its version 1, with
            offloading, or with a base that only the main process loads; ZeRO 0 and 3, and offloading; TPUs, Megatron.
    """
    kind, state = accelerator.distributed_type, accelerator.state
    launched, count = int(os.environ.get("WORLD_SIZE", "1")), int(accelerator.num_processes)
    if launched != count:
        raise TrainingError(
            f"{launched} processes were launched, but accelerate sees {count}: each would train alone",
            remedy="on a CPU set ACCELERATE_USE_CPU=true",
        )
    if os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true" and kind != DistributedType.FSDP:
        raise TrainingError(
            "FSDP was asked for, but accelerate has it on several GPUs only: every process would hold the whole model",
            remedy="launch with training/parallel/launch/ddp.yaml",
        )
    if kind == DistributedType.FSDP:
        _check_fsdp(state.fsdp_plugin)
    if kind == DistributedType.DEEPSPEED:
        _check_zero(state.deepspeed_plugin)
    if kind in (DistributedType.XLA, DistributedType.MEGATRON_LM):
        raise TrainingError(
            f"{kind.value} was asked for, but a run is divided by DDP, FSDP or DeepSpeed only",
            remedy="launch with a file of training/parallel/launch",
        )


def _check_fsdp(plugin: FullyShardedDataParallelPlugin) -> None:
    needed = {"fsdp_version": 2, "fsdp_offload_params": False, "fsdp_cpu_ram_efficient_loading": False}
    asked = {
        "fsdp_version": plugin.fsdp_version,
        "fsdp_offload_params": isinstance(plugin.cpu_offload, CPUOffloadPolicy),
        "fsdp_cpu_ram_efficient_loading": bool(plugin.cpu_ram_efficient_loading),
    }
    for name, value in needed.items():
        if asked[name] != value:
            raise TrainingError(
                f"{name}: {str(asked[name]).lower()} was asked for, but only {str(value).lower()} is supported",
                remedy="see training/parallel/launch/fsdp.yaml",
            )


def _check_zero(plugin: DeepSpeedPlugin) -> None:
    if plugin.zero_stage not in (1, 2) or plugin.offload_optimizer_device not in (None, "none"):
        raise TrainingError(
            f"ZeRO stage {plugin.zero_stage} with the optimizer on {plugin.offload_optimizer_device or 'none'} was "
            "asked for, but only stages 1 and 2 without offloading are supported",
            remedy="see training/parallel/launch/deepspeed.yaml; fsdp.yaml shards the base as well",
        )
