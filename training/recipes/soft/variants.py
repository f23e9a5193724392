"""Ways of training SOFT that are worth comparing: several alphas; and SOFT with one of its parts changed."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from index.errors import SoftrecError
from training.adapter import check_adapter_name
from training.errors import SettingError
from training.settings import TrainSettings


@dataclass(frozen=True)
class Variant:
    """One way of training SOFT.

    Attributes:
        name: of its adapter.
        meaning: what is special about it, for people.
        changes: the settings in which it differs from the others.
    """

    name: str
    meaning: str
    changes: Mapping[str, Any]

    def settings(self, common: TrainSettings) -> TrainSettings:
        return replace(common, **self.changes)


FULL = Variant("soft-full", "SOFT as it is", {})


def parse_alphas(text: str) -> tuple[float, ...]:
    """Read a comma-separated list of alphas.

    Raises:
        SettingError: it is empty, or one of them is not a number, not positive, named twice, or has too many digits
            for an adapter's name.

    Example:
        >>> parse_alphas("0.1, 1,10")
        (0.1, 1.0, 10.0)
    """
    remedy = "list positive numbers, as in --alphas 0.1,1,10,100"
    if not text.strip():
        raise SettingError("no alpha is given", remedy=remedy)
    alphas: list[float] = []
    for part in (part.strip() for part in text.split(",")):
        try:
            alpha = float(part)
        except ValueError as error:
            raise SettingError(f"alpha {part!r} is not a number", remedy=remedy) from error
        if not 0 < alpha < math.inf:
            raise SettingError(f"alpha must be positive and finite, got {part}", remedy=remedy)
        if alpha in alphas:
            raise SettingError(f"alpha {alpha:g} is listed twice", remedy=remedy)
        try:
            check_adapter_name(_name_alpha(alpha))
        except SoftrecError as error:
            raise SettingError(f"alpha {part} is too long for an adapter's name", remedy="give fewer digits") from error
        alphas.append(alpha)
    return tuple(alphas)


def alpha_variants(alphas: Sequence[float]) -> list[Variant]:
    """One variant per alpha, named so that different alphas never share a name.

    Example:
        >>> [variant.name for variant in alpha_variants([0.1, 1, 1e-5])]
        ['soft-alpha-0_1', 'soft-alpha-1', 'soft-alpha-1e-05']
    """
    return [Variant(_name_alpha(alpha), f"alpha {alpha:g}", {"curriculum_alpha": alpha}) for alpha in alphas]


def _name_alpha(alpha: float) -> str:
    """The shortest decimal that gives this float back, in the letters that a name may have."""
    return "soft-alpha-" + repr(float(alpha)).removesuffix(".0").replace("+", "").replace(".", "_")


def ablation_variants(updates: int) -> dict[str, Variant]:
    """SOFT with one of its parts changed, by the name that a person uses; the adapters' begin with "soft-".

    | name              | what it is                                               |
    |-------------------|----------------------------------------------------------|
    | "no-sa"           | the paper's "w/o SA": distilled titles in every epoch    |
    | "no-sd"           | the paper's "w/o SD": true titles in every epoch         |
    | "linear", "step"  | controls: tau falls whatever d_t is                      |
    | "distance-steps"  | d_t is measured four times per epoch instead of once     |
    | "distance-minilm" | d_t in the space of sentence-transformers' MiniLM        |

    Args:
        updates: per epoch (`updates_per_epoch`); decides how often "distance-steps" measures, nothing else.
    """
    every = max(1, updates // 4)
    parts = (
        ("no-sa", "without the adaptive schedule: distilled titles in every epoch", {"schedule": "distilled"}),
        ("no-sd", "without self-distillation: true titles in every epoch", {"schedule": "real"}),
        ("linear", "tau falls on a line from 1 to 0", {"schedule": "linear"}),
        ("step", "tau is 1 in the first half of the epochs, then 0", {"schedule": "step"}),
        ("distance-steps", f"d_t measured every {every} updates", {"distance_every": every}),
        ("distance-minilm", "d_t measured with MiniLM", {"distance_encoder": "minilm"}),
    )
    return {name: Variant(f"soft-{name}", meaning, changes) for name, meaning, changes in parts}


ABLATIONS = tuple(ablation_variants(1))


def parse_ablations(text: str) -> tuple[str, ...]:
    """Read a comma-separated list of ablations; an empty one means all.

    Raises:
        SettingError: one is unknown (with the nearest known one) or named twice.

    Example:
        >>> parse_ablations("no-sd,no-sa")
        ('no-sd', 'no-sa')
    """
    names = [part.strip() for part in text.split(",")] if text.strip() else list(ABLATIONS)
    for at, name in enumerate(names):
        if name not in ABLATIONS:
            near = difflib.get_close_matches(name, ABLATIONS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"choose from {', '.join(ABLATIONS)}"
            raise SettingError(f"unknown ablation {name!r}", remedy=hint)
        if name in names[:at]:
            raise SettingError(f"ablation {name} is listed twice", remedy="list it once")
    return tuple(names)


def check_adaptive(settings: TrainSettings) -> None:
    """Refuse settings under which the schedule ignores d_t: then alpha does nothing, nor has SOFT a part to lose.

    Raises:
        SettingError: the schedule is another than "adaptive".
    """
    if settings.schedule != "adaptive":
        raise SettingError(
            f"schedule {settings.schedule!r} looks neither at d_t nor at alpha", remedy="--set schedule=adaptive"
        )
