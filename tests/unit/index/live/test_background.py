"""Jobs in the background: one at a time, none lost without a word."""

import logging
import threading

import pytest

from index.errors import SoftrecError
from index.live.background import Background


def raise_(error: Exception) -> None:
    raise error


def test_one_job_at_a_time_and_a_look_after_each() -> None:
    running, go_on, done = threading.Event(), threading.Event(), threading.Event()
    jobs = Background(lambda text: None, done.set)

    def job() -> None:
        running.set()
        go_on.wait(10)

    assert jobs.start(job)
    assert running.wait(10)
    assert not jobs.start(job)
    assert not done.is_set()
    go_on.set()
    assert done.wait(10)
    assert jobs.start(job)
    jobs.close()
    assert not jobs.start(job)


def test_what_is_refused_can_be_started_by_the_look_after() -> None:
    made: list[str] = []
    over = threading.Event()

    def look() -> None:
        if not made:
            assert jobs.start(lambda: made.append("second"))
        else:
            over.set()

    jobs = Background(lambda text: None, look)
    jobs.start(lambda: None)
    assert over.wait(10)
    jobs.close()
    assert made == ["second"]


def test_many_who_start_at_once_start_one() -> None:
    together, go_on = threading.Barrier(8), threading.Event()
    jobs = Background(lambda text: None, lambda: None)
    started: list[bool] = []

    def start() -> None:
        together.wait(10)
        started.append(jobs.start(lambda: go_on.wait(10)))

    threads = [threading.Thread(target=start) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    go_on.set()
    jobs.close()
    assert sorted(started) == [False] * 7 + [True]


@pytest.mark.parametrize("error", [SoftrecError("no room"), OSError(28, "no room")])
def test_a_job_that_fails_says_why_and_the_next_one_runs(error: Exception) -> None:
    notes: list[str] = []
    after: list[threading.Event] = [threading.Event(), threading.Event()]
    ends = iter(after)
    jobs = Background(notes.append, lambda: next(ends).set())
    jobs.start(lambda: raise_(error))
    assert after[0].wait(10)
    assert "no room" in notes[0]
    assert jobs.start(lambda: None)
    jobs.close()
    assert after[1].is_set()


def test_a_bug_is_logged_with_its_traceback(caplog: pytest.LogCaptureFixture) -> None:
    jobs = Background(lambda text: None, lambda: None)
    with caplog.at_level(logging.ERROR):
        jobs.start(lambda: raise_(ZeroDivisionError()))
        jobs.close()
    assert "ZeroDivisionError" in caplog.text
