"""What can go wrong while serving.

    SoftrecError
    └── ServingError
        ├── OverloadedError          too many requests wait already; try later (503, Retry-After)
        ├── DeadlineError            the caller's time is over (504)
        ├── NotReadyError            a part that /recommend needs does not work (503, Retry-After)
        ├── EngineUnavailableError   the engine died or does not answer (503, Retry-After)
        ├── EngineHungError          the engine's process lives but writes nothing; /readyz only (503, Retry-After)
        ├── StoreUnavailableError    the event store does not answer (503, Retry-After)
        ├── AdapterForbiddenError    a request names its adapter and may not (403)
        ├── UnknownAdapterError      a request names an adapter that is not served (422)
        ├── ItemChangesForbiddenError a request changes the catalog and may not (403)
        ├── UnknownItemError         a request changes an item that the catalog does not have (404)
        ├── InvalidItemError         a request gives an item a title that it cannot have (422)
        ├── CatalogConflictError     the catalog or index on disk is not the one in use, so it is not changed (409)
        ├── CatalogUnwritableError   a change cannot be written to the disk (503, Retry-After)
        ├── AdapterProofError        at start: an adapter does not do what it did in training
        ├── EngineStartError         at start: the engine does not come up
        └── SettingsError            at start: a setting has a value that it cannot take

`serving.http.problems` says which status and code each becomes.
"""

from __future__ import annotations

from index.errors import SoftrecError


class ServingError(SoftrecError):
    """A request or a server cannot go on."""


class OverloadedError(ServingError):
    """The queue is full; `retry_after_s` is when to come again."""

    def __init__(self, message: str, *, retry_after_s: int, remedy: str | None = None) -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after_s = retry_after_s


class DeadlineError(ServingError):
    """The answer did not come within the request's time."""


class NotReadyError(ServingError):
    """The server runs but cannot answer `/recommend` now."""


class EngineUnavailableError(ServingError):
    """The engine's process died or does not answer."""


class EngineHungError(ServingError):
    """The engine's process lives, but it writes nothing."""


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
    """A title or category that no item can have. Nothing was changed."""


class CatalogConflictError(ServingError):
    """What lies in the workspace is not what is served, so nothing can be built upon it. Nothing was changed."""


class CatalogUnwritableError(ServingError):
    """The journal cannot be written. Nothing was changed."""


class AdapterProofError(ServingError):
    """An adapter's log-probabilities disagree with its golden prompts, or equal the bare base's."""


class EngineStartError(ServingError):
    """The engine did not come up."""


class SettingsError(ServingError):
    """A serving setting has a value that it cannot take."""
