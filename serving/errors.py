"""What can go wrong while serving. `serving.http.problems` maps each error of a request to a status and a code."""

from __future__ import annotations

from index.errors import SoftrecError


class ServingError(SoftrecError):
    """A request or a server failed."""


class OverloadedError(ServingError):
    """The queue is full; try again after `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: int) -> None:
        super().__init__(message)
        self.retry_after_s = retry_after_s


class DeadlineError(ServingError):
    """No answer within the request's deadline."""


class NotReadyError(ServingError):
    """The server runs but cannot answer `/recommend` now."""


class EngineUnavailableError(ServingError):
    """The engine's process died or does not answer."""


class EngineHungError(ServingError):
    """The engine's process runs but writes nothing; `/readyz` alone says so."""


class StoreUnavailableError(ServingError):
    """The event store could not be read or written."""


class AdapterForbiddenError(ServingError):
    """This server does not let requests name their adapter."""


class UnknownAdapterError(ServingError):
    """A request names an adapter that this server does not serve."""


class ItemChangesForbiddenError(ServingError):
    """This server does not let requests change the catalog."""


class NoSuchItemError(ServingError):
    """A patch or removal of an item that the catalog does not have."""


class InvalidItemError(ServingError):
    """An invalid title or category. Nothing was changed."""


class CatalogConflictError(ServingError):
    """The catalog or index on disk is not the served one. Nothing was changed."""


class CatalogUnwritableError(ServingError):
    """The journal cannot be written. Nothing was changed."""


class AdapterProofError(ServingError):
    """At start: an adapter's log-probabilities disagree with its golden prompts, or equal the bare base's."""


class EngineStartError(ServingError):
    """At start: the engine did not start."""


class SettingsError(ServingError):
    """At start: a serving setting has an invalid value."""
