"""A deterministic `serving.engine.Engine` for tests that are not about vLLM: it writes what it is told to."""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from serving.engine import Generation
from serving.errors import EngineUnavailableError, UnknownAdapterError

Writer = Callable[[Sequence[int]], Sequence[int]]

BASE_NATS = -2.0  # per token, of any completion
ADAPTER_NATS = -1.0


class FakeEngine:
    """Writes `writers[adapter_id](prompt_ids)`; every token costs 1 nat under an adapter and 2 under the base.

    Attributes:
        delay_s: how long a generation takes.
        dead: raise EngineUnavailableError from every call.
        prompts: what was asked, in order.
        cancelled: generations that were cancelled before their end.
    """

    def __init__(self, writers: Mapping[str, Writer], *, delay_s: float = 0.0) -> None:
        self.writers = dict(writers)
        self.delay_s = delay_s
        self.dead = False
        self.closed = False
        self.prompts: list[tuple[str | None, tuple[int, ...]]] = []
        self.cancelled = 0

    async def generate(
        self, prompt_ids: Sequence[int], *, adapter_id: str | None, max_new_tokens: int, request_id: str
    ) -> Generation:
        await self.ping()
        self.prompts.append((adapter_id, tuple(prompt_ids)))
        if adapter_id not in self.writers:
            raise UnknownAdapterError(f"adapter {adapter_id} is not loaded")
        try:
            await asyncio.sleep(self.delay_s)
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        ids = tuple(self.writers[adapter_id](prompt_ids))[:max_new_tokens]
        return Generation(ids, log_prob=len(ids) * ADAPTER_NATS, finish_reason="stop")

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
