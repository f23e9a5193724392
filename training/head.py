"""The language-model head, at completion tokens only and a few of them at a time.

At a vocabulary of 128 256 the logits of 200 tokens take 100 MB, as much again for their softmax and again for each
one's gradient. A token's log-probability depends on its own hidden state alone, so the logits of a piece can be
differentiated and forgotten before the next piece is computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from training.losses import token_log_probs

LOGITS_AT_ONCE = 2**22  # 16 MiB in float32


def score_tokens(head: Any, states: Tensor, labels: Tensor) -> Tensor:
    """Natural log-probability of each label, differentiable with respect to the states.

    Args:
        head: a linear layer without weights that learn; one that has some gets all tokens at once.
        states: [C, H], what the transformer made of the tokens before the labels.
        labels: int64 [C].

    Returns:
        float32 [C].
    """
    rows = max(1, LOGITS_AT_ONCE // head.weight.shape[0])
    if len(labels) <= rows or any(weight.requires_grad for weight in head.parameters()):
        return token_log_probs(head(states), labels)
    pieces = zip(torch.split(states.detach(), rows), torch.split(labels, rows), strict=True)
    if not (torch.is_grad_enabled() and states.requires_grad):
        return torch.cat([token_log_probs(head(piece), wanted) for piece, wanted in pieces])
    log_probs, slopes = zip(*(_differentiate(head, piece, wanted) for piece, wanted in pieces), strict=True)
    # the first addend has the value, the second, which is 0, the gradient
    return torch.cat(log_probs) + ((states - states.detach()).float() * torch.cat(slopes).float()).sum(dim=1)


def _differentiate(head: Any, states: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probabilities [c] of the labels, and their derivatives [c, H] with respect to the states."""
    states.requires_grad_()
    log_probs = token_log_probs(head(states), labels)
    (slopes,) = torch.autograd.grad(log_probs.sum(), states)
    return log_probs.detach(), slopes
