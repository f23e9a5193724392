"""Choose the adapter of a request: the one that it names, its user's arm, or the default."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from serving.adapters.proof import ServedAdapter
from serving.errors import AdapterForbiddenError, SettingsError, UnknownAdapterError
from serving.experiments.assignment import ArmsExperiment
from serving.schema import ArmReason, RecommendRequest
from training.recipes.methods import main_adapter


@dataclass(frozen=True)
class Assignment:
    """The adapter that answers, and why.

    Attributes:
        assigned: the user's arm, even if another adapter answers.
        served: the arm that answers as part of the experiment, or None.
    """

    adapter: ServedAdapter
    assigned: str | None
    served: str | None
    reason: ArmReason


class ArmChooser:
    """Chooses among the served adapters.

    Args:
        adapters: by name.
        default_adapter: the name of the one that answers outside the experiment; None: `main_adapter`.
        experiment: None: no experiment runs.
        allow_override: whether a request may name its adapter.

    Raises:
        SettingsError: the default adapter is not served.
    """

    def __init__(
        self,
        adapters: Mapping[str, ServedAdapter],
        *,
        default_adapter: str | None,
        experiment: ArmsExperiment | None,
        allow_override: bool,
    ) -> None:
        name = default_adapter or main_adapter(adapters)
        if name not in adapters:
            raise SettingsError(
                f"default adapter {name} is not served; served: {', '.join(adapters)}",
                remedy="set SOFTREC_DEFAULT_ADAPTER to one of them",
            )
        self.adapters = dict(adapters)
        self.experiment = experiment
        self._default = adapters[name]
        self._allow_override = allow_override

    @property
    def experiment_id(self) -> str | None:
        return self.experiment.id if self.experiment else None

    def choose(self, request: RecommendRequest) -> Assignment:
        """Choose for a request.

        Raises:
            AdapterForbiddenError: it names an adapter without permission.
            UnknownAdapterError: it names one that is not served.
        """
        assigned = None
        if self.experiment is not None and request.user_id is not None:
            assigned = self.experiment.assign(request.user_id)
        if request.adapter is not None:
            return Assignment(self._requested(request.adapter), assigned, None, ArmReason.ADAPTER_REQUESTED)
        if request.user_id is None:
            return Assignment(self._default, None, None, ArmReason.NO_USER)
        if assigned is None:
            return Assignment(self._default, None, None, ArmReason.NO_EXPERIMENT)
        return Assignment(self.adapters[assigned], assigned, assigned, ArmReason.ASSIGNED)

    def _requested(self, name: str) -> ServedAdapter:
        if not self._allow_override:
            raise AdapterForbiddenError(
                "this server does not allow requests to choose an adapter",
                remedy="leave `adapter` out, or set SOFTREC_ALLOW_ADAPTER_OVERRIDE=1 on the server",
            )
        for adapter in self.adapters.values():
            if name in (adapter.name, adapter.adapter_id):
                return adapter
        served = ", ".join(adapter.adapter_id for adapter in self.adapters.values())
        raise UnknownAdapterError(f"adapter {name!r} is not served; served: {served}")
