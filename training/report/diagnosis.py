"""A run explained: the questions that SOFT leaves to its user, answered from what the run left behind.

Is the distilled data easier (the paper: 47 % of the loss)? Does it carry more than chance? Does d_t follow what the
model learns? Did one of the known failures happen? `train_soft` stores the answers with the adapter as diagnosis.json;
`softrec diagnose` shows them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from training.adapter import Adapter
from training.report.distilled_signs import DistilledSigns
from training.report.failure_signs import FailureSign, find_failure_signs, validated_alike
from training.report.finished_run import Distance, FinishedRun, Row
from training.report.rank_correlation import RankCorrelation, rank_correlation
from training.settings import IDLE

DIAGNOSIS = "diagnosis.json"
PAPER_RATIO = 0.47  # SOFT: epoch-1 loss on distilled data over that on real data

# settings that decide neither the windows nor the loss of an SFT epoch
_IRRELEVANT = {
    *IDLE,
    *("max_epochs", "patience", "micro_batch_size", "generator", "golden_prompts"),
    *("beams", "length_penalty", "decode_batch_size", "validation_windows", "test_windows"),
    *("schedule", "curriculum_alpha", "distance_samples", "distance_every", "distance_encoder"),
}


@dataclass(frozen=True)
class LossRatio:
    """Mean loss over the first epoch on distilled titles (the SOFT run) and on true ones (its SFT parent).

    Attributes:
        unit: "nats per token" or "nats per title".
        ratio: distilled over real; the paper's is 0.47.
    """

    unit: str
    distilled: float
    real: float
    ratio: float


@dataclass(frozen=True)
class Diagnosis:
    """What is known of a run.

    Attributes:
        best_epoch: the published one, from 1.
        windows: see `FinishedRun.windows`.
        epochs: one row of figures per epoch.
        distances: every measurement of d_t.
        correlation: of d_t with validation_loss; None where no d_t was measured.
        unknown: what could not be said, and what would bring it back.
    """

    name: str
    method: str
    best_epoch: int
    windows: Mapping[str, int]
    epochs: tuple[Row, ...]
    distilled: DistilledSigns | None
    losses: tuple[LossRatio, ...]
    distances: tuple[Distance, ...]
    correlation: RankCorrelation | None
    signs: tuple[FailureSign, ...]
    unknown: tuple[str, ...]

    def metrics(self) -> dict[str, float]:
        """What belongs into the adapter's manifest: d_0, and the shares of the distilled titles."""
        initial = {"d_0": self.distances[0].d_t} if self.distances else {}
        return initial | (self.distilled.metrics() if self.distilled else {})

    def to_json(self) -> dict[str, Any]:
        """A plain object; `from_json` takes it back."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Diagnosis:
        """Rebuild what `to_json` gave.

        Raises:
            KeyError, TypeError: it comes from another version.
        """
        distilled, correlation = content["distilled"], content["correlation"]
        parts = {
            "epochs": tuple(content["epochs"]),
            "distilled": distilled and DistilledSigns.from_json(distilled),
            "losses": tuple(LossRatio(**loss) for loss in content["losses"]),
            "distances": tuple(Distance(**distance) for distance in content["distances"]),
            "correlation": correlation and RankCorrelation(**correlation),
            "signs": tuple(FailureSign(**sign) for sign in content["signs"]),
            "unknown": tuple(content["unknown"]),
        }
        return cls(**{**content, **parts})


def diagnose(
    run: FinishedRun,
    *,
    parent: FinishedRun | None = None,
    distilled: DistilledSigns | None = None,
    unknown: Sequence[str] = (),
) -> Diagnosis:
    """Explain a run.

    Args:
        parent: of a SOFT run: the SFT run whose adapter wrote the distilled titles.
        distilled: of a SOFT run: what those titles are like.
        unknown: what the caller could not find, to be listed with the rest.
    """
    gaps = list(unknown)
    losses: tuple[LossRatio, ...] = ()
    if run.method == "soft" and parent is not None:
        losses, reason = compare_first_epochs(run, parent)
        gaps += [reason] if reason else []
        if not validated_alike(run, parent):
            gaps.append(
                f"SOFT against SFT: {parent.name} was validated on other windows; train both with the same --set"
            )
    distances = run.distances()
    return Diagnosis(
        name=run.name,
        method=run.method,
        best_epoch=run.best_epoch,
        windows=dict(run.windows),
        epochs=tuple(run.history),
        distilled=distilled,
        losses=losses,
        distances=tuple(distances),
        correlation=correlate_distance(run, distances) if distances else None,
        signs=tuple(find_failure_signs(run, parent=parent, distilled=distilled)),
        unknown=tuple(gaps),
    )


def compare_first_epochs(run: FinishedRun, parent: FinishedRun) -> tuple[tuple[LossRatio, ...], str]:
    """Compare the first epoch on distilled titles with the first epoch on true ones.

    Both start from the same base with a fresh adapter and see the same prompts; only the titles differ.

    Returns:
        The ratios, per token and per title as far as both runs logged them; and why there is none, or "".
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
    # an older version logged the only loss that there was under one name
    pairs = (
        ("nats per token", ours.get("loss_distilled", ours["loss"]), theirs.get("loss_real", theirs["loss"])),
        ("nats per title", ours.get("loss_distilled_per_title"), theirs.get("loss_real_per_title")),
    )
    return tuple(LossRatio(unit, a, b, a / b) for unit, a, b in pairs if a is not None and b), ""


def correlate_distance(run: FinishedRun, distances: Sequence[Distance]) -> RankCorrelation:
    """Rank correlation of d_t with validation_loss, each pair measured on the same weights.

    The d_t that decides epoch e is measured before it, on the weights that epoch e - 1 left; so it goes with that
    epoch's validation_loss. d_0 has no partner, nor has what was measured within an epoch, nor the last epoch's loss: a
    run of E epochs gives E - 1 points. d_t follows learning where the correlation is positive.
    """
    losses = {float(row["epoch"]): row["validation_loss"] for row in run.history if "validation_loss" in row}
    pairs = [(distance.d_t, losses[distance.position]) for distance in distances if distance.position in losses]
    return rank_correlation([d_t for d_t, _ in pairs], [loss for _, loss in pairs])


def read_diagnosis(adapter: Adapter) -> Diagnosis | None:
    """Read what the run stored of itself; None where it stored nothing, or in another version's form."""
    path = adapter.path / DIAGNOSIS
    try:
        return Diagnosis.from_json(json.loads(path.read_bytes())) if path.is_file() else None
    except (KeyError, TypeError):
        return None
