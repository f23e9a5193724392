"""Titles drawn from a model's own distribution, several per prompt; they share the prompt's keys and values."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from training.generation.generation import Generation
from training.generation.tree_attention import TokenTrees


def sample(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    n: int,
    max_new_tokens: int,
    end_id: int,
    seed: int,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda n: None,
) -> list[list[Generation]]:
    """Draw n continuations of every prompt at temperature 1, with nothing cut off the distribution.

    Args:
        model: a causal language model from `training.model.language_model.load_base`, in eval mode.
        prompts: token ids, of any lengths from 1.
        max_new_tokens: longest continuation, the end token included.
        end_id: the token that ends a continuation.
        seed: the same seed, prompts and batch size give the same titles.
        batch_size: prompts read at once.
        advance: receives how many prompts were done.

    Returns:
        n generations per prompt, in the order of prompts; the same one may come twice.
    """
    results: list[list[Generation]] = []
    with torch.inference_mode():
        for begin in range(0, len(prompts), batch_size):
            batch = prompts[begin : begin + batch_size]
            trees = TokenTrees(model, batch, most_tokens=n * (max_new_tokens - 1))
            draw = torch.Generator(trees.device).manual_seed(seed + begin)
            results += _sample_batch(trees, len(batch), n, max_new_tokens, end_id, draw)
            advance(len(batch))
    return results


def _sample_batch(
    trees: TokenTrees, prompts: int, n: int, max_new_tokens: int, end_id: int, draw: torch.Generator
) -> list[list[Generation]]:
    logits = trees.read_prompts().expand(-1, n, -1)  # [P, n, V]
    itself = torch.arange(n, device=trees.device).expand(prompts, n)
    ids = torch.empty(prompts, n, 0, dtype=torch.int64, device=trees.device)
    log_probs = torch.zeros(prompts, n, device=trees.device)
    has_ended = torch.zeros(prompts, n, dtype=torch.bool, device=trees.device)
    for length in range(1, max_new_tokens + 1):
        every = logits.log_softmax(dim=2)
        tokens = torch.multinomial(every.exp().flatten(0, 1), 1, generator=draw).view(prompts, n)
        tokens = tokens.masked_fill(has_ended, end_id)
        log_probs += every.gather(2, tokens[:, :, None])[:, :, 0].masked_fill(has_ended, 0)
        ids = torch.cat([ids, tokens[:, :, None]], dim=2)
        has_ended |= tokens == end_id
        if has_ended.all() or length == max_new_tokens:
            break
        logits = trees.grow(tokens, trees.newest + itself if length > 1 else torch.zeros_like(itself))
    return [
        [
            Generation(tuple(_until(row, end_id)), log_prob, is_finished=end_id in row)
            for row, log_prob in zip(rows, values, strict=True)
        ]
        for rows, values in zip(ids.tolist(), log_probs.tolist(), strict=True)
    ]


def _until(ids: list[int], end_id: int) -> list[int]:
    return ids[: ids.index(end_id) + 1] if end_id in ids else ids
