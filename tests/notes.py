"""A progress that remembers what was said."""

from __future__ import annotations

from training.progress import Silence


class Notes(Silence):
    """Shows nothing; `said` holds the notes in order."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)
