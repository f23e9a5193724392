"""Assign a user to an arm: always the same one, on every replica, without storing it.

GrowthBook's hash, version 2, so that any of its SDKs gives the same answer:

    bucket = fnv32a(str(fnv32a(seed + unit))) % 10000 / 10000

The unit is the hex SHA-256 of the user id: the SDKs disagree about characters beyond ASCII.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

from serving.errors import SettingsError


def fnv32a(text: str) -> int:
    """32-bit FNV-1a over the UTF-8 bytes.

    Example:
        >>> hex(fnv32a("foobar"))
        '0xbf9cf968'
    """
    state = 0x811C9DC5
    for byte in text.encode():
        state = (state ^ byte) * 0x01000193 & 0xFFFFFFFF
    return state


def bucket(seed: str, unit: str) -> float:
    """Return the unit's position in [0, 1), a multiple of 1/10000.

    Example:
        >>> bucket("seed", "a")
        0.0505
    """
    return fnv32a(str(fnv32a(seed + unit))) % 10_000 / 10_000


@dataclass(frozen=True)
class ArmsExperiment:
    """A running experiment.

    Attributes:
        id: its name, and the seed of its hash: another experiment assigns users differently.
        arms: adapter names.
        weights: share of each arm, summing to 1. Changing them moves users between arms.
    """

    id: str
    arms: tuple[str, ...]
    weights: tuple[float, ...]

    def assign(self, user_id: str) -> str:
        """Return the user's arm: the one whose slice of [0, 1) holds the user's bucket."""
        position = bucket(self.id, hashlib.sha256(user_id.encode()).hexdigest())
        end = 0.0
        for arm, weight in zip(self.arms, self.weights, strict=True):
            end += weight
            if position < end:
                return arm
        return self.arms[-1]  # rounding of the sum


def plan_experiment(
    experiment_id: str | None,
    arms: Sequence[str],
    weights: Sequence[float],
    *,
    served: Sequence[str],
    arms_are_chosen: bool = False,
) -> ArmsExperiment | None:
    """Build the experiment of the settings; None if they name none or serve fewer than two of its arms.

    Args:
        served: names of the adapters that are served.
        arms_are_chosen: the operator set the arms, so all of them must be served.

    Raises:
        SettingsError: the weights do not fit the arms, an arm occurs twice, or a chosen arm is not served.
    """
    if len(set(arms)) != len(arms):
        raise SettingsError(f"experiment arms {', '.join(arms)}: an arm occurs twice", remedy="name each adapter once")
    if weights and (len(weights) != len(arms) or abs(sum(weights) - 1) > 1e-6):
        raise SettingsError(
            f"experiment weights {', '.join(map(str, weights))} for {len(arms)} arms",
            remedy="give one weight per arm, summing to 1",
        )
    if experiment_id is None:
        return None
    missing = [arm for arm in arms if arm not in served]
    if missing and arms_are_chosen:
        raise SettingsError(
            f"experiment arm {', '.join(missing)} is not served; served: {', '.join(served)}",
            remedy="set SOFTREC_ARMS to served adapters, or SOFTREC_EXPERIMENT to the empty string",
        )
    if missing or len(arms) < 2:
        return None
    return ArmsExperiment(experiment_id, tuple(arms), tuple(weights) or (1 / len(arms),) * len(arms))
