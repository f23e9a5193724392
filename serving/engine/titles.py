"""Catalog-constrained beam search above `AsyncLLM`: `index.titles.beam` and requests that run ahead of it.

Each request writes on greedily inside the catalog (`serving.engine.logits`) and reports the most probable allowed
tokens of every step. A beam mostly goes on with its most probable token, so most of what the search asks for has
arrived or is on its way. A new request starts where a beam branches, and finds its beginning in the prefix cache;
requests that the search no longer needs are stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import RequestOutputCollector

from index.titles.beam import FoundTitles, TitleBeams, TokenIds, count_observed
from serving.engine.title_mask import ARGUMENT
from serving.engine.title_tries import StoredTitles
from serving.errors import EngineUnavailableError


@dataclass
class _Run:
    """A request of ours. `prefix`: the tokens after the prompt, written or given."""

    prefix: TokenIds
    outputs: RequestOutputCollector


class TitleWriting:
    """One prompt's search. `run` it once; it leaves no request behind, however it ends."""

    def __init__(
        self,
        llm: AsyncLLM,
        prompt_ids: Sequence[int],
        titles: StoredTitles,
        *,
        lora: LoRARequest | None,
        end_id: int,
        width: int,
        k: int,
        most_tokens: int,
        request_id: str,
    ) -> None:
        self._llm = llm
        self._prompt_ids = list(prompt_ids)
        self._titles = titles
        self._lora = lora
        self._end_id = end_id
        self._reported_tokens = count_observed(width)
        self._most_tokens = most_tokens
        self._request_id = request_id
        self._search = TitleBeams(titles.allowed, width=width, k=k)
        self._runs: dict[str, _Run] = {}
        self._alive: set[str] = set()  # requests that the engine may know, those being added included
        self._news = asyncio.Event()
        self._started = 0
        self.tokens = 0  # written by all requests together

    async def run(self) -> FoundTitles:
        try:
            while self._search.frontier:
                await self._follow()
                await self._news.wait()
                self._news.clear()
                self._observe()
                self._search.advance()
            return self._search.result()
        finally:
            await self._stop(list(self._alive))

    async def _follow(self) -> None:
        """Let a request write on from every prefix of the frontier, and stop all others."""
        frontier = self._search.frontier
        await self._stop([name for name, run in self._runs.items() if not self._search.continues_frontier(run.prefix)])
        under_way = {run.prefix for run in self._runs.values()}
        for prefix, position in frontier.items():
            if prefix not in under_way:
                await self._start(prefix, self._titles.at(position))

    async def _start(self, prefix: TokenIds, may_write: Mapping[str, Any]) -> None:
        name = f"{self._request_id}-{self._started}"
        self._started += 1
        params = SamplingParams(
            temperature=0.0,
            max_tokens=self._most_tokens - len(prefix),
            stop_token_ids=[self._end_id],
            logprobs=self._reported_tokens,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={ARGUMENT: may_write},
            skip_clone=True,  # these are not shared
        )
        self._alive.add(name)
        outputs = await self._llm.add_request(
            name, tokens_input([*self._prompt_ids, *prefix]), params, lora_request=self._lora
        )
        outputs.ready = self._news  # one event for all requests
        if outputs.output is not None:
            self._news.set()
        self._runs[name] = _Run(prefix, outputs)

    def _observe(self) -> None:
        for name, run in list(self._runs.items()):
            output = run.outputs.get_nowait()
            if output is None:
                continue
            written = output.outputs[0]
            for token, (tokens, log_probs) in zip(written.token_ids, _reported(written.logprobs), strict=True):
                try:
                    self._search.observe(run.prefix, tokens, log_probs)
                except KeyError as error:
                    raise EngineUnavailableError(f"vLLM does not keep to the titles: {error}") from error
                run.prefix = (*run.prefix, token)
            self.tokens += len(written.token_ids)
            if output.finished:
                self._forget(name)

    async def _stop(self, names: Sequence[str]) -> None:
        if names:
            await self._llm.abort(list(names))  # one that the engine does not know does no harm
        for name in names:
            self._forget(name)

    def _forget(self, name: str) -> None:
        self._runs.pop(name, None)
        self._alive.discard(name)


def _reported(logprobs: Any) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """Per position, the allowed tokens among those reported; vLLM reports the one written twice."""
    for begin, end in zip(logprobs.start_indices, logprobs.end_indices, strict=True):
        values = np.array(logprobs.logprobs[begin:end], dtype=np.float32)
        tokens, first = np.unique(np.array(logprobs.token_ids[begin:end], dtype=np.int32), return_index=True)
        is_allowed = values[first] > -np.inf
        yield tokens[is_allowed], values[first][is_allowed]
