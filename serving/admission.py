"""A bounded queue in front of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from serving.errors import OverloadedError


class Admission:
    """Lets `max_running` in at the same time and `max_waiting` wait, first come first served; refuses the rest.

    Args:
        retry_after_s: what the refused are told to wait.
    """

    def __init__(self, *, max_running: int, max_waiting: int, retry_after_s: int) -> None:
        self._places = asyncio.Semaphore(max_running)
        self._max_waiting = max_waiting
        self._retry_after_s = retry_after_s
        self._waiting = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[None]:
        """Hold a place while the context is open.

        Raises:
            OverloadedError: all places are taken and so is the queue.
        """
        if self._places.locked() and self._waiting >= self._max_waiting:
            raise OverloadedError(
                f"{self._waiting} requests wait for the engine already", retry_after_s=self._retry_after_s
            )
        self._waiting += 1
        try:
            await self._places.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._places.release()
