"""Signs that a run went wrong: what was seen, the threshold, the remedy.

The failures are those that SOFT (arXiv:2505.20771) leaves to its user: a curriculum that does not move or moves at
once, distilled titles that teach nothing, SOFT no better than SFT. The thresholds are ours.

A remedy's commands say SHOP for the workspace, because they are stored with the adapter; see `finished_run.for_shop`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist, mean
from typing import Any, Literal

from training.report.distilled_signs import DISTINCT_TRUE, TOP, TOP_TRUE, DistilledSigns, Sign
from training.report.finished_run import FinishedRun

TAU_STUCK = 0.9  # the true titles weigh less than a tenth
TAU_GONE = 0.01  # the distilled titles weigh less than a hundredth
DISTANCE_STUCK = 0.95  # of d_0
COLLAPSED_UNIQUE = 0.1  # as many distinct titles as there are true ones
COLLAPSED_TOP = 0.5  # of the distilled titles are the ten most frequent ones
MEMORISED = 0.5  # of the distilled titles are the true ones
OFF_CATALOG = 0.05
ALPHAS = (0.1, 1.0, 10.0, 100.0)  # the paper's

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


def alpha_swings(rows: Sequence[tuple[float, float]], n: int) -> FailureSign | None:
    """Say when SOFT's result hangs on curriculum_alpha by more than sampling noise.

    Args:
        rows: (curriculum_alpha, validation HR@10 of the run's best epoch).
        n: validation windows, the same for all.
    """
    if len(rows) < 2:
        return None
    worst, best = min(rows, key=lambda row: row[1]), max(rows, key=lambda row: row[1])
    noise = sampling_noise([hr10 for _, hr10 in rows], n)
    if best[1] - worst[1] <= noise:
        return None
    return FailureSign(
        "alpha_swings",
        "warning",
        f"validation HR@10 goes from {worst[1]:.4f} at alpha {worst[0]:g} to {best[1]:.4f} at alpha {best[0]:g}, "
        f"each over {n} windows",
        f"a spread above {noise:.4f}, which {len(rows)} equally good runs hardly reach",
        f"tune alpha for each shop, here {best[0]:g}, and see whether it stays best with another seed: "
        f"`softrec train soft SHOP --set curriculum_alpha={best[0]:g} --set seed=1`",
    )


def find_failure_signs(
    run: FinishedRun, *, parent: FinishedRun | None, distilled: DistilledSigns | None
) -> list[FailureSign]:
    """Look for every sign; notes come last.

    Args:
        parent: the SFT run whose adapter wrote the distilled titles; None where there is none or it is gone.
        distilled: None likewise.
    """
    signs = list(_improvement_signs(run))
    if run.method == "soft":
        if parent is not None:
            signs += _comparison_signs(run, parent)
        if distilled is not None:
            signs += _distilled_signs(run, parent or run, {sign.name: sign for sign in distilled.signs})
        if run.settings.get("schedule", "adaptive") == "adaptive":  # the others move as they are told
            signs += _curriculum_signs(run)
    return sorted(signs, key=lambda sign: sign.level == "note")


def validated_alike(a: FinishedRun, b: FinishedRun) -> bool:
    """Whether both runs were validated on the same windows."""
    return all(a.settings.get(name) == b.settings.get(name) for name in WINDOW_SETTINGS)


def _improvement_signs(run: FinishedRun) -> Iterator[FailureSign]:
    epochs = len(run.history)
    if run.best_epoch == epochs:
        yield FailureSign(
            "still_improving",
            "note",
            f"the best epoch is the last, {epochs} of {epochs}: validation HR@10 {run.best['validation_hr10']:.4f}",
            "the best epoch is the last one",
            f"train longer: {run.command(_longer(run))}",
        )


def _comparison_signs(run: FinishedRun, parent: FinishedRun) -> Iterator[FailureSign]:
    ours, theirs = (float(one.best["validation_hr10"]) for one in (run, parent))
    if not validated_alike(run, parent) or ours >= theirs:
        return
    seen = (
        f"validation HR@10 {ours:.4f} (best of {len(run.history)} epochs) against {theirs:.4f} of {parent.name} "
        f"(best of {len(parent.history)})"
    )
    teacher, name = (one.name.partition("@")[0] for one in (parent, run))
    windows = min(5000, run.windows.get("test_available", 5000))
    compare = f"`softrec compare SHOP {teacher} {name} --set test_windows={windows}`"
    n = run.windows.get("validation")
    if n is None:
        threshold = "any difference; over how many windows, and so how much is sampling noise, is not known"
        yield FailureSign("below_sft", "note", seen, threshold, f"compare them on test windows: {compare}")
        return
    seen += f"; of {n} windows {round(ours * n)} hits against {round(theirs * n)}"
    noise = sampling_noise([ours, theirs], n)
    if theirs - ours <= noise:
        threshold = f"any difference; up to {noise:.4f} is sampling noise"
        yield FailureSign("below_sft", "note", seen, threshold, f"it decides nothing; on test windows: {compare}")
    else:
        threshold = f"a difference above {noise:.4f}, the sampling noise"
        alphas = " ".join(f"{alpha:g}" for alpha in ALPHAS)
        remedy = f"serve {teacher}; mend the other signs first, then try the paper's alphas ({alphas}); {compare}"
        yield FailureSign("below_sft", "warning", seen, threshold, remedy)


def _distilled_signs(run: FinishedRun, teacher: FinishedRun, signs: dict[str, Sign]) -> Iterator[FailureSign]:
    unique, top = signs["distilled_unique"], signs["distilled_top10"]
    distinct_true, top_true = unique.beside[DISTINCT_TRUE], top.beside[TOP_TRUE]
    if unique.share < COLLAPSED_UNIQUE * distinct_true or top.share > max(COLLAPSED_TOP, 2 * top_true):
        yield FailureSign(
            "collapsed",
            "warning",
            f"{round(unique.share * unique.n)} distinct titles for {unique.n} prompts (true titles: "
            f"{round(distinct_true * unique.n)}); the {TOP} most frequent are {top.share:.3f} of all (true titles: "
            f"{top_true:.3f})",
            f"less than {COLLAPSED_UNIQUE:g} of the distinct true titles; or the {TOP} most frequent above "
            f"{COLLAPSED_TOP:g} and twice their share among the true ones",
            "the easy half is nearly one answer for everybody; teach SFT more first: "
            + _retrain_both(run, teacher, _more_to_learn(run) | _plain_beams(run)),
        )
    same, off = signs["distilled_true"], signs["distilled_off_catalog"]
    if same.share > MEMORISED:
        yield FailureSign(
            "memorised",
            "warning",
            f"{same.share:.3f} of {same.n} distilled titles are the true ones",
            f"above {MEMORISED:g}",
            "SFT knows its windows by heart, so the easy half is the hard half; stop it sooner: "
            f"{teacher.command({'max_epochs': 1}, method='sft')}, then {run.command()}",
        )
    if off.share > OFF_CATALOG:
        yield FailureSign(
            "off_catalog",
            "warning",
            f"{off.share:.3f} of {off.n} distilled titles are not in the catalog",
            f"above {OFF_CATALOG:g}",
            "SFT does not spell the titles yet; train it longer: "
            f"{teacher.command(_longer(teacher), method='sft')}, then {run.command()}",
        )


def _curriculum_signs(run: FinishedRun) -> Iterator[FailureSign]:
    later = [distance for distance in run.distances() if distance.position > 0]
    if later:
        yield from _distance_signs(run, min(distance.ratio for distance in later), len(later))
        yield from _tau_signs(run, [distance.tau for distance in later], min(distance.ratio for distance in later))
    if all(row.get("tau") == 1.0 for row in run.history[: run.best_epoch]):
        slower = {"learning_rate": f"{float(run.settings.get('learning_rate', 3e-3)) / 3:.1g}"}
        yield FailureSign(
            "only_distilled",
            "warning",
            f"the published epoch, {run.best_epoch} of {len(run.history)}, learned distilled titles alone",
            "tau 1 in every epoch up to the published one",
            "the true titles made validation worse, or their turn never came: "
            + run.command({**slower, "max_epochs": max(2 * len(run.history), 3)}),
        )


def _distance_signs(run: FinishedRun, nearest: float, n: int) -> Iterator[FailureSign]:
    if nearest > DISTANCE_STUCK:
        yield FailureSign(
            "distance_stuck",
            "warning",
            f"d_t never came below {nearest:.3f} of d_0 in {n} measurements after the first",
            f"above {DISTANCE_STUCK:g}",
            "the titles written come no nearer to the true ones: the model underfits, or the encoder hardly tells "
            f"titles apart; {run.command(_longer(run))}, or with `--set distance_encoder=minilm`",
        )


def _tau_signs(run: FinishedRun, taus: Sequence[float], nearest: float) -> Iterator[FailureSign]:
    alpha = float(run.settings.get("curriculum_alpha", 1.0))
    if min(taus) > TAU_STUCK:
        yield FailureSign(
            "tau_stuck",
            "warning",
            f"tau never fell below {min(taus):.3f} in {len(taus)} measurements after the first: the true titles "
            "hardly count",
            f"above {TAU_STUCK:g}",
            _quicker(run, alpha, nearest),
        )
    if max(taus) < TAU_GONE:
        slower = max((value for value in ALPHAS if value < alpha), default=alpha / 10)
        yield FailureSign(
            "tau_gone",
            "warning",
            f"tau was at most {max(taus):.2g} in all {len(taus)} measurements after the first: this is SFT with an "
            "epoch less",
            f"below {TAU_GONE:g}",
            f"a smaller alpha: {run.command({'curriculum_alpha': f'{slower:g}'})}",
        )


def _quicker(run: FinishedRun, alpha: float, nearest: float) -> str:
    """The larger one of the paper's alphas that brings tau nearest to 1/2 at the distances that were measured."""
    larger = [value for value in ALPHAS if value > alpha]
    if nearest >= 1 or not larger:
        return f"no larger alpha of the paper's helps; train longer: {run.command(_longer(run))}"
    taus = {value: math.exp(value * (nearest - 1)) for value in larger}
    chosen = min(larger, key=lambda value: abs(taus[value] - 0.5))
    return (
        f"a larger alpha, {chosen:g} makes tau {taus[chosen]:.2f} at the same distances: "
        f"{run.command({'curriculum_alpha': f'{chosen:g}'})}"
    )


def _more_to_learn(run: FinishedRun) -> dict[str, Any]:
    """Twice the windows where the log has more, else twice the epochs."""
    asked = int(run.settings.get("train_windows", 4096))
    if run.windows.get("train_available", asked + 1) > asked:
        return {"train_windows": 2 * asked}
    return _longer(run)


def _longer(run: FinishedRun) -> dict[str, Any]:
    return {"max_epochs": 2 * int(run.settings.get("max_epochs", len(run.history)))}


def _plain_beams(run: FinishedRun) -> dict[str, Any]:
    return {"length_penalty": 0} if run.settings.get("length_penalty") else {}  # it favours long generic titles


def _retrain_both(run: FinishedRun, teacher: FinishedRun, changes: dict[str, Any]) -> str:
    return f"{teacher.command(changes, method='sft')}, then {run.command(changes)}"
