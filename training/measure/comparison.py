"""Offline A/B: do two methods differ on the same test windows?

Paired statistics: both are measured on every window, the difference is taken window by window, and users are resampled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from training.errors import TrainingError
from training.measure.evaluation import Evaluation
from training.measure.metrics import Interval, UserBootstrap, gains, hits

# NDCG@1 is HR@1
COMPARED = (*(("HR", k) for k in (1, 5, 10, 20)), *(("NDCG", k) for k in (5, 10, 20)))
MEASURES = {"HR": hits, "NDCG": gains}


@dataclass(frozen=True)
class Comparison:
    """One metric of two methods.

    Attributes:
        a, b: the metric's mean for each.
        difference: b - a with its 95 % interval.
        wins, losses: windows where b is better, where a is.
    """

    metric: str
    a: float
    b: float
    difference: Interval
    wins: int
    losses: int

    @property
    def verdict(self) -> str:
        """ "b better" or "a better" where the interval leaves out 0, else "undecided"."""
        if self.difference.low > 0:
            return "b better"
        return "a better" if self.difference.high < 0 else "undecided"

    def named_verdict(self, a: str, b: str) -> str:
        """The verdict with the names of the two methods in place of a and b."""
        return {"a better": f"{a} better", "b better": f"{b} better"}.get(self.verdict, self.verdict)

    def to_json(self) -> dict[str, Any]:
        """A flat object for `--json`."""
        return {
            "metric": self.metric,
            "a": self.a,
            "b": self.b,
            "difference": self.difference.mean,
            "difference_low": self.difference.low,
            "difference_high": self.difference.high,
            "wins": self.wins,
            "losses": self.losses,
            "verdict": self.verdict,
        }


def compare_evaluations(a: Evaluation, b: Evaluation) -> list[Comparison]:
    """Compare two evaluations of the same windows, metric by metric.

    Raises:
        TrainingError: the evaluations are not of the same windows.
    """
    if a.users != b.users:
        raise TrainingError(
            f"{a.method} and {b.method} were evaluated on different windows ({len(a.users)} and {len(b.users)})",
            remedy="evaluate both in one `softrec compare`",
        )
    pairs = [[MEASURES[name](evaluation.positions, k) for evaluation in (a, b)] for name, k in COMPARED]
    differences = [values_b - values_a for values_a, values_b in pairs]
    intervals = UserBootstrap(a.users).intervals(differences)
    return [
        Comparison(
            metric=f"{name}@{k}",
            a=float(values_a.mean()),
            b=float(values_b.mean()),
            difference=interval,
            wins=int((difference > 0).sum()),
            losses=int((difference < 0).sum()),
        )
        for (name, k), (values_a, values_b), difference, interval in zip(
            COMPARED, pairs, differences, intervals, strict=True
        )
    ]
