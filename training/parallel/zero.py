"""DeepSpeed's ZeRO, stages 1 and 2: the optimizer's moments are divided among the processes.

accelerate hands the loop's calls on to DeepSpeed, whose backward of an update's last micro-batch also clips and steps.
Here is what it leaves open. Stage 3 would divide the base as well; FSDP does that (`training.parallel.shards`).
"""

from __future__ import annotations

from typing import Any

import torch
from accelerate import Accelerator

from training.parallel.processes import Processes
from training.settings import TrainSettings


def configure_zero(accelerator: Accelerator, settings: TrainSettings) -> None:
    """Tell DeepSpeed, before `accelerator.prepare`, what it would else take from a data loader or from its own file."""
    config = accelerator.state.deepspeed_plugin.deepspeed_config
    config["gradient_clipping"] = settings.max_grad_norm
    config["train_micro_batch_size_per_gpu"] = settings.micro_batch_size
    config["gradient_accumulation_steps"] = 1  # it would divide the loss by them; the loop says which backward is last
    config["train_batch_size"] = settings.micro_batch_size * accelerator.num_processes  # has to be their product
    config["bf16"] = config["fp16"] = {"enabled": False}  # they would cast what learns


class ZeroMoments:
    """The moments of a prepared optimizer, as a checkpoint holds them: every process's part.

    Args:
        optimizer: DeepSpeed's, around the AdamW that updates this process's part of the weights.
    """

    def __init__(self, processes: Processes, optimizer: Any) -> None:
        self._processes, self._optimizer = processes, optimizer

    def state(self) -> list[dict[int, Any]]:
        """The parts of all processes, in their order, on the CPU."""
        mine = {
            number: {key: value.cpu().clone() for key, value in entry.items()}
            for number, entry in self._optimizer.optimizer.state_dict()["state"].items()
        }
        return self._processes.gather([mine])

    def restore(self, parts: list[dict[int, Any]]) -> None:
        """Take over what `state` gave on as many processes."""
        adam = self._optimizer.optimizer
        adam.load_state_dict(adam.state_dict() | {"state": parts[self._processes.rank]})

    def follow_weights(self) -> None:
        """Take over weights that were written into the model: ZeRO updates a copy of its own."""
        with torch.no_grad():
            self._optimizer.refresh_fp32_params()
