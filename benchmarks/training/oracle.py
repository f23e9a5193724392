"""The plain way: one padded forward per completion, logits at every position, transformers' own cross-entropy.

Slow and obvious, and the measure of what `training` computes: SOFT's loss is tau * L_SD + (1 - tau) * L_SFT, each the
mean cross-entropy over the tokens of its completions, prompts masked (arXiv:2505.20771, equations 2 to 4).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.model.batches import Sample

IGNORED = -100  # the label that transformers' loss leaves out


def plain_batch(samples: Sequence[Sample], slot: int) -> dict[str, Tensor]:
    """Lay out prompt and one completion per row, right-padded: input_ids, attention_mask and labels, int64 [B, T]."""
    rows = [(sample.prompt_ids, sample.completions[slot]) for sample in samples]
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    input_ids = torch.zeros(len(rows), width, dtype=torch.int64)
    attention_mask = torch.zeros_like(input_ids)
    labels = torch.full_like(input_ids, IGNORED)
    for row, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        input_ids[row, :end] = torch.tensor(prompt + completion)
        attention_mask[row, :end] = 1
        labels[row, len(prompt) : end] = torch.tensor(completion)
    return {"input_ids": input_ids, "attention_mask": attention_mask, "labels": labels}


def plain_title_loss(model: Any, samples: Sequence[Sample], slot: int) -> Tensor:
    """Mean cross-entropy per token of one completion slot; a scalar."""
    batch = {name: value.to(model.device) for name, value in plain_batch(samples, slot).items()}
    loss: Tensor = model(**batch, use_cache=False).loss
    return loss


def plain_soft_loss(model: Any, samples: Sequence[Sample], *, tau: float) -> Tensor:
    """SOFT's loss by two forwards: completion 0 is the distilled title, 1 the true one."""
    return tau * plain_title_loss(model, samples, 0) + (1 - tau) * plain_title_loss(model, samples, 1)
