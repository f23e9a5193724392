"""Threads for blocking calls: every resource has its own, so that a slow one keeps no other waiting."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


class Threads:
    """The threads of one resource. asyncio's default ones are shared: six slow calls take all of them on two cores.

    Calls beyond `most` wait in the event loop, first come first served; one that is cancelled there never runs.

    Args:
        name: prefix of the threads' names.
        most: calls that run at the same time.
    """

    def __init__(self, name: str, most: int) -> None:
        self._pool = ThreadPoolExecutor(most, thread_name_prefix=name)
        self._free = asyncio.Semaphore(most)

    async def run(self, function: Callable[_P, _T], *args: _P.args, **kwargs: _P.kwargs) -> _T:
        """Call a function in one of the threads. A call that has begun runs to its end, even if this is cancelled."""
        loop = asyncio.get_running_loop()
        await self._free.acquire()
        try:
            future = self._pool.submit(functools.partial(function, *args, **kwargs))
        except RuntimeError:  # closed
            self._free.release()
            raise
        future.add_done_callback(lambda _: loop.call_soon_threadsafe(self._free.release))
        return await asyncio.wrap_future(future)

    def close(self) -> None:
        """Wait for the calls that run."""
        self._pool.shutdown()
