"""A run explained, from what it left behind: its epochs, its signs of failure, what its titles were like.

Training stores it with the adapter as diagnosis.json; `softrec diagnose` shows it. What a method adds to it is in the
method's folder.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from index.errors import CorruptArtifactError
from training.adapter import Adapter
from training.report.distilled_signs import DistilledSigns
from training.report.failure_signs import FailureSign, improvement_signs
from training.report.finished_run import Distance, FinishedRun, Row

DIAGNOSIS = "diagnosis.json"
PAPER_RATIO = 0.47  # SOFT: epoch-1 loss on distilled data over that on real data


@dataclass(frozen=True)
class LossRatio:
    """Mean loss over the first epoch on distilled titles (this run) and on true ones (its parent).

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
        distilled = content["distilled"]
        parts = {
            "epochs": tuple(content["epochs"]),
            "distilled": distilled and DistilledSigns.from_json(distilled),
            "losses": tuple(LossRatio(**loss) for loss in content["losses"]),
            "distances": tuple(Distance(**distance) for distance in content["distances"]),
            "signs": tuple(FailureSign(**sign) for sign in content["signs"]),
            "unknown": tuple(content["unknown"]),
        }
        return cls(**{**content, **parts})


def diagnose(
    run: FinishedRun,
    *,
    signs: Sequence[FailureSign] = (),
    distilled: DistilledSigns | None = None,
    losses: Sequence[LossRatio] = (),
    unknown: Sequence[str] = (),
) -> Diagnosis:
    """Put together what is known of a run.

    Args:
        signs: those of its method; the ones that any method may show are added, and notes put last.
        distilled: what the titles are like that a teacher wrote for it.
        losses: how easy these are.
        unknown: what could not be said, and why.
    """
    found = [*improvement_signs(run), *signs]
    return Diagnosis(
        name=run.name,
        method=run.method,
        best_epoch=run.best_epoch,
        windows=dict(run.windows),
        epochs=tuple(run.history),
        distilled=distilled,
        losses=tuple(losses),
        distances=tuple(run.distances()),
        signs=tuple(sorted(found, key=lambda sign: sign.level == "note")),
        unknown=tuple(unknown),
    )


def read_diagnosis(adapter: Adapter) -> Diagnosis:
    """Read what the run stored of itself.

    Raises:
        CorruptArtifactError: it stored nothing, or in another version's form; carries the command.
    """
    path = adapter.path / DIAGNOSIS
    try:
        return Diagnosis.from_json(json.loads(path.read_bytes()))
    except (FileNotFoundError, KeyError, TypeError, ValueError) as error:
        again = f"`softrec train {adapter.facts.method} {adapter.path.parent.parent}`"
        raise CorruptArtifactError(
            path, f"missing, or of another version ({error})", remedy=f"train it again with {again}"
        ) from error
