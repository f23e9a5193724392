"""Losses as functions of log-probabilities. None of them sees a model or a trainer."""

from __future__ import annotations

import torch
from torch import Tensor

from training.model.batches import UpdateSize


def token_log_probs(logits: Tensor, labels: Tensor) -> Tensor:
    """Natural log-probability of each label: logits [C, V], labels [C] -> float32 [C]."""
    return -torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")


def title_loss(
    log_probs: Tensor, slot: Tensor, number: int, size: UpdateSize, *, name: str
) -> tuple[Tensor, dict[str, float]]:
    """Mean negative log-likelihood per token of one completion slot: a batch's share of the update's.

    Args:
        log_probs: [C] per completion token.
        slot: [C] the slot of each token.
        number: which slot.
        size: of the whole update.
        name: what the figures are called.

    Returns:
        The scalar to differentiate, and its figures: nats per token as `name`, nats per title as `name`_per_title.
    """
    nll = -(log_probs * (slot == number)).sum()
    summed = float(nll.detach())
    return nll / size.tokens[number], {name: summed / size.tokens[number], f"{name}_per_title": summed / size.titles}


def curriculum_loss(distilled: Tensor, real: Tensor, *, tau: float) -> Tensor:
    """SOFT's loss (arXiv:2505.20771, equation 4): tau * L_SD + (1 - tau) * L_SFT.

    Args:
        distilled: L_SD, mean negative log-likelihood per token of the self-distilled titles.
        real: L_SFT, the same of the true titles.
        tau: the curriculum's weight, in [0, 1].
    """
    if not 0.0 <= tau <= 1.0:
        raise ValueError(f"tau must be in [0, 1], got {tau}")
    return tau * distilled + (1.0 - tau) * real
