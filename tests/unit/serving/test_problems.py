"""The table of errors is whole."""

from serving import errors
from serving.problems import BY_EXCEPTION, BY_STATUS, INTERNAL, describe_problems

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
