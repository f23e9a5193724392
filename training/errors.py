"""What can go wrong in training.

SoftrecError
└── TrainingError
    ├── SettingError           a setting that does not exist or a value it cannot take
    ├── EmptyDataError         nothing to learn from or to measure on
    └── DivergedError          a loss that is not a number; nothing is published
"""

from __future__ import annotations

from index.errors import SoftrecError


class TrainingError(SoftrecError):
    """A training step cannot go on."""


class SettingError(TrainingError):
    """A setting is unknown, or its value is not allowed."""


class EmptyDataError(TrainingError):
    """There is no window to train on, or none to measure on."""


class DivergedError(TrainingError):
    """The loss is NaN or infinite, or an adapter learned nothing."""
