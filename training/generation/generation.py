"""What comes out of a search or a draw, whatever made it. Light: serving reads it too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Generation:
    """What the model wrote after a prompt.

    Attributes:
        ids: generated token ids, the end token included when it was reached.
        log_prob: their summed natural log-probability.
        is_finished: whether the end token was reached within the allowed steps.
    """

    ids: tuple[int, ...]
    log_prob: float
    is_finished: bool
