"""One failure opens, one success closes, one probe per pause, and the pause doubles up to its bound."""

from serving.events.circuit_breaker import CircuitBreaker


def test_life_of_a_breaker() -> None:
    now = [0.0]
    breaker = CircuitBreaker(first_pause_s=1, longest_pause_s=3, clock=lambda: now[0])
    assert breaker.allows()
    breaker.failed()
    assert not breaker.closed
    assert not breaker.allows()
    now[0] = 1.0
    assert [breaker.allows(), breaker.allows()] == [True, False]  # one probe, not two
    breaker.failed()  # open for 2 now
    now[0] = 2.9
    assert not breaker.allows()
    now[0] = 3.0
    assert breaker.allows()
    breaker.failed()  # 4, bounded by 3
    now[0] = 6.0
    assert breaker.allows()
    breaker.succeeded()
    assert breaker.closed
    breaker.failed()  # the pause begins anew at 1
    now[0] = 7.0
    assert breaker.allows()
