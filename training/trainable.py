"""The weights that learn, their optimizer, and one update of them, in one process or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from training.batches import Batch, Sample, UpdateSize, collate
from training.processes import Processes
from training.settings import TrainSettings


class Loss(Protocol):
    """A batch's share of an update's loss."""

    def __call__(self, scorer: Any, batch: Batch, size: UpdateSize) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of one micro-batch.

        Args:
            scorer: see `training.language_model.CompletionScorer`.
            size: of the whole update; dividing by it makes the update the same however it is cut into micro-batches
                and divided among processes.

        Returns:
            The scalar to differentiate, and this batch's addends to the update's figures (name to value).
        """
        ...


class Trainable:
    """A scorer ready for updates.

    AdamW without weight decay. Gradients of an update are summed over its micro-batches and over the processes, so an
    update is the same (to rounding) as 1 micro-batch of 8 or 8 of 1, in one process or two.

    Args:
        scorer: a module whose parameters that require gradients learn; prepared here for the processes (DDP, FSDP).
    """

    def __init__(self, processes: Processes, scorer: Any, settings: TrainSettings) -> None:
        self.processes, self.settings = processes, settings
        learning = [weight for weight in scorer.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=settings.learning_rate, weight_decay=0.0)
        self.scorer, self.optimizer = processes.accelerator.prepare(scorer, optimizer)

    def update(self, loss: Loss, slots: Sequence[int], samples: Sequence[Sample], *, step: int) -> dict[str, float]:
        """Do one update and return its figures, which are the same on every process.

        Args:
            slots: the completions that the loss needs.
            samples: of the whole update, the same on every process.
            step: number of the update, from 1; decides the learning rate and what dropout drops.

        Returns:
            The loss's figures, and learning_rate, grad_norm (before clipping) and tokens (that were predicted).
        """
        settings, accelerator = self.settings, self.processes.accelerator
        tokens = {slot: sum(len(sample.completions[slot]) for sample in samples) for slot in slots}
        size = UpdateSize(len(samples), tokens)
        torch.manual_seed((settings.seed * 1_000_003 + step) * 4_099 + self.processes.rank)
        self.scorer.train()
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._micro_batches(samples)
        figures: dict[str, float] = {}
        for number, part in enumerate(parts):
            # an empty share still runs, on a sample that counts nothing: the other processes wait for its gradient
            batch = collate(part or samples[:1], pad_id=0, slots=slots).to(self.processes.device)
            is_last = number == len(parts) - 1
            with nullcontext() if is_last else accelerator.no_sync(self.scorer):
                value, addends = loss(self.scorer, batch, size)
                # the processes' gradients are averaged, and are to be summed
                accelerator.backward(value * (self.processes.count if part else 0))
            for name, addend in addends.items():
                figures[name] = figures.get(name, 0.0) + (addend if part else 0.0)
        grad_norm = _whole(accelerator.clip_grad_norm_(self.scorer.parameters(), settings.max_grad_norm))
        figures = dict(zip(figures, self.processes.sum(list(figures.values())), strict=True))
        learning_rate = settings.learning_rate * min(1.0, step / (settings.warmup_steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.step()
        return figures | {
            "learning_rate": learning_rate,
            "grad_norm": float(grad_norm),
            "tokens": float(sum(tokens.values())),
        }

    def _micro_batches(self, samples: Sequence[Sample]) -> list[list[Sample]]:
        """This process's share of an update, cut; as many parts on every process, the last ones perhaps empty."""
        mine, size = self.processes.share(samples), self.settings.micro_batch_size
        largest_share = -(-len(samples) // self.processes.count)
        return [mine[begin : begin + size] for begin in range(0, largest_share, size)]

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Under FSDP, hold all weights whole on every process while the model writes titles, each process its own."""
        self.unshard()
        try:
            yield
        finally:
            for module in self._shards():
                module.reshard()
                module.set_reshard_after_forward(True, recurse=False)

    def unshard(self) -> None:
        """Under FSDP, hold all weights whole on every process from now on."""
        for module in self._shards():
            module.set_reshard_after_forward(False, recurse=False)
            module.unshard()

    def _shards(self) -> list[FSDPModule]:
        return [module for module in self.scorer.modules() if isinstance(module, FSDPModule)]

    def weights(self) -> dict[str, Tensor]:
        """A copy of the learning weights on the CPU, whole."""
        return {name: _whole(weight.detach()).cpu().clone() for name, weight in self._learning().items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what `weights` gave."""
        with torch.no_grad():
            for name, weight in self._learning().items():
                weight.copy_(_like(weight, weights[name]))

    def state(self) -> dict[str, Any]:
        """Weights and optimizer moments, whole, on the CPU."""
        names = list(self._learning())
        moments = self.optimizer.state_dict()["state"]
        return {
            "weights": self.weights(),
            "moments": {
                names[number]: {key: _whole(value).cpu().clone() for key, value in entry.items()}
                for number, entry in moments.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave."""
        self.load(state["weights"])
        learning = self._learning()
        stored = self.optimizer.state_dict()
        stored["state"] = {
            number: {
                # the step counter is no tensor of the weight's shape
                key: _like(weight, value) if value.shape == weight.shape else value
                for key, value in state["moments"][name].items()
            }
            for number, (name, weight) in enumerate(learning.items())
            if name in state["moments"]
        }
        self.optimizer.load_state_dict(stored)

    def _learning(self) -> dict[str, Tensor]:
        return {name: weight for name, weight in self.scorer.named_parameters() if weight.requires_grad}


def _whole(tensor: Tensor) -> Tensor:
    """The tensor of which this process may hold but a shard (FSDP)."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _like(pattern: Tensor, tensor: Tensor) -> Tensor:
    """The tensor, laid out as the pattern is."""
    tensor = tensor.to(pattern.device)
    if isinstance(pattern, DTensor):
        return distribute_tensor(tensor, pattern.device_mesh, pattern.placements)
    return tensor
