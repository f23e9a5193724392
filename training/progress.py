"""How a long step tells a person where it is. The rooms below say; `clients.progress` shows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Advance(Protocol):
    """Report `n` units done, and figures worth showing (loss, hr10)."""

    def __call__(self, n: int = 1, **figures: float) -> None: ...


class Progress(Protocol):
    """Where progress goes."""

    def step(self, title: str, total: int | None) -> AbstractContextManager[Advance]:
        """Show one long step of `total` units (None: unknown) while the context is open."""
        ...

    def note(self, text: str) -> None:
        """Say one line."""
        ...


class Silence:
    """Progress that shows nothing."""

    @contextmanager
    def step(self, title: str, total: int | None) -> Iterator[Advance]:
        yield lambda n=1, **figures: None

    def note(self, text: str) -> None:
        return None
