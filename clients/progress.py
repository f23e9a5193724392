"""Show `training.progress` to a person: bars on a terminal, plain lines elsewhere. Both go to standard error."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

from training.progress import Advance, Progress

EVERY_S = 10.0  # between two lines of a step


def open_progress(file: TextIO | None = None) -> Progress:
    """Return bars when `file` (standard error) is a terminal, else plain lines."""
    stream = sys.stderr if file is None else file
    return BarProgress(Console(file=stream)) if stream.isatty() else LineProgress(stream)


class LineProgress:
    """One line when a step begins, one every `EVERY_S` seconds, one with its duration when it ends."""

    def __init__(self, file: TextIO, *, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._file = file
        self._clock_s = clock_s

    def note(self, text: str) -> None:
        self._file.write(text + "\n")
        self._file.flush()

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        begun_s = said_s = self._clock_s()
        done = 0
        latest: dict[str, float] = {}
        self.note(f"{title}: started" + ("" if total is None else f" ({total})"))

        def advance(n: int = 1, **figures: float) -> None:
            nonlocal done, said_s
            done += n
            latest.update(figures)
            now_s = self._clock_s()
            if now_s - said_s >= EVERY_S:
                said_s = now_s
                of_total = "" if not total else f" of {total} ({done / total:.0%})"
                self.note(f"{title}: {done}{of_total}, {now_s - begun_s:.0f} s{_figures(latest, ', ')}")

        outcome = "stopped"
        try:
            yield advance
            outcome = "done"
        finally:
            count = f", {done}" if done else ""
            self.note(f"{title}: {outcome}{count} in {self._clock_s() - begun_s:.1f} s{_figures(latest, ', ')}")


class BarProgress:
    """One live bar per step; a step inside a step gets its own bar below. Finished bars stay on the screen."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars: Bars | None = None  # alive while any step is open

    def note(self, text: str) -> None:
        self._console.print(text, highlight=False, markup=False)

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        if self._bars is not None:
            with _bar(self._bars, title, total) as advance:
                yield advance
            return
        with self._live_bars() as self._bars:
            try:
                with _bar(self._bars, title, total) as advance:
                    yield advance
            finally:
                self._bars = None

    def _live_bars(self) -> Bars:
        return Bars(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[figures]}", markup=False),
            console=self._console,
        )


@contextmanager
def _bar(bars: Bars, title: str, total: int | None) -> Iterator[Advance]:
    task = bars.add_task(title, total=total, figures="")
    latest: dict[str, float] = {}
    done = 0

    def advance(n: int = 1, **figures: float) -> None:
        nonlocal done
        done += n
        latest.update(figures)
        bars.update(task, completed=done, figures=_figures(latest, " "))

    yield advance
    bars.update(
        task, total=done or 1, completed=done or 1
    )  # a step that ended early or had no total is full all the same


def _figures(figures: dict[str, float], separator: str) -> str:
    """Figures as they follow a count: `, loss 1.234`."""
    return "".join(f"{separator}{name} {value:.4g}" for name, value in figures.items())
