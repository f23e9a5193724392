"""A deterministic `serving.engine.engine.Engine` for tests that are not about vLLM: it writes what it is told to."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

import numpy as np

from index.titles.beam import TitleBeams, count_observed
from serving.engine.engine import ConstrainedGeneration, FreeGeneration
from serving.engine.title_tries import StoredTitles
from serving.errors import EngineUnavailableError, UnknownAdapterError
from tests.tiny_shop import ADAPTER_NATS, BASE_NATS

Writer = Callable[[Sequence[int]], Sequence[int]]


class FakeEngine:
    """Writes `writers[adapter_id](prompt_ids)`; every token costs 1 nat under an adapter and 2 under the base.

    Attributes:
        gate: a generation waits until it is set; it is, to begin with.
        waiting: set once a generation has begun.
        dead: raise EngineUnavailableError from every call.
        prompts: what was asked, in order.
        cancelled: generations that were cancelled before their end.
    """

    def __init__(self, writers: Mapping[str, Writer]) -> None:
        self.writers = dict(writers)
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = asyncio.Event()
        self.dead = False
        self.closed = False
        self.prompts: list[tuple[str | None, tuple[int, ...]]] = []
        self.cancelled = 0

    async def generate(
        self, prompt_ids: Sequence[int], *, adapter_id: str | None, max_new_tokens: int, request_id: str
    ) -> FreeGeneration:
        await self.ping()
        self.prompts.append((adapter_id, tuple(prompt_ids)))
        if adapter_id not in self.writers:
            raise UnknownAdapterError(f"adapter {adapter_id} is not loaded")
        try:
            self.waiting.set()
            await self.gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        ids = tuple(self.writers[adapter_id](prompt_ids))[:max_new_tokens]
        return FreeGeneration(ids, log_prob=len(ids) * ADAPTER_NATS)

    async def write_titles(
        self,
        prompt_ids: Sequence[int],
        titles: StoredTitles,
        *,
        adapter_id: str | None,
        width: int,
        k: int,
        max_new_tokens: int,
        request_id: str,
    ) -> ConstrainedGeneration:
        """Its model writes the adapter's title with near certainty; every other token costs a nat and its place."""
        await self.generate(prompt_ids, adapter_id=adapter_id, max_new_tokens=max_new_tokens, request_id=request_id)
        search, tokens = TitleBeams(titles.allowed, width=width, k=k), 0
        liked = tuple(self.writers[adapter_id](prompt_ids))
        while search.frontier:
            for prefix, position in search.frontier.items():
                allowed = titles.allowed.next_tokens(position)
                log_probs = np.array([self._nats(liked, prefix, token) for token in allowed.tolist()])
                most = np.argsort(-log_probs, kind="stable")[: count_observed(width)]
                search.observe(prefix, allowed[most], log_probs[most])
                tokens += 1
            search.advance()
        return ConstrainedGeneration(search.result(), tokens)

    def _nats(self, liked: Sequence[int], path: tuple[int, ...], token: int) -> float:
        return -0.1 if (*path, token) == tuple(liked[: len(path) + 1]) else -1.0 - token / 1000

    async def log_prob(
        self, prompt_ids: Sequence[int], completion_ids: Sequence[int], *, adapter_id: str | None
    ) -> float:
        await self.ping()
        return len(completion_ids) * (BASE_NATS if adapter_id is None else ADAPTER_NATS)

    async def ping(self) -> None:
        if self.dead:
            raise EngineUnavailableError("the fake engine is dead")

    async def close(self) -> None:
        self.closed = True
