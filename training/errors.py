"""What can go wrong in training.

SoftrecError
└── TrainingError
    ├── SettingError           a setting that does not exist or a value it cannot take
    ├── EmptyDataError         nothing to learn from or to measure on
    ├── DivergedError          a loss that is not a number; nothing is published
    └── StoppedError           SIGTERM or SIGINT; what was done is saved
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from signal import Signals

from index.errors import SoftrecError


class TrainingError(SoftrecError):
    """A training step cannot go on."""


class SettingError(TrainingError):
    """A setting is unknown, or its value is not allowed."""


class EmptyDataError(TrainingError):
    """There is no window to train on, or none to measure on."""


class DivergedError(TrainingError):
    """The loss is NaN or infinite, or an adapter learned nothing."""


class StoppedError(TrainingError):
    """A signal ended the run; the same command goes on from its checkpoint.

    Attributes:
        signal: which.
        exit_code: what a process that this signal ended exits with: 128 + its number.
    """

    def __init__(self, signal: Signals) -> None:
        super().__init__(f"stopped by {signal.name}; the run is saved", remedy="the same command goes on from there")
        self.signal = signal

    @property
    def exit_code(self) -> int:
        return 128 + self.signal


SHOWN = 10  # rows named in one message

Describe = Callable[[int], str]


def name_rows(rows: Sequence[int], describe: Describe) -> str:
    """Name up to ten rows, and say how many more there are.

    Example:
        >>> name_rows(range(12), lambda row: f"u{row}")
        'u0, u1, u2, u3, u4, u5, u6, u7, u8, u9 and 2 more'
    """
    more = len(rows) - SHOWN
    return ", ".join(map(describe, rows[:SHOWN])) + (f" and {more} more" if more > 0 else "")
