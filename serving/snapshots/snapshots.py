"""The snapshot of a request: the newest when it arrives, and the same one to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Mapping
from pathlib import Path

from index.errors import SoftrecError
from index.live.live import LiveIndex
from index.live.snapshot import Snapshot
from index.titles.trie_store import TitleTokenization
from serving.engine.title_tries import TitleTries
from serving.schema import IndexUsed
from serving.threads import Threads

_PATIENCE_S = 0.25  # requests wait so long for changes of other processes; then the last snapshot answers
_RETRY_S = 1.0  # between two tries of a renewal that fails

_LOG = logging.getLogger(__name__)


class StoredTries:
    """The tries of one snapshot's titles where the engine finds them, by the digest of their tokenization."""

    def __init__(self, snapshot: Snapshot, by_tokenization: Mapping[str, TitleTries]) -> None:
        self.imported_as, self.rows = _import_of(snapshot), len(snapshot.catalog)
        self.by_tokenization = by_tokenization


def _import_of(snapshot: Snapshot) -> tuple[str, int]:
    return snapshot.imported.digest, snapshot.imported.imported_at.changes  # the rows of one import never move


class _DeriveTries:
    """Makes `StoredTries`, see `index.live.snapshot.Derivation`.

    The large trie is always that of the imported catalog; titles added since are in small ones.
    """

    def __init__(self, index_dir: Path, tokenizations: Mapping[str, TitleTokenization]) -> None:
        self._index_dir, self._tokenizations = index_dir, dict(tokenizations)

    def derive(self, snapshot: Snapshot, earlier: StoredTries | None) -> StoredTries:
        if earlier is None or earlier.imported_as != _import_of(snapshot):
            tries = {
                digest: TitleTries.open(self._index_dir, snapshot.imported, tokenization)
                for digest, tokenization in self._tokenizations.items()
            }
        elif earlier.rows == len(snapshot.catalog):
            return earlier
        else:
            tries = dict(earlier.by_tokenization)
        if len(snapshot.catalog) > len(snapshot.imported):
            tries = {digest: one.grown(snapshot.catalog, self._tokenizations[digest]) for digest, one in tries.items()}
        return StoredTries(snapshot, tries)


def index_used(snapshot: Snapshot) -> IndexUsed:
    """Describe a snapshot as answers do."""
    return IndexUsed(version=snapshot.label, encoder=snapshot.encoder_name)


class Snapshots:
    """Follows a live index: the changes of this process and of others.

    Args:
        live: stays the caller's to close.
        tokenizations: of the adapters with constrained decoding, by digest.

    Attributes:
        served: the snapshot that requests are answered from, as of the last look.
        failure: why `served` is not the newest: the error of the last renewal, or None.
    """

    def __init__(self, live: LiveIndex, tokenizations: Mapping[str, TitleTokenization] | None = None) -> None:
        self._live = live
        self._tries = _DeriveTries(live.index_dir, tokenizations or {})
        self.served = self._prepared(live.snapshot)
        self.failure: SoftrecError | OSError | None = None
        self._thread = Threads("renewal", 1)
        self._renewal: asyncio.Task[None] | None = None
        self._patient_until = 0.0  # by time.monotonic(), like the next
        self._retry_at = 0.0

    @property
    def outdated(self) -> bool:
        """Whether `served` is out of date: the workspace has a problem, or a renewal failed."""
        return self._live.problem is not None or self.failure is not None

    def tries(self, snapshot: Snapshot) -> Mapping[str, TitleTries]:
        """Return the tries for adapters with constrained decoding, by the digest of their tokenization."""
        return snapshot.get(self._tries).by_tokenization

    async def current(self) -> Snapshot:
        """Return the newest snapshot. Costs a few `stat` calls when nothing was changed.

        If the newest cannot be prepared (a full disk, say), the one before stays, `outdated` says so, and the next try
        follows after a second.
        """
        new = self.served is not self._live.snapshot or self._live.is_stale()
        if new and (self.failure is None or time.monotonic() >= self._retry_at):
            renewal = self._renewed()
            await asyncio.wait([renewal], timeout=max(0.0, self._patient_until - time.monotonic()))
            if renewal.done():
                renewal.result()
        return self.served

    async def catch_up(self) -> None:
        """Return when `served` is as new as the live index was at the call, or `failure` says why it is not."""
        target = self._live.snapshot.position
        while self.served.position.changes < target.changes:
            renewal = self._renewed()
            await asyncio.wait([renewal])
            renewal.result()
            if self.failure is not None:
                return

    async def close(self) -> None:
        """Wait for a renewal in progress."""
        if self._renewal is not None:
            await asyncio.wait([self._renewal])
        self._thread.close()

    def _renewed(self) -> asyncio.Task[None]:
        """The renewal in progress; a new one if there is none."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._thread.run(self._renew))
            self._patient_until = time.monotonic() + _PATIENCE_S
        return self._renewal

    def _renew(self) -> None:
        try:
            if self._live.is_stale():
                self._live.refresh()
            if self.served is not (newest := self._live.snapshot):
                self.served = self._prepared(newest)
            self.failure = None
        except (SoftrecError, OSError) as error:
            if str(error) != str(self.failure):
                _LOG.error("the newest snapshot of the catalog cannot be prepared, the last one stays: %s", error)
            self.failure = error.with_traceback(None)  # it would keep the unfinished snapshot alive
            self._retry_at = time.monotonic() + _RETRY_S

    def _prepared(self, snapshot: Snapshot) -> Snapshot:
        """Derive what requests need, here and not in the event loop."""
        snapshot.slots  # noqa: B018
        snapshot.get(self._tries)
        return snapshot
