"""Notice an engine that hangs: its process lives, but it writes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence

from serving.engine.engine import Engine
from serving.errors import EngineHungError, EngineUnavailableError

_log = logging.getLogger(__name__)


class Heartbeat:
    """Asks an engine for one token whenever no request got an answer for a while.

    Args:
        adapter_id: writes the token. The bare base must not: vLLM on the CPU runs it alone, so requests would wait.
        prompt_ids: its prompt; one token is enough.
        hung_after_s: an engine that was asked and wrote nothing for so long hangs. It is asked after half of this
            time without an answer.
        clock: seconds, monotonic.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        adapter_id: str,
        prompt_ids: Sequence[int],
        hung_after_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._adapter_id = adapter_id
        self._prompt_ids = prompt_ids
        self._hung_after_s = hung_after_s
        self._clock = clock
        self._answered = clock()
        self._asked: float | None = None  # time of the first question since the last answer

    def answered(self) -> None:
        """Note that the engine answered a request."""
        self._answered, self._asked = self._clock(), None

    def silent_s(self) -> float:
        """Return for how long the engine has owed an answer; 0 when it owes none."""
        return 0.0 if self._asked is None else self._clock() - self._asked

    def check(self) -> None:
        """Return unless the engine is known to hang.

        Raises:
            EngineHungError: it hangs. The next answer to any request ends that.
        """
        if (silent_s := self.silent_s()) >= self._hung_after_s:
            raise EngineHungError(
                f"the engine was asked for a token and wrote none for {silent_s:.0f} s",
                remedy="restart the server if it stays so, or raise SOFTREC_HUNG_AFTER_MS",
            )

    @contextlib.asynccontextmanager
    async def beating(self) -> AsyncIterator[None]:
        """Ask while the context is open."""
        task = asyncio.create_task(self._beat())
        try:
            yield
        finally:
            task.cancel()
            await asyncio.wait([task])

    async def _beat(self) -> None:
        while True:
            while (pause_s := self._answered + self._hung_after_s / 2 - self._clock()) > 0:
                await asyncio.sleep(pause_s)
            if self._asked is None:
                self._asked = self._clock()
            try:
                async with asyncio.timeout(self._hung_after_s):
                    await self._engine.generate(
                        self._prompt_ids,
                        adapter_id=self._adapter_id,
                        max_new_tokens=1,
                        request_id=f"heartbeat-{uuid.uuid4().hex}",
                    )
                self.answered()
            except TimeoutError:
                continue  # ask again: the question may be lost
            except EngineUnavailableError:  # `Engine.ping` says so
                await asyncio.sleep(self._hung_after_s)
            except Exception:
                _log.exception("the engine's heartbeat failed")
                await asyncio.sleep(self._hung_after_s)
