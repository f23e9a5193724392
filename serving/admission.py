"""A bounded queue in front of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.errors import OverloadedError


class Admission:
    """Admits `max_running` requests at a time; `max_waiting` more wait, first come first served. Refuses the rest.

    Args:
        retry_after_s: after which a refused caller should try again.
    """

    def __init__(self, *, max_running: int, max_waiting: int, retry_after_s: int) -> None:
        self._slots = asyncio.Semaphore(max_running)
        self._max_waiting = max_waiting
        self._retry_after_s = retry_after_s
        self._waiting = 0

    @asynccontextmanager
    async def slot(self) -> AsyncIterator[None]:
        """Hold a slot while the context is open.

        Raises:
            OverloadedError: every slot is in use and the queue is full.
        """
        if self._slots.locked() and self._waiting >= self._max_waiting:
            raise OverloadedError(
                f"{self._waiting} requests already wait for the engine", retry_after_s=self._retry_after_s
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()
