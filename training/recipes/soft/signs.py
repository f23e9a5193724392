"""What SOFT's run tells of itself: the failures that the paper (arXiv:2505.20771) leaves to its user.

A curriculum that does not move or moves at once, distilled titles that teach nothing, SOFT no better than SFT; and
whether the distilled data are easier (the paper: 47 % of the loss). The thresholds are ours.

A remedy's commands say SHOP for the workspace, because they are stored with the adapter; see `finished_run.for_shop`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from training.recipes.soft.settings import ALPHAS
from training.report.diagnosis import Diagnosis, LossRatio, diagnose
from training.report.distilled_signs import DISTINCT_TRUE, TOP, TOP_TRUE, DistilledSigns, Sign
from training.report.failure_signs import FailureSign, longer, sampling_noise, validated_alike
from training.report.finished_run import FinishedRun
from training.settings import IDLE

TAU_STUCK = 0.9  # the true titles weigh less than a tenth
TAU_GONE = 0.01  # the distilled titles weigh less than a hundredth
DISTANCE_STUCK = 0.95  # of d_0
COLLAPSED_UNIQUE = 0.1  # as many distinct titles as there are true ones
COLLAPSED_TOP = 0.5  # of the distilled titles are the ten most frequent ones
MEMORISED = 0.5  # of the distilled titles are the true ones
OFF_CATALOG = 0.05

# settings that decide neither the windows nor the loss of an SFT epoch
_IRRELEVANT = {
    *IDLE,
    *("max_epochs", "patience", "micro_batch_size", "generator", "golden_prompts"),
    *("beams", "length_penalty", "decode_batch_size", "validation_windows", "test_windows"),
}


def explain_soft(run: FinishedRun, *, parent: FinishedRun, distilled: DistilledSigns) -> Diagnosis:
    """Explain a SOFT run.

    Args:
        parent: the SFT run whose adapter wrote the distilled titles.
        distilled: what those titles are like.
    """
    losses, reason = compare_first_epochs(run, parent)
    unknown = [reason] if reason else []
    if not validated_alike(run, parent):
        unknown.append(
            f"SOFT against SFT: {parent.name} was validated on other windows; train both with the same --set"
        )
    signs = [
        *_comparison_signs(run, parent),
        *_distilled_signs(run, parent, {sign.name: sign for sign in distilled.signs}),
    ]
    if run.settings["schedule"] == "adaptive":  # the others follow a fixed plan
        signs += _curriculum_signs(run)
    return diagnose(run, signs=signs, distilled=distilled, losses=losses, unknown=unknown)


def compare_first_epochs(run: FinishedRun, parent: FinishedRun) -> tuple[tuple[LossRatio, ...], str]:
    """Compare the first epoch on distilled titles with the first epoch on true ones.

    Both start from the same base with a fresh adapter and see the same prompts; only the titles differ.

    Returns:
        The ratios, per token and per title and why there is none, or "".
    """
    what = "epoch-1 loss of distilled against true titles: "
    ours, theirs = run.history[0], parent.history[0]
    names = sorted((run.settings.keys() & parent.settings.keys()) - _IRRELEVANT)
    changed = [name for name in names if run.settings[name] != parent.settings[name]]
    if changed:
        return (), f"{what}{parent.name} was trained with another {', '.join(changed)}; train both with the same --set"
    taus = {row["tau"] for _, row in run.updates() if row["epoch"] == 1 and "tau" in row} | {ours.get("tau")}
    if taus != {1.0}:
        return (), f"{what}the first epoch was not on distilled titles alone (tau below 1)"
    pairs = (
        ("nats per token", ours["loss_distilled"], theirs["loss_real"]),
        ("nats per title", ours["loss_distilled_per_title"], theirs["loss_real_per_title"]),
    )
    return tuple(LossRatio(unit, a, b, a / b) for unit, a, b in pairs if b), ""


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
            f"{teacher.command({'max_epochs': 1})}, then {run.command()}",
        )
    if off.share > OFF_CATALOG:
        yield FailureSign(
            "off_catalog",
            "warning",
            f"{off.share:.3f} of {off.n} distilled titles are not in the catalog",
            f"above {OFF_CATALOG:g}",
            "SFT does not spell the titles yet; train it longer: "
            f"{teacher.command(longer(teacher))}, then {run.command()}",
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
            f"titles apart; {run.command(longer(run))}, or with `--set distance_encoder=minilm`",
        )


def _tau_signs(run: FinishedRun, taus: Sequence[float], nearest: float) -> Iterator[FailureSign]:
    alpha = float(run.settings["curriculum_alpha"])
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
        return f"no larger alpha of the paper's helps; train longer: {run.command(longer(run))}"
    taus = {value: math.exp(value * (nearest - 1)) for value in larger}
    chosen = min(larger, key=lambda value: abs(taus[value] - 0.5))
    return (
        f"a larger alpha, {chosen:g} makes tau {taus[chosen]:.2f} at the same distances: "
        f"{run.command({'curriculum_alpha': f'{chosen:g}'})}"
    )


def _more_to_learn(run: FinishedRun) -> dict[str, Any]:
    """Twice the windows where the log has more, else twice the epochs."""
    asked = int(run.settings["train_windows"])
    if run.windows.get("train_available", asked + 1) > asked:
        return {"train_windows": 2 * asked}
    return longer(run)


def _plain_beams(run: FinishedRun) -> dict[str, Any]:
    return {"length_penalty": 0} if run.settings["length_penalty"] else {}  # it favours long generic titles


def _retrain_both(run: FinishedRun, teacher: FinishedRun, changes: dict[str, Any]) -> str:
    return f"{teacher.command(changes)}, then {run.command(changes)}"
