"""What can go wrong while serving.

    SoftrecError
    └── ServingError
        ├── OverloadedError          too many requests wait already; try later (503, Retry-After)
        ├── DeadlineError            no answer within the request's deadline (504)
        ├── NotReadyError            a part that /recommend needs does not work (503, Retry-After)
        ├── EngineUnavailableError   the engine died or does not answer (503, Retry-After)
        ├── EngineHungError          the engine's process runs but writes nothing; /readyz only (503, Retry-After)
        ├── StoreUnavailableError    the event store does not answer (503, Retry-After)
        ├── AdapterForbiddenError    a request names its adapter without permission (403)
        ├── UnknownAdapterError      a request names an adapter that is not served (422)
        ├── ItemChangesForbiddenError a request changes the catalog without permission (403)
        ├── UnknownItemError         a request changes an item that the catalog does not have (404)
        ├── InvalidItemError         a request gives an item an invalid title (422)
        ├── CatalogConflictError     the catalog or index on disk is not the one in use; nothing was changed (409)
        ├── CatalogUnwritableError   the disk refuses a change (503, Retry-After)
        ├── AdapterProofError        at start: an adapter's log-probabilities differ from training's
        ├── EngineStartError         at start: the engine does not start
        └── SettingsError            at start: a setting has an invalid value

`serving.http.problems` maps each to a status and code.
"""

from __future__ import annotations

from index.errors import SoftrecError


class ServingError(SoftrecError):
    """A request or a server failed."""


class OverloadedError(ServingError):
    """The queue is full; try again after `retry_after_s`."""

    def __init__(self, message: str, *, retry_after_s: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class DeadlineError(ServingError):
    """No answer within the request's deadline."""


class NotReadyError(ServingError):
    """The server runs but cannot answer `/recommend` now."""


class EngineUnavailableError(ServingError):
    """The engine's process died or does not answer."""


class EngineHungError(ServingError):
    """The engine's process runs but writes nothing."""


class StoreUnavailableError(ServingError):
    """The event store could not be read or written."""


class AdapterForbiddenError(ServingError):
    """This server does not let requests name their adapter."""


class UnknownAdapterError(ServingError):
    """A request names an adapter that this server does not serve."""


class ItemChangesForbiddenError(ServingError):
    """This server does not let requests change the catalog."""


class UnknownItemError(ServingError):
    """A patch or removal of an item that the catalog does not have."""


class InvalidItemError(ServingError):
    """An invalid title or category. Nothing was changed."""


class CatalogConflictError(ServingError):
    """The workspace does not hold what is served. Nothing was changed."""


class CatalogUnwritableError(ServingError):
    """The journal cannot be written. Nothing was changed."""


class AdapterProofError(ServingError):
    """An adapter's log-probabilities disagree with its golden prompts, or equal the bare base's."""


class EngineStartError(ServingError):
    """The engine did not start."""


class SettingsError(ServingError):
    """A serving setting has an invalid value."""
