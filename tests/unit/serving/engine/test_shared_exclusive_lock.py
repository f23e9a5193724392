"""Sharers together, a loner alone, whatever the order of arrival and whoever is cancelled."""

import asyncio

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.engine.shared_exclusive_lock import SharedExclusiveLock


@settings(max_examples=50, deadline=None)
@given(plan=st.lists(st.tuples(st.booleans(), st.integers(0, 3), st.booleans()), max_size=12))
async def test_alone_means_alone(plan: list[tuple[bool, int, bool]]) -> None:
    turns = SharedExclusiveLock()
    inside = {"shared": 0, "alone": 0}

    async def visit(alone: bool, steps: int) -> None:
        async with turns.alone() if alone else turns.shared():
            inside["alone" if alone else "shared"] += 1
            try:
                for _ in range(steps + 1):
                    assert inside["alone"] <= 1
                    assert not (inside["alone"] and inside["shared"])
                    await asyncio.sleep(0)
            finally:
                inside["alone" if alone else "shared"] -= 1

    tasks = []
    for alone, steps, cancel in plan:
        tasks.append(asyncio.create_task(visit(alone, steps)))
        await asyncio.sleep(0)
        if cancel:
            tasks[len(tasks) // 2].cancel()
    async with asyncio.timeout(5):
        results = await asyncio.gather(*tasks, return_exceptions=True)
    assert all(result is None or isinstance(result, asyncio.CancelledError) for result in results)
    async with asyncio.timeout(5), turns.alone():
        assert inside == {"shared": 0, "alone": 0}
