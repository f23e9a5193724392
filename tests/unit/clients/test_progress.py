import io

import pytest
from rich.console import Console

from clients.progress import BarProgress, LineProgress, open_progress


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


def test_lines_say_start_progress_every_ten_seconds_and_end() -> None:
    """Ticks come at 6, 12 and 18 s: only the one at 12 s is ten seconds after the last line."""
    clock, file = Clock(), io.StringIO()
    progress = LineProgress(file, clock_s=clock)
    with progress.step("train", 4) as advance:
        for loss in (3.0, 2.0, 1.0):
            clock.now_s += 6
            advance(1, loss=loss)
        advance()
    progress.note("kept epoch 2")
    assert file.getvalue().splitlines() == [
        "train: started (4)",
        "train: 2 of 4 (50%), 12 s, loss 2",
        "train: done, 4 in 18.0 s, loss 1",
        "kept epoch 2",
    ]


def test_a_step_that_fails_says_so_and_passes_the_error_on() -> None:
    file = io.StringIO()

    def fail() -> None:
        with LineProgress(file).step("train", None) as advance:
            advance()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert file.getvalue().splitlines()[0] == "train: started"
    assert file.getvalue().splitlines()[1].startswith("train: stopped, 1 in ")


def test_a_stream_that_is_no_terminal_gets_lines() -> None:
    assert isinstance(open_progress(io.StringIO()), LineProgress)


def test_bars_nest_and_end_full_even_when_the_total_was_unknown_or_not_reached() -> None:
    file = io.StringIO()
    progress = BarProgress(Console(file=file, force_terminal=True, width=160))
    with progress.step("outer", 10) as outer:
        with progress.step("inner [not markup]", None) as inner:
            inner(3, loss=0.5)
        progress.note("a [note] between")
        outer(4)
    with progress.step("next", 1) as advance:
        advance()
    shown = file.getvalue()
    for text in ("inner [not markup]", "3/3", "loss 0.5", "a [note] between", "4/4", "next"):
        assert text in shown
