"""Beam search over a transformers model. A prompt is read once, its beams share its keys and values, and prompts that
are done leave the batch.

Greedy decoding is a beam of one. Scores are the model's own log-probabilities; nothing is normalised unless asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from training.generation.generation import Generation
from training.generation.tree_attention import TokenTrees, pick


def generate(
    model: Any,
    prompts: Sequence[Sequence[int]],
    *,
    beams: int,
    max_new_tokens: int,
    end_id: int,
    length_penalty: float = 0.0,
    batch_size: int = 64,
    advance: Callable[[int], None] = lambda n: None,
) -> list[Generation]:
    """Write the best continuation of every prompt.

    Beams are compared by log_prob / length ** length_penalty, length counting the end token. With 0 the best beam is
    the most probable whole title; a positive value favours long ones. A prompt is done when none of its running beams
    can still beat its worst kept one, as in transformers' beam search with `early_stopping="never"`. One deviation: a
    beam that `max_new_tokens` cut off counts only where no beam ended.

    Args:
        model: a causal language model, with or without LoRA; set to eval mode by the caller.
        prompts: token ids, of any lengths from 1.
        beams: hypotheses kept per prompt; 1 is greedy decoding.
        max_new_tokens: longest continuation, the end token included.
        end_id: the token that ends a continuation.
        batch_size: prompts decoded at once; sorted by length, so padding is little.
        advance: receives how many prompts were done.

    Returns:
        One generation per prompt, in the order of `prompts`.

    Raises:
        TrainingError: the model's attention cannot keep beams apart; see `training.generation.tree_attention`.
    """
    search = _Search(beams, max_new_tokens, end_id, length_penalty)
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    results: dict[int, Generation] = {}
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            batch = [prompts[index] for index in chosen]
            trees = TokenTrees(model, batch, most_tokens=beams * (max_new_tokens - 1))
            results.update(zip(chosen, search.run(trees, len(batch)), strict=True))
            advance(len(chosen))
    return [results[index] for index in range(len(prompts))]


@dataclass(frozen=True)
class _Beams:
    """The prompts of a batch that still run: P prompts, K beams each, n tokens written.

    Attributes:
        prompt: int64 [P], which prompt of the batch.
        log_probs: float32 [P, K], of the beams, best first; -inf for one that only pads.
        ids: int64 [P, K, n], what they wrote.
        parents: int64 [P, K], the beam of the step before that each goes on from.
        ended_scores: float32 [P, E], of the best beams that ended, best first; -inf where none did yet. E is the number
            of beams asked for; K is smaller at first.
        ended_ids: int64 [P, E, n], what those wrote, filled up with the end token.
    """

    prompt: Tensor
    log_probs: Tensor
    ids: Tensor
    parents: Tensor
    ended_scores: Tensor
    ended_ids: Tensor

    def select(self, rows: Tensor) -> _Beams:
        """Keep the prompts that are True in rows, bool [P]."""
        return _Beams(*(getattr(self, field.name)[rows] for field in fields(self)))


@dataclass(frozen=True)
class _Search:
    """A beam search's settings, see `generate`; `run` decodes one batch."""

    beams: int
    max_new_tokens: int
    end_id: int
    length_penalty: float

    def run(self, trees: TokenTrees, prompts: int) -> list[Generation]:
        results: dict[int, Generation] = {}
        beams = self._start(prompts, trees.device)
        logits = trees.read_prompts()
        for length in range(1, self.max_new_tokens + 1):
            beams = self._branch(beams, logits, length)
            runs_on = self._runs_on(beams, length)
            if not runs_on.all():
                results.update(self._read(beams.select(~runs_on)))
                if not runs_on.any():
                    break
                beams = beams.select(runs_on)
                trees.keep(runs_on)
            logits = trees.grow(beams.ids[:, :, -1], trees.newest + beams.parents)
        return [results[prompt] for prompt in range(prompts)]

    def _start(self, prompts: int, device: torch.device) -> _Beams:
        """One beam per prompt, which has written nothing."""
        return _Beams(
            prompt=torch.arange(prompts, device=device),
            log_probs=torch.zeros(prompts, 1, device=device),
            ids=torch.empty(prompts, 1, 0, dtype=torch.int64, device=device),
            parents=torch.zeros(prompts, 1, dtype=torch.int64, device=device),
            ended_scores=torch.full((prompts, self.beams), -math.inf, device=device),
            ended_ids=torch.empty(prompts, self.beams, 0, dtype=torch.int64, device=device),
        )

    def _branch(self, beams: _Beams, logits: Tensor, length: int) -> _Beams:
        """Choose the best continuations, each one token longer; those that end are kept aside, the best others run on.

        Twice as many as beams are looked at, since half of them may end; a greedy beam either ends or runs on.

        Args:
            logits: float32 [P, K, V].
            length: tokens written, the new one included.
        """
        per_beam = 1 if self.beams == 1 else 2 * self.beams
        # a prompt's best continuations are among the best of each of its beams
        best, tokens = logits.topk(min(per_beam, logits.shape[2]), dim=2)  # [P, K, W]
        log_probs = beams.log_probs[:, :, None] + best - logits.logsumexp(dim=2, keepdim=True)
        log_probs, at = log_probs.flatten(1).topk(min(per_beam, best[0].numel()), dim=1)  # [P, C]
        tokens, parents = tokens.flatten(1).gather(1, at), at // best.shape[2]
        ids = torch.cat([pick(beams.ids, parents), tokens[:, :, None]], dim=2)
        has_ended = tokens == self.end_id

        scores = (log_probs / length**self.length_penalty).masked_fill(~has_ended, -math.inf)
        ended_scores = torch.cat([beams.ended_scores, scores[:, : self.beams]], dim=1)
        ended_ids = torch.cat([pad(beams.ended_ids, (0, 1), value=self.end_id), ids[:, : self.beams]], dim=1)
        ended_scores, best_ended = ended_scores.topk(self.beams, dim=1)

        log_probs, best_running = log_probs.masked_fill(has_ended, -math.inf).topk(
            min(self.beams, log_probs.shape[1]), dim=1
        )
        return _Beams(
            prompt=beams.prompt,
            log_probs=log_probs,
            ids=pick(ids, best_running),
            parents=parents.gather(1, best_running),
            ended_scores=ended_scores,
            ended_ids=pick(ended_ids, best_ended),
        )

    def _runs_on(self, beams: _Beams, length: int) -> Tensor:
        """bool [P]: whether a running beam may still beat the worst ended one that is kept."""
        # log-probabilities only fall; with a positive penalty the longest title would profit most
        reached = self.max_new_tokens if self.length_penalty > 0 else length
        may_win = beams.log_probs[:, 0] / reached**self.length_penalty > beams.ended_scores[:, -1]
        runs_on: Tensor = may_win & (length < self.max_new_tokens)
        return runs_on

    def _read(self, beams: _Beams) -> dict[int, Generation]:
        """The best generation of each prompt: the best that ended, or where none did, the best that runs."""
        results = {}
        scores, log_probs = beams.ended_scores[:, 0].tolist(), beams.log_probs[:, 0].tolist()
        ended, running = beams.ended_ids[:, 0].tolist(), beams.ids[:, 0].tolist()
        for row, prompt in enumerate(beams.prompt.tolist()):
            if scores[row] > -math.inf:
                ids = tuple(ended[row][: ended[row].index(self.end_id) + 1])
                results[prompt] = Generation(ids, scores[row] * len(ids) ** self.length_penalty, is_finished=True)
            else:
                results[prompt] = Generation(tuple(running[row]), log_probs[row], is_finished=False)
        return results
