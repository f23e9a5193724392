"""A shared/exclusive lock for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedExclusiveLock:
    """Any number of holders of `shared`, or one of `alone`. A waiting `alone` blocks new sharers."""

    def __init__(self) -> None:
        self._sharing = 0
        self._not_shared = asyncio.Event()
        self._not_shared.set()
        self._not_exclusive = asyncio.Event()
        self._not_exclusive.set()
        self._exclusive = asyncio.Lock()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Hold the lock together with other sharers."""
        while not self._not_exclusive.is_set():
            await self._not_exclusive.wait()
        self._sharing += 1
        self._not_shared.clear()
        try:
            yield
        finally:
            self._sharing -= 1
            if not self._sharing:
                self._not_shared.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Hold the lock exclusively."""
        async with self._exclusive:
            self._not_exclusive.clear()
            try:
                await self._not_shared.wait()
                yield
            finally:
                self._not_exclusive.set()
