"""The weights that learn, their optimizer, and one update of them, in one process or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, NoReturn, Protocol

import torch
from accelerate.utils import DistributedType
from torch import Tensor

from training.errors import DivergedError
from training.model.batches import Batch, Sample, UpdateSize, collate, name_offending_rows
from training.parallel.moments import Moments, WholeMoments
from training.parallel.processes import Processes
from training.parallel.shards import Shards, choose_layers, laid_out_as, whole_tensor
from training.parallel.zero import ZeroMoments, configure_zero
from training.settings import TrainSettings


class Loss(Protocol):
    """A batch's share of an update's loss."""

    def __call__(self, scorer: Any, batch: Batch, size: UpdateSize) -> tuple[Tensor, dict[str, float]]:
        """Compute the loss of one micro-batch.

        Args:
            scorer: see `training.model.language_model.CompletionScorer`.
            size: of the whole update; dividing by it makes the update the same however it is cut into micro-batches
                and divided among processes.

        Returns:
            The scalar to differentiate, and this batch's addends to the update's figures (name to value).
        """
        ...


class Updater:
    """A scorer ready for updates.

    AdamW without weight decay. Gradients of an update are summed over its micro-batches and over the processes, so an
    update is the same (to rounding) as 1 micro-batch of 8 or 8 of 1, in one process or two.

    Args:
        scorer: a module whose parameters that require gradients learn; prepared here for the processes (DDP, FSDP,
            DeepSpeed). It must not have run yet.
    """

    def __init__(self, processes: Processes, scorer: Any, settings: TrainSettings) -> None:
        self.processes, self.settings = processes, settings
        accelerator = processes.accelerator
        uses_zero = accelerator.distributed_type == DistributedType.DEEPSPEED
        if uses_zero:
            configure_zero(accelerator, settings)
        choose_layers(accelerator, scorer)
        learning = [weight for weight in scorer.parameters() if weight.requires_grad]
        optimizer = torch.optim.AdamW(learning, lr=settings.learning_rate, weight_decay=0.0)
        self.scorer, self.optimizer = accelerator.prepare(scorer, optimizer)
        self._shards = Shards(accelerator, self.scorer)
        # the bare scorer's names: DDP's begin with "module."
        self._learning = {name: weight for name, weight in scorer.named_parameters() if weight.requires_grad}
        self._moments: Moments = (
            ZeroMoments(processes, self.optimizer.optimizer)
            if uses_zero
            else WholeMoments(self.optimizer, self._learning)
        )

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
        learning_rate = settings.learning_rate * min(1.0, step / (settings.warmup_steps + 1))
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        self.optimizer.zero_grad(set_to_none=True)
        parts = self._micro_batches(samples)
        figures: dict[str, float] = {}
        for number, part in enumerate(parts):
            # an empty share still runs, on a sample that counts nothing: the other processes wait for its gradient
            laid_out = part or samples[:1]
            batch = collate(laid_out, pad_id=0, slots=slots, device=self.processes.device)
            with self._summing(is_last=number == len(parts) - 1):
                value, addends = loss(self.scorer, batch, size)
                if not torch.isfinite(value):
                    self._refuse(batch, laid_out, step)
                # the processes' gradients are averaged, and are to be summed
                accelerator.backward(value * (self.processes.count if part else 0))
            for name, addend in addends.items():
                figures[name] = figures.get(name, 0.0) + (addend if part else 0.0)
        # DeepSpeed has clipped and stepped in the last backward; then these only say the norm
        grad_norm = torch.as_tensor(accelerator.clip_grad_norm_(self.scorer.parameters(), settings.max_grad_norm))
        self.optimizer.step()
        figures = dict(zip(figures, self.processes.sum(list(figures.values())), strict=True))
        return figures | {
            "learning_rate": learning_rate,
            "grad_norm": float(whole_tensor(grad_norm)),
            "tokens": float(sum(tokens.values())),
        }

    def _refuse(self, batch: Batch, samples: Sequence[Sample], step: int) -> NoReturn:
        """Raise for a loss that is not a number, before the weights follow it."""
        with torch.no_grad():
            rows = name_offending_rows(batch, self.scorer(batch), samples)
        because = f", because of {rows}" if rows else ""
        raise DivergedError(
            f"update {step}: the loss is not finite{because}; nothing is published",
            remedy=f"lower the learning rate (--set learning_rate={self.settings.learning_rate / 3:.1g})",
        )

    def _micro_batches(self, samples: Sequence[Sample]) -> list[list[Sample]]:
        """This process's share of an update, cut; as many parts on every process, the last ones perhaps empty."""
        mine, size = self.processes.share(samples), self.settings.micro_batch_size
        largest_share = -(-len(samples) // self.processes.count)
        return [mine[begin : begin + size] for begin in range(0, largest_share, size)]

    @contextmanager
    def _summing(self, *, is_last: bool) -> Iterator[None]:
        """Around a micro-batch: the processes exchange gradients after an update's last one only."""
        accelerator = self.processes.accelerator
        accelerator.sync_gradients = is_last  # DeepSpeed's backward looks here
        try:
            with nullcontext() if is_last else accelerator.no_sync(self.scorer):
                yield
        finally:
            accelerator.sync_gradients = True

    @contextmanager
    def whole(self) -> Iterator[None]:
        """Hold all weights whole on every process while the model writes titles, each process its own."""
        self._shards.gather()
        try:
            yield
        finally:
            self._shards.release()

    def unshard(self) -> None:
        """Hold all weights whole on every process from now on; no update may follow."""
        self._shards.gather()

    def weights(self) -> dict[str, Tensor]:
        """A copy of the learning weights on the CPU, whole."""
        return {name: whole_tensor(weight.detach()).cpu().clone() for name, weight in self._learning.items()}

    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Put back what `weights` gave."""
        with torch.no_grad():
            for name, weight in self._learning.items():
                weight.copy_(laid_out_as(weight, weights[name]))
        self._moments.follow_weights()

    def state(self) -> dict[str, Any]:
        """Weights and optimizer moments of all processes, on the CPU."""
        return {"weights": self.weights(), "moments": self._moments.state()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over what `state` gave to processes of the same `layout`."""
        self.load(state["weights"])
        self._moments.restore(state["moments"])
