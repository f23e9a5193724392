"""Attention of a whole trie of continuations after a prompt: every node sees the prompt and its own ancestors.

The tokens of all nodes lie in one row, level by level. All nodes look at the prompt, which is one product of plain
matrices. A node of depth d has d ancestors besides, itself included, whose keys are gathered, level by level. The two
parts are put together as if they had been under one softmax, each being known up to its own maximum. A dense mask over
all pairs of nodes would cost the square.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class TrieTokens:
    """The nodes of a trie below its root, level by level, after prompts of one batch.

    Attributes:
        ancestors: one tensor per level: int64 [n, d], positions of a node's ancestors and, last, of the node itself,
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
    query = query.reshape(prompts, groups, -1, width) * scaling  # [P, G, R * N, D]
    to_prompt = (query @ key[:, :, :read].transpose(-1, -2)).float()
    if not trie.prompt.all():
        to_prompt.masked_fill_(~trie.prompt[:, None, None], -torch.inf)
    largest = to_prompt.amax(dim=-1)
    to_prompt = to_prompt.sub_(largest[..., None]).exp_()
    shape = (prompts, groups, heads // groups, n)
    total, largest = to_prompt.sum(dim=-1).view(shape), largest.view(shape)
    seen = (to_prompt.to(value.dtype) @ value[:, :, :read]).view(*shape, width).float()
    query, own_key, own_value = query.view(*shape, width), key[:, :, read:], value[:, :, read:]

    begin = 0
    for ancestors in trie.ancestors:
        at = slice(begin, begin := begin + len(ancestors))
        keys, values = own_key[:, :, None, ancestors], own_value[:, :, None, ancestors]  # [P, G, 1, n, d, D]
        to_ancestors = (query[:, :, :, at, None] * keys).sum(dim=-1).float()  # [P, G, R, n, d]
        before, largest_now = largest[..., at], torch.maximum(largest[..., at], to_ancestors.amax(dim=-1))
        weights, kept = (to_ancestors - largest_now[..., None]).exp(), (before - largest_now).exp()
        total[..., at] = total[..., at] * kept + weights.sum(dim=-1)
        seen[..., at, :] = seen[..., at, :] * kept[..., None] + (weights[..., None] * values).sum(dim=-2)
    attended: Tensor = (seen / total[..., None]).to(value.dtype).flatten(1, 2).transpose(1, 2)
    return attended
