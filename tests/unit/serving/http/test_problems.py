"""The table of errors is whole."""

import contextlib
from collections.abc import AsyncIterator

import httpx
import pytest

from serving import errors
from serving.http.app import create_app
from serving.http.problems import BY_EXCEPTION, BY_STATUS, INTERNAL, describe_problems

# These end a start; no request can meet them
AT_START = {
    errors.ServingError,
    errors.AdapterProofError,
    errors.EngineStartError,
    errors.SettingsError,
}


def test_every_error_that_a_request_can_meet_has_its_status() -> None:
    ours = {kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.ServingError)}
    assert ours - AT_START <= set(BY_EXCEPTION)


def test_codes_are_unique_and_every_status_is_described() -> None:
    kinds = [*BY_EXCEPTION.values(), *BY_STATUS.values(), INTERNAL]
    assert len({kind.code for kind in kinds}) == len(kinds)
    described = describe_problems()
    assert all(f"`{kind.code}`" in described[kind.status]["description"] for kind in kinds)


def test_only_what_may_pass_is_retryable() -> None:
    assert {kind.status for kind in BY_EXCEPTION.values() if kind.retryable} == {503, 504}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    """The app without a service: enough for requests that are refused before one is asked."""
    transport = httpx.ASGITransport(create_app(contextlib.nullcontext()))  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        yield client


async def test_a_callers_words_come_back_cut(http: httpx.AsyncClient) -> None:
    """A 300 KB key would otherwise come back twice. 200 characters each, a detail of three paths and reasons."""
    key = "k" * 300_000
    for response in (await http.post("/recommend", json={"user_id": "a", key: 1}), await http.get(f"/{key[:60_000]}")):
        assert len(response.content) < 2000
        assert "kkk…" in response.json()["detail"]
    response = await http.post("/recommend", json={"user_id": "a", key: 1})
    [error] = response.json()["errors"]
    assert (len(error["path"]), error["path"][:9]) == (200, "body.kkkk")


@pytest.mark.parametrize("sent", ["", "text/plain", "application/x-www-form-urlencoded"])
async def test_a_body_that_is_not_called_json_gets_415(http: httpx.AsyncClient, sent: str) -> None:
    response = await http.post(
        "/recommend", content=b'{"user_id": "a"}', headers={"content-type": sent} if sent else {}
    )
    assert (response.status_code, response.json()["code"]) == (415, "unsupported_media_type")
    assert "application/json" in response.json()["detail"]


@pytest.mark.parametrize("sent", ["application/json", "Application/JSON; charset=utf-8", "application/geo+json"])
async def test_a_wrong_body_that_is_called_json_gets_422(http: httpx.AsyncClient, sent: str) -> None:
    response = await http.post("/recommend", content=b"{}", headers={"content-type": sent})
    assert response.json()["code"] == "invalid_request"
    assert response.json()["detail"] == "body: give user_id, history, or both"
