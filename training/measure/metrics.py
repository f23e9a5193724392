"""HR and NDCG over the full catalog, with bootstrap intervals. Positions are 0-based; -1 stands for «not found»."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

CUTOFFS = (1, 5, 10, 20, 50)


@dataclass(frozen=True)
class Interval:
    """A mean over windows and the 95 % interval that resampling users gives."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.4f} [{self.low:.4f}, {self.high:.4f}]"


def hits(positions: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """HR@k per window: 1 where the target is among the first k.

    Example:
        >>> hits(np.array([0, 9, 10, -1]), 10)
        array([1., 1., 0., 0.])
    """
    return ((positions >= 0) & (positions < k)).astype(np.float64)


def gains(positions: NDArray[np.int64], k: int) -> NDArray[np.float64]:
    """NDCG@k per window with one relevant item: 1 / log2(position + 2) for a hit (SOFT, section 4.1).

    Example:
        >>> gains(np.array([0, 2, 10]), 10)
        array([1. , 0.5, 0. ])
    """
    discounts = 1.0 / np.log2(np.maximum(positions, 0) + 2.0)
    return hits(positions, k) * discounts


class UserBootstrap:
    """95 % percentile bootstrap over users.

    Windows of one user are not independent, so whole users are drawn, with all their windows. The draws are made once,
    so all metrics and methods measured with one object are resampled alike, and differences of paired values are exact.

    Args:
        users: user_id of each window, [n]; not empty.
        resamples: how often the users are drawn anew.
    """

    def __init__(self, users: Sequence[str], *, resamples: int = 2000, seed: int = 0) -> None:
        if not len(users):
            raise ValueError("no windows to resample")
        distinct, self._owner = np.unique(np.asarray(users, dtype=np.str_), return_inverse=True)
        draw = np.random.default_rng(seed)
        # how often each user came: the same as drawing indices, without an [resamples, n] gather
        self._weights = draw.multinomial(len(distinct), np.full(len(distinct), 1 / len(distinct)), size=resamples)
        self._windows = self._weights @ np.bincount(self._owner)  # [resamples]

    def interval(self, values: NDArray[np.float64]) -> Interval:
        """Mean of one number per window [n], with its interval; for a paired comparison pass the differences."""
        if len(values) != len(self._owner):
            raise ValueError(f"expected {len(self._owner)} values, got {len(values)}")
        means = (self._weights @ np.bincount(self._owner, weights=values)) / self._windows
        low, high = np.quantile(means, [0.025, 0.975])
        return Interval(float(values.mean()), float(low), float(high))


def metric_table(positions: NDArray[np.int64], bootstrap: UserBootstrap) -> dict[str, Interval]:
    """All metrics of one method: {"HR@1": Interval, ..., "NDCG@50": Interval}."""
    per_window = {f"HR@{k}": hits(positions, k) for k in CUTOFFS} | {f"NDCG@{k}": gains(positions, k) for k in CUTOFFS}
    return {name: bootstrap.interval(values) for name, values in per_window.items()}
