"""Catalog-constrained beam search above `AsyncLLM`: `index.titles.beam` and requests that run ahead of it.

Each request writes on greedily inside the catalog (`serving.engine.logits`) and reports the most probable allowed
tokens of every step. A beam mostly goes on with its most probable token, so most of what the search asks for is there
or on its way; a new request starts where a beam branches, finds its beginning in the prefix cache, and one that the
search needs no more is stopped.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vllm import SamplingParams
from vllm.inputs.engine import tokens_input
from vllm.lora.request import LoRARequest
from vllm.sampling_params import RequestOutputKind
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.output_processor import RequestOutputCollector

from index.titles.beam import FoundTitles, NextTokens, Path, TitleBeams, next_tokens_needed
from serving.engine.title_mask import ARGUMENT
from serving.engine.title_tries import StoredTitles
from serving.errors import EngineUnavailableError


@dataclass
class _Run:
    """A request of ours. `path` is what is written, counted from the prompt."""

    path: Path
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
        self._told_tokens = next_tokens_needed(width)
        self._most_tokens = most_tokens
        self._request_id = request_id
        self._search = TitleBeams(titles.open, width=width, k=k)
        self._runs: dict[str, _Run] = {}
        self._alive: set[str] = set()  # every request that the engine may know, also one that is just being handed over
        self._news = asyncio.Event()
        self._started = 0
        self.tokens = 0  # written by all requests together

    async def run(self) -> FoundTitles:
        try:
            while self._search.wanted:
                await self._follow()
                await self._news.wait()
                self._news.clear()
                self._hear()
                self._search.advance()
            return self._search.result()
        finally:
            await self._stop(list(self._alive))

    async def _follow(self) -> None:
        """Let a request write on from everything that is wanted, and none from anything else."""
        wanted = self._search.wanted
        await self._stop([name for name, run in self._runs.items() if not self._search.needs(run.path)])
        under_way = {run.path for run in self._runs.values()}
        for path, place in wanted.items():
            if path not in under_way:
                await self._start(path, self._titles.at(place))

    async def _start(self, path: Path, may_write: Mapping[str, Any]) -> None:
        name = f"{self._request_id}-{self._started}"
        self._started += 1
        params = SamplingParams(
            temperature=0.0,
            max_tokens=self._most_tokens - len(path),
            stop_token_ids=[self._end_id],
            logprobs=self._told_tokens,
            flat_logprobs=True,
            detokenize=False,
            output_kind=RequestOutputKind.DELTA,
            extra_args={ARGUMENT: may_write},
            skip_clone=True,  # nobody else has these
        )
        self._alive.add(name)
        outputs = await self._llm.add_request(
            name, tokens_input([*self._prompt_ids, *path]), params, lora_request=self._lora
        )
        outputs.ready = self._news  # one bell for all
        if outputs.output is not None:
            self._news.set()
        self._runs[name] = _Run(path, outputs)

    def _hear(self) -> None:
        for name, run in list(self._runs.items()):
            output = run.outputs.get_nowait()
            if output is None:
                continue
            written = output.outputs[0]
            for token, told in zip(written.token_ids, _told(written.logprobs), strict=True):
                try:
                    self._search.hear(run.path, told)
                except KeyError as error:
                    raise EngineUnavailableError(f"vLLM does not keep to the titles: {error}") from error
                run.path = (*run.path, token)
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


def _told(logprobs: Any) -> list[NextTokens]:
    """Per position, the allowed tokens among those reported, best first; vLLM puts the one written first, once more."""
    positions = []
    for begin, end in zip(logprobs.start_indices, logprobs.end_indices, strict=True):
        entries = dict(zip(logprobs.token_ids[begin:end], logprobs.logprobs[begin:end], strict=True))
        positions.append([(token, log_prob) for token, log_prob in entries.items() if log_prob > -float("inf")])
    return positions
