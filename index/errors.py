"""What can go wrong, and what to do about it.

    SoftrecError                      everything a person can act on; carries a remedy
    ├── InputError                    a file of the user's cannot be used; lists its problems with their lines
    ├── UnknownItemError              a change names an item that the catalog does not have
    ├── ArtifactError                 something on disk that softrec made
    │   ├── MissingArtifactError      not made yet; names the command that makes it
    │   ├── CorruptArtifactError      half-written or changed since; never loaded
    │   └── MismatchError             made for another base, prompt, catalog or encoder; names both values
    ├── training.errors.TrainingError
    ├── serving.errors.ServingError
    └── clients.errors.ClientError

The command line prints such an error as one line and exits with 2; anything else is a bug and keeps its traceback.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


class SoftrecError(Exception):
    """Say what was seen and what to do.

    Args:
        message: what was seen, what is allowed, and where.
        remedy: what the reader can do about it, as an imperative; None when there is nothing to do.
    """

    def __init__(self, message: str, *, remedy: str | None = None) -> None:
        super().__init__(message if remedy is None else f"{message}; {remedy}")
        self.remedy = remedy


@dataclass(frozen=True)
class Problem:
    """One thing wrong in an input file; `line` counts from 1 and is None where it concerns the whole file."""

    line: int | None
    reason: str

    def __str__(self) -> str:
        return self.reason if self.line is None else f"line {self.line}: {self.reason}"


class InputError(SoftrecError):
    """A file of the user's cannot be used. Shows at most ten problems, and how many more there are."""

    shown = 10

    def __init__(self, path: Path, problems: Sequence[Problem], *, remedy: str | None = None) -> None:
        self.path = path
        self.problems = tuple(problems)
        listed = "; ".join(str(problem) for problem in self.problems[: self.shown])
        more = len(self.problems) - self.shown
        super().__init__(f"{path}: {listed}" + (f"; and {more} more" if more > 0 else ""), remedy=remedy)


class UnknownItemError(SoftrecError):
    """A change of an item that the catalog does not have, or no longer has."""

    def __init__(self, item_id: str) -> None:
        super().__init__(f"the catalog has no item {item_id!r}", remedy="put the whole item to add it")
        self.item_id = item_id


class ArtifactError(SoftrecError):
    """Something that softrec wrote cannot be used."""


class MissingArtifactError(ArtifactError):
    """An artifact was not made yet. `command` is the one that makes it."""

    def __init__(self, what: str, path: Path, *, command: str) -> None:
        super().__init__(f"no {what} at {path}", remedy=f"make it with `{command}`")
        self.path = path
        self.command = command


class CorruptArtifactError(ArtifactError):
    """An artifact is incomplete, or a byte of it changed since it was written."""

    def __init__(self, path: Path, detail: str, *, remedy: str) -> None:
        super().__init__(f"{path}: {detail}", remedy=remedy)
        self.path = path


class MismatchError(ArtifactError):
    """Two artifacts were not made for each other. Both values are in the message."""

    def __init__(self, what: str, *, expected: str, found: str, remedy: str) -> None:
        super().__init__(f"{what}: expected {expected}, found {found}", remedy=remedy)
        self.expected = expected
        self.found = found
