"""Beam search over a transformers model: prompts are prefilled once, finished prompts leave the batch.

Greedy decoding is a beam of one. Scores are the model's own log-probabilities; nothing is normalised unless asked.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from training.language_model import decoder


@dataclass(frozen=True)
class Generation:
    """What the model wrote after a prompt.

    Attributes:
        ids: generated token ids, the end token included when it was reached.
        log_prob: their summed natural log-probability.
        is_finished: whether the end token was reached within the allowed steps.
    """

    ids: tuple[int, ...]
    log_prob: float
    is_finished: bool


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
    can still beat its worst kept one, as in transformers' beam search with `early_stopping="never"`.

    Args:
        model: a causal language model, with or without LoRA; set to eval mode by the caller.
        prompts: token ids, of any lengths.
        beams: hypotheses kept per prompt; 1 is greedy decoding.
        max_new_tokens: longest continuation, the end token included.
        end_id: the token that ends a continuation.
        batch_size: prompts decoded at once; sorted by length, so padding is little.
        advance: told how many prompts were done.

    Returns:
        One generation per prompt, in the order of `prompts`.
    """
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    results: dict[int, Generation] = {}
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            search = _Search(model, [prompts[index] for index in chosen], beams, max_new_tokens, end_id, length_penalty)
            results.update(zip(chosen, search.run(), strict=True))
            advance(len(chosen))
    return [results[index] for index in range(len(prompts))]


class _Search:
    """One batch. P prompts still running, K beams each; row p * K + b of the cache is beam b of running prompt p."""

    def __init__(
        self, model: Any, prompts: list[Sequence[int]], beams: int, max_new_tokens: int, end_id: int, penalty: float
    ) -> None:
        self.transformer, self.head = decoder(model)
        self.beams, self.max_new_tokens, self.end_id, self.penalty = beams, max_new_tokens, end_id, penalty
        self.device = self.head.weight.device
        self.prompts = prompts
        # per prompt: (penalised score, log_prob, ids), the best `beams` of them
        self.finished: list[list[tuple[float, float, tuple[int, ...]]]] = [[] for _ in prompts]
        self.running = list(range(len(prompts)))

    def run(self) -> list[Generation]:
        log_probs = self._prefill()  # [P, V]
        scores = torch.zeros(len(self.prompts), 1, device=self.device)  # one beam until the first step branched
        written = torch.empty(len(self.prompts), 1, 0, dtype=torch.int64)  # [P, K, step], on the CPU
        for step in range(1, self.max_new_tokens + 1):
            scores, parents, tokens = self._candidates(scores, log_probs)
            written = torch.cat([_pick(written, parents.cpu()), tokens.cpu()[:, :, None]], dim=2)
            scores, parents, tokens, written = self._split_off_finished(scores, parents, tokens, written, step)
            if not self.running or step == self.max_new_tokens:
                break
            log_probs = self._step(tokens, parents)
        self._keep_unfinished(scores, written)
        return [self._best(prompt) for prompt in range(len(self.prompts))]

    def _prefill(self) -> Tensor:
        width = max(map(len, self.prompts))
        ids = torch.zeros(len(self.prompts), width, dtype=torch.int64)
        self.attention = torch.zeros(len(self.prompts), width, dtype=torch.int64)
        for row, prompt in enumerate(self.prompts):  # padded on the left, so that all end at the same place
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            self.attention[row, width - len(prompt) :] = 1
        self.attention = self.attention.to(self.device)
        self.positions = self.attention.sum(1)  # the next token's position
        output = self.transformer(
            input_ids=ids.to(self.device),
            attention_mask=self.attention if width != min(map(len, self.prompts)) else None,
            position_ids=(self.attention.cumsum(1) - 1).clamp_min(0),
            use_cache=True,
        )
        self.cache = output.past_key_values
        return torch.log_softmax(self.head(output.last_hidden_state[:, -1]).float(), dim=-1)

    def _step(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Feed the chosen tokens [P, K]; parents [P, K] are cache rows."""
        rows = parents.reshape(-1)
        self.cache.batch_select_indices(rows)
        self.attention = torch.cat([self.attention[rows], torch.ones_like(rows)[:, None]], dim=1)
        positions = self.positions[rows]
        self.positions = positions + 1
        output = self.transformer(
            input_ids=tokens.reshape(-1, 1),
            attention_mask=self.attention,
            position_ids=positions[:, None],
            past_key_values=self.cache,
            use_cache=True,
        )
        return torch.log_softmax(self.head(output.last_hidden_state[:, -1]).float(), dim=-1)

    def _candidates(self, scores: Tensor, log_probs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best 2K continuations per prompt: (scores, beam, token), each [P, 2K]. 2K, since K of them may end."""
        prompts, width = scores.shape
        total = scores[:, :, None] + log_probs.view(prompts, width, -1)  # [P, width, V]
        vocabulary = total.shape[2]
        wanted = 2 * self.beams if self.beams > 1 else 1
        best, flat = total.view(prompts, -1).topk(min(wanted, width * vocabulary), dim=1)
        return best, flat // vocabulary, flat % vocabulary

    def _split_off_finished(
        self, scores: Tensor, beam: Tensor, tokens: Tensor, written: Tensor, step: int
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        width = int(self.attention.shape[0]) // len(self.running)  # beams per prompt in the cache: 1, then K
        ended = (tokens == self.end_id).cpu()
        values = scores.cpu()
        for at, prompt in enumerate(self.running):
            for rank in torch.nonzero(ended[at, : self.beams])[:, 0].tolist():
                self._finish(prompt, float(values[at, rank]), written[at, rank], step)
        # the running beams: the best K that did not end
        order = torch.argsort(ended.to(torch.int8), dim=1, stable=True)[:, : self.beams]
        alive = torch.tensor(
            [at for at, prompt in enumerate(self.running) if not self._is_done(prompt, values[at], ended[at], step)],
            dtype=torch.int64,
        )
        self.running = [self.running[at] for at in alive.tolist()]
        order = order[alive]
        on_device, rows = order.to(self.device), alive.to(self.device)
        parents = beam[rows].gather(1, on_device) + (rows * width)[:, None]
        return (
            scores[rows].gather(1, on_device),
            parents,
            tokens[rows].gather(1, on_device),
            _pick(written[alive], order),
        )

    def _finish(self, prompt: int, log_prob: float, ids: Tensor, length: int) -> None:
        kept = self.finished[prompt]
        kept.append((log_prob / length**self.penalty, log_prob, tuple(ids.tolist())))
        kept.sort(key=lambda entry: -entry[0])
        del kept[self.beams :]

    def _is_done(self, prompt: int, scores: Tensor, ended: Tensor, step: int) -> bool:
        running = scores[~ended]
        if len(running) == 0:
            return True  # greedy decoding: its one beam ended
        if len(self.finished[prompt]) < self.beams:
            return False
        # log-probabilities only fall; with a positive penalty the longest title would profit most
        length = self.max_new_tokens if self.penalty > 0 else step
        return bool(float(running[0]) / length**self.penalty <= self.finished[prompt][-1][0])

    def _keep_unfinished(self, scores: Tensor, written: Tensor) -> None:
        for at, prompt in enumerate(self.running):
            if not self.finished[prompt]:
                self._finish(prompt, float(scores[at, 0]), written[at, 0], written.shape[2])

    def _best(self, prompt: int) -> Generation:
        _, log_prob, ids = self.finished[prompt][0]
        return Generation(ids, log_prob, ids[-1] == self.end_id)


def _pick(values: Tensor, which: Tensor) -> Tensor:
    """values [P, K, ...], which [P, N] -> [P, N, ...]."""
    return values[torch.arange(len(values))[:, None], which]
