"""The index of a shop whose catalog changes while it is served.

A `LiveIndex` holds the current `Snapshot`: the active version with every later change laid over it. A change is written
to the journal, then a new snapshot replaces the old one; a request that holds the old one keeps it. When many changes
lie over a version, `merge` writes a new one in the background: old vectors are copied, not embedded.

Other processes change the same workspace: they append changes, make another version active, or fold the changes into a
new imported catalog. `is_stale` sees that at the cost of three `stat` calls, and `refresh` loads it: changes at
once, another version in the background. If it cannot, `problem` says why and the snapshot stays as it was: out of date,
but consistent.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

from index.catalog.catalog import Catalog, read_catalog
from index.catalog.changes import Change
from index.catalog.journal import Journal, JournalStamp
from index.errors import MismatchError, SoftrecError
from index.file_lock import file_lock
from index.live.background import Background
from index.live.outcome import ChangeOutcome, describe_outcome
from index.live.snapshot import Snapshot, load_active
from index.live.versions import ACTIVE, find_active, write_version
from index.search.encoder import OneAtATime, TitleEncoder
from index.workspace import Workspace

MERGE_AT = 1000  # changes over a version; a search of so many added titles takes well under a millisecond
MERGE_LOCK = ".merge.lock"  # in the index folder: held during a merge or a rebase

_KEEP = 3  # versions that a merge leaves, the new one included
_PATIENCE_S = 10.0  # how long a change waits for others


class _Stamp(NamedTuple):
    """What differs when a file was replaced or written to."""

    catalog: object
    active: object
    journal: object


class LiveIndex:
    """See the module. Every method but `is_stale` may block; any thread may call any of them.

    Args:
        workspace: its catalog, journal and index.
        encoder: the one that the active version was built with; used by one thread at a time.
        merge_at: changes over a version at which it is merged in the background; 0: never.
        note: receives lines about what happens in the background.

    Raises:
        ArtifactError: the index, the catalog or the journal is missing, damaged or another's.
    """

    def __init__(
        self,
        workspace: Workspace,
        encoder: TitleEncoder,
        *,
        merge_at: int = MERGE_AT,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._workspace = workspace
        self._encoder = OneAtATime(encoder)
        self._merge_at, self._note = merge_at, note
        self._lock = threading.RLock()  # held while the next snapshot is made
        self._background = Background(note, self._merge_if_due)
        self._due = threading.Lock()  # held while a merge is considered
        self._next_merge = merge_at
        self._journal_stamp = JournalStamp(workspace.changes_path)
        self.problem: SoftrecError | None = None  # why the snapshot differs from the disk
        self._seen = self._stamp()
        self._version = self._load_version(read_catalog(workspace.catalog_path))
        self.snapshot = self._up_to_date(self._version)

    @property
    def index_dir(self) -> Path:
        """Where the versions lie, and the tries beside them."""
        return self._workspace.index_dir

    @property
    def pending(self) -> int:
        """How many changes the snapshot lays over its version."""
        return self.snapshot.position.changes - self._version.position.changes

    def is_stale(self) -> bool:
        """Whether anything on disk differs from when it was last read: three `stat` calls and a read lock."""
        return self._stamp() != self._seen

    def refresh(self) -> None:
        """Load the changes of other processes, unless another thread is making a snapshot already.

        Changes and another imported catalog are shown when this returns; another version is loaded in the background.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._catch_up()
        finally:
            self._lock.release()
        self._merge_if_due()

    def apply(self, change: Change) -> ChangeOutcome:
        """Make a change: when this returns it is on disk and in the snapshot.

        Raises:
            UnknownItemError: it patches or removes an item that does not exist; nothing is written.
            SoftrecError: the state on disk cannot be loaded (see `problem`), so no change can follow it.
            OSError: the journal cannot be written; TimeoutError: others have been changing the catalog for too long.
        """
        with self._turn(), self._journal(self.snapshot.imported).locked(timeout_s=_PATIENCE_S) as append:
            self._catch_up()
            if self.problem:
                raise self.problem.with_traceback(None)  # raised again and again, it would grow
            before = after = self.snapshot
            item = before.catalog.find_item(change.item_id)
            if change.apply_to(item) != item:
                after = before.advance([change], before.position)  # first: a title may be refused by the encoder
                self.snapshot = after = replace(after, position=append([change], before.position))
        self._merge_if_due()
        return describe_outcome(change.item_id, before, after)

    def merge(self) -> str | None:
        """Write a version that covers every change of the snapshot and make it the active one.

        Returns:
            Its name; None when there is nothing to merge, another process is at it, or another version is active.
        """
        try:
            with file_lock(self.index_dir / MERGE_LOCK, timeout_s=0):
                name = self._write_merged()
        except TimeoutError:
            return None
        if name is not None:
            self._reload()
        return name

    def close(self) -> None:
        """Wait for the background job."""
        self._background.close()
        self._journal_stamp.close()

    def _write_merged(self) -> str | None:
        with self._lock:
            snapshot, version = self.snapshot, self._version
        if snapshot.position == version.position or self._active() != version.version:
            return None
        name = write_version(
            self.index_dir,
            snapshot.catalog,
            snapshot.position,
            self._encoder,
            snapshot.grounder.index.vectors(np.arange(len(snapshot.catalog))),
            snapshot.popularity,
            request=version.search_request,
            keep=_KEEP,
            successor_of=version.version,
        )
        if name is None:
            self._note(f"index: the merge of {snapshot.label} is given up: {self._active()} was made active meanwhile")
        return name

    def _catch_up(self) -> None:
        """Load new changes or another catalog from disk, another version in the background. Call it under `_lock`."""
        seen, stamp = self._seen, self._stamp()
        if stamp == seen:
            return
        if self.problem or stamp.catalog != seen.catalog:
            self._reload()
            return
        if stamp.journal != seen.journal:
            with self._taking_up(stamp._replace(active=seen.active)):
                self.snapshot = self._up_to_date(self.snapshot)
        if stamp.active != seen.active:
            self._background.start(self._reload)

    def _reload(self) -> None:
        """Load the imported catalog, the active version and the journal, and make that the snapshot."""
        with self._taking_up(stamp := self._stamp()):
            imported = read_catalog(self._workspace.catalog_path)
            known = self.snapshot.imported.digest
            if known not in (imported.digest, *imported.earlier_digests):
                raise MismatchError(
                    f"{self._workspace.catalog_path}: replaced while it is in use",
                    expected=known[:12],
                    found=imported.digest[:12],
                    remedy="put the old one back, or train and index the new one and restart the server",
                )
            if (shown := self.snapshot.position).changes >= imported.imported_at.changes:
                self._journal(imported).read(shown)  # changes that were shown must still be there
            version = self._load_version(imported)
            snapshot = self._up_to_date(version.succeed(self.snapshot))
            with self._lock:
                if not self._is_latest(stamp):
                    return
                self.snapshot, self._version = self._up_to_date(snapshot), version  # with the changes made meanwhile
            with self._due:
                self._next_merge = self._merge_at
            self._note(f"index: {self.snapshot.label} is in use")

    def _load_version(self, imported: Catalog) -> Snapshot:
        return load_active(self.index_dir, imported, self._journal(imported), encoder=self._encoder)

    def _up_to_date(self, snapshot: Snapshot) -> Snapshot:
        return snapshot.advance(*self._journal(snapshot.imported).read(snapshot.position))

    @contextmanager
    def _taking_up(self, stamp: _Stamp) -> Iterator[None]:
        """Read the state with a stamp inside; an error inside is kept as `problem`, not raised.

        Damaged or foreign files are read again when their stamp differs. Files that the system refused to read
        (OSError) may be readable the next time, so they are read again at the next look.
        """
        self._seen = stamp
        try:
            yield
        except (SoftrecError, OSError) as error:
            if not self._is_latest(stamp):
                return
            if isinstance(error, OSError):
                self._seen = _Stamp(object(), object(), object())
            before, self.problem = self.problem, error if isinstance(error, SoftrecError) else SoftrecError(str(error))
            if str(before) != str(self.problem):  # else it is the same at each look
                self._note(f"index: {self.problem}")
        else:
            if self._is_latest(stamp):
                self.problem = None

    def _is_latest(self, stamp: _Stamp) -> bool:
        """Whether no thread has read another catalog or version since this stamp was taken."""
        return (self._seen.catalog, self._seen.active) == (stamp.catalog, stamp.active)

    def _merge_if_due(self) -> None:
        with self._due:
            pending = self.pending
            if self._merge_at and pending >= self._next_merge and self._background.start(self.merge):
                self._next_merge = pending + self._merge_at  # a merge that fails is not tried again at once

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=_PATIENCE_S):
            raise TimeoutError(
                f"the catalog's changes have been loading for {_PATIENCE_S:g} s, many new titles perhaps"
            )
        try:
            yield
        finally:
            self._lock.release()

    def _journal(self, imported: Catalog) -> Journal:
        return Journal(self._workspace.changes_path, imported.imported_at)

    def _active(self) -> str:
        return find_active(self.index_dir, self.snapshot.imported)

    def _stamp(self) -> _Stamp:
        return _Stamp(_sign(self._workspace.catalog_path), _sign(self.index_dir / ACTIVE), self._journal_stamp.read())


def _sign(path: Path) -> object:
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size
