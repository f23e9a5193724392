"""Attention of a whole trie of continuations after a prompt: every node sees the prompt and its own ancestors.

The tokens of all nodes lie in one row, level by level. A node of depth d has d ancestors, itself included, whichever
they are; so a level's attention is two products of plain matrices, one with the prompt's keys, which all nodes share,
and one with d gathered keys per node, under one softmax. A dense mask over all pairs of nodes would cost the square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrieTokens:
    """The nodes of a trie below its root, level by level, after prompts of one batch.

    Attributes:
        ancestors: one tensor per level: int64 [n, d], the places of a node's ancestors and, last, of the node itself,
            d being the level's depth, from 1.
        prompt: bool [P, T], which of the T cached positions are the prompt's own.
    """

    ancestors: Sequence[Tensor]
    prompt: Tensor

    def __len__(self) -> int:
        return sum(len(level) for level in self.ancestors)


def attend_in_trie(query: Tensor, key: Tensor, value: Tensor, trie: TrieTokens, *, scaling: float) -> Tensor:
    """Attend to the prompt and the ancestors.

    Args:
        query: [P, H, N, D], of the trie's N tokens.
        key: [P, G, T + N, D], of the prompts' T positions and the trie's tokens; G divides H.
        value: likewise.
        scaling: of the scores.

    Returns:
        [P, N, H, D].
    """
    prompts, heads, n, width = query.shape
    groups, read = key.shape[1], key.shape[2] - n
    query = query.view(prompts, groups, heads // groups, n, width) * scaling
    prompt_key, prompt_value = key[:, :, None, :read], value[:, :, None, :read]  # [P, G, 1, T, D]
    own_key, own_value = key[:, :, read:], value[:, :, read:]  # [P, G, N, D]
    hidden = ~trie.prompt[:, None, None, None, :]
    outputs, begin = [], 0
    for ancestors in trie.ancestors:
        level = query[:, :, :, begin : begin + len(ancestors)]  # [P, G, R, n, D]
        begin += len(ancestors)
        to_prompt = (level @ prompt_key.transpose(-1, -2)).masked_fill(hidden, -torch.inf)
        keys, values = own_key[:, :, ancestors], own_value[:, :, ancestors]  # [P, G, n, d, D]
        to_ancestors = torch.einsum("pgrnc,pgndc->pgrnd", level, keys)
        weights = torch.cat([to_prompt, to_ancestors], dim=-1).softmax(dim=-1, dtype=torch.float32).to(value.dtype)
        seen = weights[..., :read] @ prompt_value
        outputs.append(seen + torch.einsum("pgrnd,pgndc->pgrnc", weights[..., read:], values))
    output: Any = torch.cat(outputs, dim=3)
    attended: Tensor = output.flatten(1, 2).transpose(1, 2)
    return attended
