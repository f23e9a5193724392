"""The ranking that an adapter's manifest names. Light: `index.ranking.ranking` does the work."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

RankingMode = Literal["l2", "likelihood", "fusion"]
RANKINGS: tuple[RankingMode, ...] = get_args(RankingMode)


@dataclass(frozen=True)
class FusionWeights:
    """score = log_prob * l - distance * d + popularity * log(1 + c) - unwritten * u, all weights per unit.

    l is a title's log-probability, or that of the least probable title written where it was not written itself, and
    then u = 1, else 0; d its L2 distance to the best title; c its number of interactions.
    """

    log_prob: float
    distance: float
    popularity: float
    unwritten: float

    @property
    def array(self) -> NDArray[np.float64]:
        """In the order of `features`."""
        return np.array([self.log_prob, self.distance, self.popularity, self.unwritten])


@dataclass(frozen=True)
class RankingSpec:
    """How an adapter's titles are ranked; part of its manifest.

    Attributes:
        mode: see the module.
        weights: of the fusion that was fitted for the same decoding. Another mode keeps them for a request of the
            fusion.
        popularity_gamma: BIGRec's gamma, for `l2`; 0 leaves popularity out.
    """

    mode: RankingMode = "l2"
    weights: FusionWeights | None = None
    popularity_gamma: float = 0.0

    def __post_init__(self) -> None:
        if self.mode not in RANKINGS:
            raise ValueError(f"ranking must be one of {', '.join(RANKINGS)}, got {self.mode!r}")
        if self.mode == "fusion" and self.weights is None:
            raise ValueError("a fusion needs weights")

    def by(self, mode: RankingMode) -> RankingSpec:
        """The same adapter ranked another way; without popularity, which belongs to the mode that was chosen.

        Raises:
            ValueError: a fusion without weights.
        """
        return self if mode == self.mode else RankingSpec(mode, self.weights)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> RankingSpec:
        weights = content["weights"]
        return cls(
            content["mode"], None if weights is None else FusionWeights(**weights), float(content["popularity_gamma"])
        )


BY_DISTANCE = RankingSpec()
