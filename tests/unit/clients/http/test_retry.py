from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.http.retry import RetryPolicy, parse_retry_after


@given(failures=st.integers(1, 9), first=st.floats(0.01, 2), longest=st.floats(0.01, 60))
def test_waits_double_from_the_first_stay_in_the_upper_half_and_under_the_longest(
    failures: int, first: float, longest: float
) -> None:
    delay_s = RetryPolicy(attempts=10, first_delay_s=first, max_delay_s=longest).delay_s(failures)
    bound = min(first * 2 ** (failures - 1), longest)
    assert delay_s is not None
    assert bound / 2 <= delay_s <= bound


def test_the_last_attempt_is_the_last() -> None:
    assert RetryPolicy(attempts=1).delay_s(1) is None
    assert RetryPolicy(attempts=3).delay_s(2) is not None
    assert RetryPolicy(attempts=3).delay_s(3) is None


def test_a_server_that_names_a_wait_gets_it_and_one_too_long_ends_the_call() -> None:
    policy = RetryPolicy(first_delay_s=0.1, max_delay_s=5.0)
    assert policy.delay_s(1, 3.0) == 3.0
    assert policy.delay_s(1, 5.5) is None


@pytest.mark.parametrize("settings", [{"attempts": 0}, {"first_delay_s": -1.0}, {"max_delay_s": -1.0}])
def test_senseless_policies_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        RetryPolicy(**settings)  # type: ignore[arg-type]


def test_retry_after_reads_seconds_and_dates() -> None:
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert parse_retry_after("7") == 7.0
    assert parse_retry_after("Thu, 01 Jan 2026 12:00:30 GMT", now=now) == 30.0
    assert parse_retry_after("Thu, 01 Jan 2026 11:00:00 GMT", now=now) == 0.0
    assert parse_retry_after("soon") is None
    assert parse_retry_after(None) is None
