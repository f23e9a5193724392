"""The optimizer's moments, as a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from torch import Tensor

from training.parallel.shards import laid_out_as, whole_tensor


class Moments(Protocol):
    """What a checkpoint needs of an optimizer."""

    def state(self) -> Any:
        """Return the moments, on the CPU; every process has to call it."""
        ...

    def restore(self, state: Any) -> None:
        """Take over what `state` gave."""
        ...

    def follow_weights(self) -> None:
        """Notice that weights were written into the model."""
        ...


class WholeMoments:
    """Moments by the name of their weight, whole: in one process, under DDP, and under FSDP.

    Args:
        weights: those that the optimizer updates, in its order.
    """

    def __init__(self, optimizer: Any, weights: Mapping[str, Tensor]) -> None:
        self._optimizer, self._weights = optimizer, weights

    def state(self) -> dict[str, dict[str, Tensor]]:
        names = list(self._weights)
        return {
            names[number]: {key: whole_tensor(value).cpu().clone() for key, value in entry.items()}
            for number, entry in self._optimizer.state_dict()["state"].items()
        }

    def restore(self, state: Mapping[str, Mapping[str, Tensor]]) -> None:
        entries = {
            number: {
                # the step counter is no tensor of the weight's shape
                key: laid_out_as(weight, value.clone()) if value.shape == weight.shape else value.clone()
                for key, value in state[name].items()
            }
            for number, (name, weight) in enumerate(self._weights.items())
            if name in state
        }
        self._optimizer.load_state_dict(self._optimizer.state_dict() | {"state": entries})

    def follow_weights(self) -> None:
        return None
