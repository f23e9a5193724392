"""Signs that a run went wrong: what was seen, the threshold, the remedy; those that any method may show.

A method's own signs are in its folder. A remedy's commands say SHOP for the workspace, because they are stored with
the adapter; see `finished_run.for_shop`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean
from typing import Any, Literal

from training.report.finished_run import FinishedRun

WINDOW_SETTINGS = ("train_windows", "validation_windows", "test_windows", "seed", "max_history", "min_history")

Level = Literal["warning", "note"]


@dataclass(frozen=True)
class FailureSign:
    """One sign that something went wrong.

    Attributes:
        level: "note" where it may be chance, or costs little.
        threshold: what makes it a sign.
    """

    code: str
    level: Level
    seen: str
    threshold: str
    remedy: str


def sampling_noise(shares: Sequence[float], n: int) -> float:
    """How far apart the best and the worst of equally good runs come by chance, in 19 of 20 cases.

    Each share is of n windows, so a difference of two has the standard error sqrt(2 p (1 - p) / n), p being their mean;
    it may reach z of them, z being the two-sided 5 % point of the normal distribution divided among all pairs
    (Bonferroni). Runs that are measured on the same windows differ less by chance than that: this is the cautious side.

    Example:
        >>> round(sampling_noise([0.05, 0.03], 512), 4)  # 1.96 * sqrt(2 * 0.04 * 0.96 / 512)
        0.024
    """
    p = mean(shares)
    pairs = math.comb(len(shares), 2)
    return NormalDist().inv_cdf(1 - 0.05 / (2 * pairs)) * math.sqrt(2 * p * (1 - p) / n)


def setting_swings(
    method: str, setting: str, label: str, rows: Sequence[tuple[float, float]], n: int
) -> FailureSign | None:
    """Say when a method's result hangs on one setting by more than sampling noise.

    Args:
        label: the setting's short name, as in `training.recipes.method.Sweep`.
        rows: (value of the setting, validation HR@10 of the run's best epoch).
        n: validation windows, the same for all.
    """
    if len(rows) < 2:
        return None
    worst, best = min(rows, key=lambda row: row[1]), max(rows, key=lambda row: row[1])
    noise = sampling_noise([hr10 for _, hr10 in rows], n)
    if best[1] - worst[1] <= noise:
        return None
    return FailureSign(
        f"{label}_swings",
        "warning",
        f"validation HR@10 goes from {worst[1]:.4f} at {label} {worst[0]:g} to {best[1]:.4f} at {label} {best[0]:g}, "
        f"each over {n} windows",
        f"a spread above {noise:.4f}, which {len(rows)} equally good runs hardly reach",
        f"tune {label} for each shop, here {best[0]:g}, and see whether it stays best with another seed: "
        f"`softrec train {method} SHOP --set {setting}={best[0]:g} --set seed=1`",
    )


def validated_alike(a: FinishedRun, b: FinishedRun) -> bool:
    """Whether both runs were validated on the same windows."""
    return all(a.settings[name] == b.settings[name] for name in WINDOW_SETTINGS)


def improvement_signs(run: FinishedRun) -> Iterator[FailureSign]:
    """Signs that any method may show."""
    epochs = len(run.history)
    if run.best_epoch == epochs:
        yield FailureSign(
            "still_improving",
            "note",
            f"the best epoch is the last, {epochs} of {epochs}: validation HR@10 {run.best['validation_hr10']:.4f}",
            "the best epoch is the last one",
            f"train longer: {run.command(longer(run))}",
        )


def longer(run: FinishedRun) -> dict[str, Any]:
    """The change of settings that doubles the epochs."""
    return {"max_epochs": 2 * int(run.settings["max_epochs"])}
