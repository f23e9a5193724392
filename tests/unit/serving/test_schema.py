"""The wire: bounded, closed for requests, and light to import."""

import subprocess
import sys

import pytest
from pydantic import ValidationError

from serving.schema import Event, EventsRequest, Problem, RecommendRequest


def test_importing_the_schema_and_the_problems_needs_pydantic_alone() -> None:
    code = (
        "import sys, serving.schema; "
        "heavy = {'torch', 'transformers', 'vllm', 'numpy', 'fastapi', 'sqlalchemy', 'redis'} & set(sys.modules); "
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_request_names_a_user_or_a_history() -> None:
    assert RecommendRequest(user_id="a").k == 10
    assert RecommendRequest(history=[]).exclude_seen is True
    with pytest.raises(ValidationError, match="give user_id, history, or both"):
        RecommendRequest()


@pytest.mark.parametrize("user_id", ["", "a\x00", "a\n", "\x85", "a\u2028", "x" * 257])
def test_ids_are_one_printable_line(user_id: str) -> None:
    with pytest.raises(ValidationError):
        RecommendRequest(user_id=user_id)


@pytest.mark.parametrize("user_id", ["0", "a b", "Zoë", "用户", "x" * 256, "a/b?c#d"])
def test_other_ids_pass_unchanged(user_id: str) -> None:
    assert RecommendRequest(user_id=user_id).user_id == user_id


def test_batches_and_times_are_bounded() -> None:
    event = {"event_id": "e", "user_id": "u", "item_id": "i", "type": "click"}
    assert Event.model_validate(event).timestamp is None
    for bad in ({"timestamp": -1}, {"timestamp": 1.5}, {"timestamp": 10**12}, {"type": "view"}, {"extra": 1}):
        with pytest.raises(ValidationError):
            Event.model_validate(event | bad)
    for count in (0, 1001):
        with pytest.raises(ValidationError):
            EventsRequest.model_validate({"events": [event] * count})


def test_a_client_reads_a_problem_with_fields_it_does_not_know() -> None:
    body = {"title": "t", "status": 418, "detail": "d", "code": "c", "retryable": False, "request_id": "r", "new": 1}
    assert Problem.model_validate(body).errors == []
