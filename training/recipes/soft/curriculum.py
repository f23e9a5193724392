"""SOFT's scheduler: how much the distilled data still counts; and the fixed schedules to compare it with."""

from __future__ import annotations

import math

from training.recipes.soft.settings import Schedule


def curriculum_weight(distance: float, initial_distance: float, *, curriculum_alpha: float) -> float:
    """Weight of the self-distilled loss in the coming epoch.

    SOFT's self-adaptive scheduler (arXiv:2505.20771, section 3.2):

        tau_t = min(exp(curriculum_alpha * (d_t / d_0 - 1)), 1)

    Args:
        distance: d_t, mean L2 distance between generated and true titles' embeddings.
        initial_distance: d_0, the same before the first update; > 0.
        curriculum_alpha: how fast the weight falls; > 0, dimensionless.

    Returns:
        A weight in [0, 1]; the real data's loss gets the rest. It is 0 only where exp underflows.

    Raises:
        ValueError: initial_distance or curriculum_alpha is not positive, or distance is negative.

    Example:
        >>> round(curriculum_weight(3.0, 4.0, curriculum_alpha=1.0), 4)
        0.7788
    """
    if initial_distance <= 0 or curriculum_alpha <= 0 or distance < 0:
        raise ValueError(
            "initial_distance and curriculum_alpha must be positive and distance not negative, "
            f"got {initial_distance}, {curriculum_alpha} and {distance}"
        )
    # min() inside exp(): the form as published overflows once d_t is a few times d_0
    return math.exp(min(curriculum_alpha * (distance / initial_distance - 1), 0.0))


def fixed_weight(schedule: Schedule, epoch: int, max_epochs: int) -> float:
    """Weight of the self-distilled loss under a schedule that does not look at d_t: controls and ablations.

    | schedule    | weight                                                     |
    |-------------|------------------------------------------------------------|
    | "linear"    | 1 in the first epoch, 0 in the last, on a line between      |
    | "step"      | 1 in the first half of the epochs, then 0                   |
    | "distilled" | always 1: SOFT without its scheduler (the paper's w/o SA)   |
    | "real"      | always 0: no self-distilled data, plain SFT (its w/o SD)    |

    Args:
        epoch: counted from 1.
        max_epochs: of the run; early stopping may end it sooner.

    Raises:
        ValueError: the schedule is "adaptive", whose weight is `curriculum_weight`.

    Example:
        >>> [fixed_weight("linear", epoch, 3) for epoch in (1, 2, 3)]
        [1.0, 0.5, 0.0]
        >>> [fixed_weight("step", epoch, 3) for epoch in (1, 2, 3)]
        [1.0, 1.0, 0.0]
    """
    match schedule:
        case "linear":
            return 1.0 - (epoch - 1) / max(max_epochs - 1, 1)
        case "step":
            return 1.0 if epoch <= math.ceil(max_epochs / 2) else 0.0
        case "distilled":
            return 1.0
        case "real":
            return 0.0
    raise ValueError(f"{schedule} is not a fixed schedule")
