"""How far our loss and its gradient are from the oracle's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.training.contenders import TAU
from benchmarks.training.oracle import plain_soft_loss
from benchmarks.training.shapes import Shape
from training.model.batches import UpdateSize, collate
from training.model.language_model import CompletionScorer
from training.recipes.soft.recipe import soft_loss


@dataclass(frozen=True)
class Difference:
    """Between two computations of SOFT's loss: |a - b| over |b|, of the loss and, in the L2 norm, of its gradient."""

    loss: float
    gradient: float


def difference(shape: Shape, *, samples: int) -> Difference:
    """Compute SOFT's loss and gradient on the CPU both ways.

    LoRA's B, 0 at the start of training, is drawn: A would have no gradient.
    """
    model = shape.make_model().to(shape.dtype).train()  # LoRA's weights too
    torch.manual_seed(1)
    learning = [weight for weight in model.parameters() if weight.requires_grad]
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.02)
    batch = shape.draw_updates(1, seed=2)[0][:samples]
    size = UpdateSize(samples, {slot: sum(len(sample.completions[slot]) for sample in batch) for slot in (0, 1)})
    ours, _ = soft_loss(CompletionScorer(model), collate(batch, pad_id=0), size, tau=TAU)
    plain = plain_soft_loss(model, batch, tau=TAU)
    our_gradient, plain_gradient = (_flat(torch.autograd.grad(loss, learning)) for loss in (ours, plain))
    return Difference(
        loss=abs(float(ours.detach() / plain.detach()) - 1),
        gradient=float((our_gradient - plain_gradient).norm() / plain_gradient.norm()),
    )


def _flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients]).double()
