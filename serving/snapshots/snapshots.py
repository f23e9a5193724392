"""Which state of the catalog a request is answered from: the newest when it comes in, and that one to its end."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.catalog.catalog import Catalog
from index.errors import SoftrecError
from index.live.live import LiveIndex
from index.live.snapshot import Snapshot
from index.ranking.ranking import Ranker
from index.titles.trie_store import TitleTokenization
from serving.engine.title_tries import TitleTries
from serving.schema import IndexUsed
from serving.snapshots.candidates import CandidateSelector
from serving.threads import Threads

_PATIENCE_S = 0.25  # requests wait so long for what another process changed; after that the last view answers
_RETRY_S = 1.0  # between two tries of a renewal that fails

_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class ServedView:
    """A state of the index, with what requests need of it. It never changes.

    Attributes:
        tries: what adapters that write in the catalog may write, by the digest of their spelling.
    """

    index: Snapshot
    selector: CandidateSelector
    ranker: Ranker
    tries: Mapping[str, TitleTries]

    @classmethod
    def of(
        cls,
        index: Snapshot,
        open_tries: Callable[[Catalog], Mapping[str, TitleTries]] = lambda catalog: {},
        earlier: ServedView | None = None,
    ) -> ServedView:
        """Prepare a view; cheap when it differs from an earlier one by a few changes.

        Args:
            open_tries: called when there are other titles than in the earlier view.
        """
        if earlier is None or earlier.index.version != index.version:
            ranker = Ranker(index.grounder, index.popularity)
            return cls(index, CandidateSelector(index.catalog), ranker, open_tries(index.catalog))
        selector = CandidateSelector(index.catalog, earlier=earlier.selector)
        ranker = Ranker(index.grounder, index.popularity, earlier=earlier.ranker)
        same_titles = len(index.catalog) == len(earlier.index.catalog)
        return cls(index, selector, ranker, earlier.tries if same_titles else open_tries(index.catalog))

    @property
    def popular(self) -> NDArray[np.int64]:
        """Rows, the most popular first."""
        return self.ranker.popular

    @property
    def used(self) -> IndexUsed:
        """What an answer says of it."""
        return IndexUsed(version=self.index.label, encoder=self.index.encoder_name)


class Snapshots:
    """Follows a live index: what this process changed and what others did.

    Args:
        live: stays the caller's to close.
        spellings: of the adapters that write in the catalog, by digest.
    """

    def __init__(self, live: LiveIndex, spellings: Mapping[str, TitleTokenization] | None = None) -> None:
        self._live = live
        # The large trie is that of the catalog as imported, for ever: what was added since lies in small ones
        self._spellings = dict(spellings or {})
        self._tries: Mapping[str, TitleTries] = {
            digest: TitleTries.open(live.index_dir, live.origin, spelling)
            for digest, spelling in self._spellings.items()
        }
        self.served = ServedView.of(live.view, self._open_tries)  # as of the last look
        self._thread = Threads("renewal", 1)
        self._renewal: asyncio.Task[None] | None = None
        self._patient_until = 0.0  # by time.monotonic(), like the next
        self._retry_at = 0.0
        self.failure: SoftrecError | OSError | None = None  # of the last renewal: why `served` is not the newest

    @property
    def outdated(self) -> bool:
        """Whether there is something that cannot be taken up: in the workspace, or because a renewal failed."""
        return self._live.problem is not None or self.failure is not None

    async def current(self) -> ServedView:
        """Return the newest view. Costs a few `stat` calls when nothing was changed.

        Where the newest cannot be prepared, a full disk say, the one before goes on, `outdated` says so, and it is
        tried again every second.
        """
        new = self.served.index is not self._live.view or self._live.is_stale()
        if new and (self.failure is None or time.monotonic() >= self._retry_at):
            renewal = self._renewed()
            await asyncio.wait([renewal], timeout=max(0.0, self._patient_until - time.monotonic()))
            if renewal.done():
                renewal.result()
        return self.served

    async def catch_up(self) -> None:
        """Return when the view is as new as the live index was at the call, or `failure` says why it is not."""
        wanted = self._live.view
        while self.served.index.changes.changes < wanted.changes.changes:
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
        """The renewal in progress; a new one where there is none."""
        if self._renewal is None or self._renewal.done():
            self._renewal = asyncio.create_task(self._thread.run(self._renew))
            self._patient_until = time.monotonic() + _PATIENCE_S
        return self._renewal

    def _renew(self) -> None:
        try:
            if self._live.is_stale():
                self._live.refresh()
            view = self._live.view
            if view is not self.served.index:
                self.served = ServedView.of(view, self._open_tries, self.served)
            self.failure = None
        except (SoftrecError, OSError) as error:
            if str(error) != str(self.failure):
                _LOG.error("the last view of the catalog goes on, for the newest cannot be prepared: %s", error)
            self.failure = error.with_traceback(None)  # it would keep alive what was being made
            self._retry_at = time.monotonic() + _RETRY_S

    def _open_tries(self, catalog: Catalog) -> Mapping[str, TitleTries]:
        self._tries = {digest: tries.grown(catalog, self._spellings[digest]) for digest, tries in self._tries.items()}
        return self._tries
