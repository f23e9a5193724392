"""Spearman's rank correlation, with what chance alone gives."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

FEWEST = 4  # with three points every third order of unrelated values looks perfect


@dataclass(frozen=True)
class RankCorrelation:
    """How far two lists rise and fall together.

    Attributes:
        rho: in [-1, 1]; None where there are fewer than 4 points, or one list never changes.
        n: points.
        chance: standard deviation of rho for unrelated lists, 1 / sqrt(n - 1); None where rho is.
        note: what to know when reading it.
    """

    rho: float | None
    n: int
    chance: float | None
    note: str


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> RankCorrelation:
    """Correlate the ranks of two lists; equal values share the mean of their ranks.

    Raises:
        ValueError: they are not as long.

    Example:
        >>> rank_correlation([1, 2, 3, 4], [10, 20, 40, 30]).rho
        0.8
    """
    if len(a) != len(b):
        raise ValueError(f"expected lists of one length, got {len(a)} and {len(b)}")
    n = len(a)
    if n < FEWEST:
        return RankCorrelation(None, n, None, f"{n} points are too few to mean anything; at least {FEWEST} are needed")
    ranks_a, ranks_b = (ranks(values) - (n - 1) / 2 for values in (a, b))
    spread = float(np.sqrt((ranks_a @ ranks_a) * (ranks_b @ ranks_b)))
    if spread == 0:
        return RankCorrelation(None, n, None, "one of the two never changes")
    note = "both tend to fall while a model learns, so a high value alone does not show that one follows the other"
    rho = float(np.clip(ranks_a @ ranks_b / spread, -1.0, 1.0))  # rounding may leave the range
    return RankCorrelation(rho, n, float(1 / np.sqrt(n - 1)), note)


def ranks(values: Sequence[float]) -> NDArray[np.float64]:
    """Rank from 0, ascending; ties get their mean rank.

    Example:
        >>> ranks([5.0, 1.0, 5.0])
        array([1.5, 0. , 1.5])
    """
    _, owner, counts = np.unique(np.asarray(values, dtype=np.float64), return_inverse=True, return_counts=True)
    last = np.cumsum(counts) - 1
    return np.asarray((last - (counts - 1) / 2)[owner], dtype=np.float64)
