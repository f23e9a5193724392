"""One failure opens, one success closes, one probe per pause, and the pause doubles up to its bound."""

from serving.events.circuit_breaker import CircuitBreaker


def test_life_of_a_breaker() -> None:
    now = [0.0]
    breaker = CircuitBreaker(clock=lambda: now[0])
    assert breaker.allows()
    breaker.failed()
    assert not breaker.closed
    assert not breaker.allows()
    now[0] = 0.5
    assert [breaker.allows(), breaker.allows()] == [True, False]  # one probe, not two
    for pause_s in (1, 2, 4, 8, 16, 30, 30):
        breaker.failed()
        now[0] += pause_s - 0.1
        assert not breaker.allows()
        now[0] += 0.1
        assert breaker.allows()
    breaker.succeeded()
    assert breaker.closed
    breaker.failed()  # the pause is half a second again
    now[0] += 0.5
    assert breaker.allows()
