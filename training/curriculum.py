"""SOFT's self-adaptive scheduler: how much the distilled data still counts."""

from __future__ import annotations

import math


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
