"""Quality of written titles: rank the catalog by them and find the target.

Validation during training, the choice of a mode and the final evaluation all go through here, so what is chosen is
chosen by the very measure that is reported.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.ranking.ranking import Ranker, Written
from index.ranking.ranking_spec import RankingSpec
from training.measure.metrics import CUTOFFS


@dataclass(frozen=True)
class Ranks:
    """Ranks of the targets of a list of windows, in their order.

    Attributes:
        titles: the best one of each, as written.
        positions: int64 [n], 0-based position of the target in the ranked catalog; -1 beyond the deepest cut-off.
        on_catalog: bool [n], whether the best title exists word for word.
        distances: float64 [n], L2 of the best title to the nearest in the catalog.
    """

    titles: list[str]
    positions: NDArray[np.int64]
    on_catalog: NDArray[np.bool_]
    distances: NDArray[np.float64]


def rank_targets(written: Sequence[Written], targets: Sequence[int], ranker: Ranker, choice: RankingSpec) -> Ranks:
    """Rank the whole catalog by what was written and find the targets (SOFT, section 4.1).

    Nothing is excluded from the ranking, the history neither: that is the paper's measure.
    """
    rankings = ranker.rank(written, max(CUTOFFS), choice)
    positions = np.array(
        [find_position(ranked.rows, target) for ranked, target in zip(rankings, targets, strict=True)], dtype=np.int64
    )
    exact = np.array([ranked.grounding.match == "exact" for ranked in rankings], dtype=np.bool_)
    distances = np.array([ranked.grounding.distance for ranked in rankings], dtype=np.float64)
    return Ranks([one.texts[0] for one in written], positions, exact, distances)


def find_position(rows: NDArray[np.int64], target: int) -> int:
    """0-based position of `target` among `rows`; -1 when it is not there."""
    found = np.flatnonzero(rows == target)
    return int(found[0]) if len(found) else -1
