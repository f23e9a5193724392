"""SOFT's own settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from training.settings import TrainSettings

ALPHAS = (0.1, 1.0, 10.0, 100.0)  # curriculum_alpha, as the paper tries it

Schedule = Literal["adaptive", "linear", "step", "distilled", "real"]


@dataclass(frozen=True)
class SoftSettings(TrainSettings):
    """Settings of SOFT beside those of `TrainSettings`.

    Attributes:
        schedule: the curriculum (see `training.recipes.soft.curriculum`): "adaptive" is the paper's, the others its
            controls.
        curriculum_alpha: how fast the distilled data's weight falls.
        distance_samples: M: training windows on which d_t is measured.
        distance_every: updates between two measurements of d_t within an epoch; None: once, before each epoch.
        distance_encoder: what embeds titles for d_t: "base" (its last token), "minilm", or a sentence-transformers
            name or folder.
    """

    schedule: Schedule = "adaptive"
    curriculum_alpha: float = 1.0
    distance_samples: int = 256
    distance_every: int | None = None
    distance_encoder: str = "base"

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check_positive("curriculum_alpha", "distance_samples", "distance_every")
