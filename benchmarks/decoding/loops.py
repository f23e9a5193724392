"""Beam searches as loops above `AsyncLLM`, a request of one token per beam and step: to be beaten by the served one."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from vllm import SamplingParams, TokensPrompt
from vllm.sampling_params import RequestOutputKind

from index.titles.filtered_trie import AllowedTitles

Path = tuple[int, ...]
Beam = tuple[float, Path]  # summed log-probability, tokens after the prompt

_numbers = itertools.count()


async def plain_beam(
    llm: Any, prompt: Sequence[int], *, lora: Any, width: int, max_new_tokens: int, end_id: int
) -> list[Beam]:
    """Search as vLLM's server does (`vllm.entrypoints.generate.beam_search.online`), without a length penalty.

    Kinder than that one: it stops once no running beam can still enter the finished ones, where vLLM's goes on for
    `max_new_tokens` steps.
    """

    def params(path: Path) -> dict[str, Any]:
        return {"logprobs": 2 * width}

    return await _search(llm, prompt, params, lora=lora, width=width, max_new_tokens=max_new_tokens, end_id=end_id)


async def naive_constrained_beam(
    llm: Any, prompt: Sequence[int], titles: AllowedTitles, *, lora: Any, width: int, max_new_tokens: int, end_id: int
) -> list[Beam]:
    """The same loop, each request told by `allowed_token_ids` what may come next."""

    def params(path: Path) -> dict[str, Any]:
        place = titles.start
        for token in path:
            place = titles.follow(place, token)
        allowed = titles.next_tokens(place).tolist()
        return {"logprobs": min(2 * width, len(allowed)), "allowed_token_ids": allowed}

    return await _search(llm, prompt, params, lora=lora, width=width, max_new_tokens=max_new_tokens, end_id=end_id)


async def _search(
    llm: Any,
    prompt: Sequence[int],
    params_after: Callable[[Path], dict[str, Any]],
    *,
    lora: Any,
    width: int,
    max_new_tokens: int,
    end_id: int,
) -> list[Beam]:
    async def next_tokens(path: Path) -> list[tuple[int, float]]:
        params = SamplingParams(
            temperature=0.0,
            max_tokens=1,
            detokenize=False,
            output_kind=RequestOutputKind.FINAL_ONLY,
            **params_after(path),
        )
        ids = TokensPrompt(prompt_token_ids=[*prompt, *path])
        async for output in llm.generate(ids, params, f"loop-{next(_numbers)}", lora_request=lora):
            [entries] = output.outputs[0].logprobs
        return [(token, entry.logprob) for token, entry in entries.items() if entry.logprob > -float("inf")]

    running: list[Beam] = [(0.0, ())]
    finished: list[Beam] = []
    for _ in range(max_new_tokens):
        told = await asyncio.gather(*(next_tokens(path) for _, path in running))
        candidates = heapq.nlargest(
            2 * width,
            (
                (log_prob + more, (*path, token))
                for (log_prob, path), tokens in zip(running, told, strict=True)
                for token, more in tokens
            ),
        )
        finished = heapq.nlargest(width, finished + [beam for beam in candidates[:width] if beam[1][-1] == end_id])
        running = [beam for beam in candidates if beam[1][-1] != end_id][:width]
        if not running or (len(finished) == width and running[0][0] <= finished[-1][0]):
            break
    return finished
