"""Share something with others, or have it alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class SharedExclusiveLock:
    """Any number inside `shared`, or one inside `alone`. Whoever wants to be alone keeps new sharers waiting."""

    def __init__(self) -> None:
        self._sharing = 0
        self._nobody_shares = asyncio.Event()
        self._nobody_shares.set()
        self._nobody_is_alone = asyncio.Event()
        self._nobody_is_alone.set()
        self._one_alone = asyncio.Lock()

    @asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        """Be inside together with other sharers."""
        while not self._nobody_is_alone.is_set():
            await self._nobody_is_alone.wait()
        self._sharing += 1
        self._nobody_shares.clear()
        try:
            yield
        finally:
            self._sharing -= 1
            if not self._sharing:
                self._nobody_shares.set()

    @asynccontextmanager
    async def alone(self) -> AsyncIterator[None]:
        """Be inside with nobody else."""
        async with self._one_alone:
            self._nobody_is_alone.clear()
            try:
                await self._nobody_shares.wait()
                yield
            finally:
                self._nobody_is_alone.set()
