"""An engine that hangs is named until it writes again; one that just answered is not asked."""

import asyncio
import contextlib
from collections.abc import Callable

import httpx
import pytest

from serving.engine.heartbeat import Heartbeat
from serving.errors import EngineHungError
from serving.http.app import create_app
from serving.schema import RecommendRequest
from tests.fake_engine import FakeEngine
from tests.unit.serving.conftest import Rig


async def until(claim: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not claim():
            await asyncio.sleep(0.001)


def hangs(heartbeat: Heartbeat) -> bool:
    try:
        heartbeat.check()
    except EngineHungError:
        return True
    return False


async def test_readyz_names_a_hung_engine_until_it_writes_again(rig: Rig) -> None:
    """Nobody asks for a recommendation: the heartbeat alone finds out."""
    app = create_app(contextlib.nullcontext(rig.service))
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://test") as http,
        rig.heartbeat.beating(),
    ):
        assert (await http.get("/readyz")).status_code == 200
        rig.engine.gate.clear()
        await until(lambda: hangs(rig.heartbeat))
        answer = await http.get("/readyz")
        assert (answer.status_code, answer.json()["code"]) == (503, "engine_hung")
        assert answer.headers["retry-after"] == "1"
        asked = len(rig.engine.prompts)
        await until(lambda: len(rig.engine.prompts) > asked)  # it is asked again, because a question may be lost
        assert hangs(rig.heartbeat)
        rig.engine.gate.set()
        await until(lambda: not hangs(rig.heartbeat))
        assert (await http.get("/readyz")).status_code == 200


async def test_a_recommendation_is_a_sign_of_life(rig: Rig) -> None:
    """The engine answers a request while the heartbeat's own question is stuck."""
    heart = rig.heartbeat
    heart._asked = heart._clock() - 60
    assert hangs(heart)
    await rig.service.recommender.recommend(RecommendRequest(history=["i8"]), request_id="r")
    assert not hangs(heart)


async def test_an_engine_that_just_answered_is_not_asked() -> None:
    """The clock stands still at the last answer; each time the heartbeat wakes up it looks at the clock."""
    now, looks = 0.0, 0

    def clock() -> float:
        nonlocal looks
        looks += 1
        return now

    engine = FakeEngine({"a@1": lambda prompt: [1]})
    heart = Heartbeat(engine, adapter_id="a@1", prompt_ids=[7], hung_after_s=0.01, clock=clock)
    async with heart.beating():
        await until(lambda: looks > 10)
        assert engine.prompts == []
        now = 1.0
        await until(lambda: engine.prompts != [])
    assert engine.prompts == [("a@1", (7,))]


@pytest.mark.parametrize("failure", ["dead", "bug"])
async def test_a_failing_heartbeat_goes_on(failure: str) -> None:
    engine = FakeEngine({"a@1": lambda prompt: 1 // 0 if failure == "bug" else [1]})  # type: ignore[dict-item, return-value]
    engine.dead = failure == "dead"
    heart = Heartbeat(engine, adapter_id="a@1", prompt_ids=[7], hung_after_s=0.01)
    async with heart.beating():
        await until(lambda: hangs(heart))
        engine.dead, engine.writers = False, {"a@1": lambda prompt: [1]}
        await until(lambda: not hangs(heart))
