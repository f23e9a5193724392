"""The index of a shop whose catalog changes while it is served.

A `LiveIndex` shows one immutable `Snapshot` at a time, its `view`: the active version with every later change laid
over it. A change is written to the journal, then a new view takes the old one's place; who holds a view goes on with
it. When much lies over a version, `merge` writes a new one in the background: old vectors are copied, not embedded.

What other processes do to the same workspace (changes, a new version, the way back to an old one, another catalog) is
seen by `is_stale`, a few `stat` calls, and taken up by `refresh`. What cannot be taken up is kept in `problem`, and the
view stays as it was: it is out of date, never wrong in itself.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np

from index.catalog.catalog import Catalog, read_catalog
from index.catalog.changes import Change, change_catalog
from index.catalog.journal import Journal, Position
from index.errors import MismatchError, SoftrecError
from index.file_lock import file_lock
from index.live.background import Background
from index.live.outcome import Outcome, describe_outcome
from index.live.snapshot import Snapshot, load_active
from index.live.versions import ACTIVE, encode_titles, pad, read_active, write_version
from index.live.watch import Watch
from index.ranking.grounding import Grounder
from index.search.delta import DeltaSearch
from index.search.encoder import OneAtATime, TitleEncoder
from index.workspace import Workspace

MERGE_AT = 1000  # changes over a version; a search of so many added titles takes well under a millisecond

_PATIENCE_S = 10.0  # of a change that waits for others
_CATALOG, _JOURNAL, _ACTIVE = "catalog", "journal", "active"  # the files that others change


def advance(view: Snapshot, changes: Sequence[Change], position: Position) -> Snapshot:
    """Lay changes over a view: new titles are embedded, nothing else costs more than the changes so far.

    Raises:
        UnknownItemError: one patches or removes an item that is not there.
    """
    if not changes:
        return replace(view, changes=position)
    catalog = change_catalog(view.catalog, changes)
    index = view.grounder.index
    new = catalog.titles[len(index) :]
    if new or catalog.empty_rows != view.catalog.empty_rows:
        layered = index if isinstance(index, DeltaSearch) else DeltaSearch(index)
        index = layered.extended(encode_titles(new, view.grounder.encoder), catalog.empty_rows)
    return replace(
        view,
        catalog=catalog,
        grounder=Grounder(catalog, index, view.grounder.encoder, earlier=view.grounder),
        popularity=pad(view.popularity, len(catalog)) if new else view.popularity,
        changes=position,
    )


class LiveIndex:
    """See the module. Every method but `view` and `is_stale` may block; any thread may call any of them.

    Args:
        workspace: its catalog, journal and index.
        encoder: the one that the active version was built with; used by one thread at a time.
        merge_at: changes over a version at which it is merged in the background; 0: never.
        keep: versions kept by a merge, the new one included.
        note: told of what happens in the background.

    Raises:
        ArtifactError: the index, the catalog or the journal is missing, damaged or another's.
    """

    def __init__(
        self,
        workspace: Workspace,
        encoder: TitleEncoder,
        *,
        merge_at: int = MERGE_AT,
        keep: int = 3,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self._workspace = workspace
        self._encoder = OneAtATime(encoder)
        self._merge_at, self._keep, self._note = merge_at, keep, note
        self._lock = threading.Lock()  # of whoever makes the next view
        self._background = Background(note, self._merge_if_due)
        self._next_merge = merge_at
        self._due = threading.Lock()  # of whoever looks whether a merge is
        files = {_CATALOG: workspace.catalog_path, _JOURNAL: workspace.changes_path, _ACTIVE: self.index_dir / ACTIVE}
        self._watch = Watch(files, note)
        self._origin = read_catalog(workspace.catalog_path)
        self._journal = Journal(workspace.changes_path, self._origin.digest)
        self._version = self._load(self._origin)
        changes, end = self._journal.read(self._version.changes)
        self.view = advance(self._version, changes, end)

    @property
    def index_dir(self) -> Path:
        """Where the versions lie, and the tries beside them."""
        return self._workspace.index_dir

    @property
    def origin(self) -> Catalog:
        """The catalog as it was imported."""
        return self._origin

    @property
    def problem(self) -> SoftrecError | None:
        """Why the view is not what lies on disk, or None."""
        return self._watch.problem

    @property
    def pending(self) -> int:
        """How many changes the view lays over its version."""
        view = self.view
        return view.changes.changes - self._version.changes.changes

    def is_stale(self) -> bool:
        """Whether anything on disk is not as it was when it was last read: three `stat` calls."""
        return self._watch.is_stale()

    def refresh(self) -> None:
        """Take up what other processes did; when somebody is making a view already, leave it to them.

        Changes are in the view when this returns. A new version is loaded in the background.
        """
        if not self._lock.acquire(blocking=False):
            return
        try:
            self._look_at_catalog()
            self._look_at_journal()
            self._look_at_active()
        finally:
            self._lock.release()
        self._merge_if_due()

    def apply(self, change: Change) -> Outcome:
        """Make a change: when this returns it is on disk and in the view.

        Raises:
            UnknownItemError: it patches or removes an item that is not there; nothing is written.
            SoftrecError: what lies on disk cannot be taken up (see `problem`), so nothing can be built upon it.
            OSError: the journal cannot be written; TimeoutError: others have been changing the catalog for too long.
        """
        with self._turn(), self._journal.locked(timeout_s=_PATIENCE_S):
            self._look_at_catalog()
            self._look_at_journal()
            self._look_at_active()
            if self.problem:
                raise self.problem.with_traceback(None)  # raised again and again, it would grow
            before = after = self.view
            now = before.catalog.find_item(change.item_id)
            if change.apply_to(now) != now:
                after = advance(before, [change], before.changes)  # first: a title that cannot be embedded is refused
                position = self._journal.append([change], before.changes)
                self._watch.note_seen(_JOURNAL)
                self.view = after = replace(after, changes=position)
        self._merge_if_due()
        return describe_outcome(change.item_id, before, after)

    def merge(self) -> str | None:
        """Write a version that covers every change of the view and make it the active one.

        Returns:
            Its name; None when there is nothing to merge, another process is at it, or another version is active.
        """
        try:
            with file_lock(self.index_dir / ".merge.lock", timeout_s=0):
                name = self._write_merged()
        except TimeoutError:
            return None
        if name is not None:
            self._take_up_version()
        return name

    def _write_merged(self) -> str | None:
        view, version = self.view, self._version
        if view.changes.changes == version.changes.changes or self._active() != version.version:
            return None
        name = write_version(
            self.index_dir,
            self._origin,
            view.catalog,
            self._encoder,
            view.grounder.index.vectors(np.arange(len(view.catalog))),
            view.popularity,
            wish=version.wish,
            changes=(self._journal.copy(view.changes), view.changes),
            keep=self._keep,
            successor_of=version.version,
        )
        if name is None:
            self._note(f"index: the merge of {view.label} is given up, for {self._active()} was made active meanwhile")
        return name

    def close(self) -> None:
        """Wait for what runs in the background."""
        self._background.close()

    def _load(self, origin: Catalog) -> Snapshot:
        loaded = load_active(self.index_dir, encoder=self._encoder, origin=origin)
        self._journal.check_begins_with(loaded.changes)
        return loaded

    def _laid_over(self, origin: Catalog, changes: Sequence[Change], view: Snapshot) -> Snapshot:
        """Lay a view's changes, all since the import, over the same catalog with another availability."""
        catalog = change_catalog(origin, changes).compacted()
        grounder = Grounder(catalog, view.grounder.index, self._encoder, earlier=view.grounder)
        return replace(view, catalog=catalog, grounder=grounder)

    def _look_at_catalog(self) -> None:
        """Take up another availability; another catalog is a problem, for adapters and index are of this one."""
        if not self._watch.is_new(_CATALOG):
            return
        with self._watch.taking_up(_CATALOG):
            origin = read_catalog(self._workspace.catalog_path)
            if origin.digest != self._origin.digest:
                raise MismatchError(
                    f"{self._workspace.catalog_path}: replaced while it is in use",
                    expected=self._origin.digest[:12],
                    found=origin.digest[:12],
                    remedy="put the old one back, or train and index the new one and restart the server",
                )
            self._journal.check_begins_with(self.view.changes)
            changes, end = self._journal.read()
            view = advance(self.view, changes[self.view.changes.changes :], end)
            self.view, self._origin = self._laid_over(origin, changes, view), origin

    def _look_at_journal(self) -> None:
        if not self._watch.is_new(_JOURNAL):
            return
        with self._watch.taking_up(_JOURNAL):
            self._journal.check_begins_with(self.view.changes)
            changes, end = self._journal.read(self.view.changes)
            if changes:
                self.view = advance(self.view, changes, end)

    def _look_at_active(self) -> None:
        if self._watch.is_new(_ACTIVE):
            self._background.start(self._take_up_version)

    def _take_up_version(self) -> None:
        """Load the active version, lay over it what is newer, and show that."""
        with self._watch.taking_up(_ACTIVE):
            origin = self._origin
            loaded = self._load(origin)
            view = advance(loaded, *self._journal.read(loaded.changes))
            with self._lock:  # what was changed since, in the journal or in what is available
                view = advance(view, *self._journal.read(view.changes))
                if self._origin is not origin:
                    view = self._laid_over(self._origin, self._journal.read()[0], view)
                self.view, self._version = view, loaded
            with self._due:
                self._next_merge = self._merge_at
            self._note(f"index: {view.label} is in use")

    def _merge_if_due(self) -> None:
        with self._due:
            pending = self.pending
            if self._merge_at and pending >= self._next_merge and self._background.start(self.merge):
                self._next_merge = pending + self._merge_at  # a merge that fails is not tried again at once

    @contextmanager
    def _turn(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=_PATIENCE_S):
            raise TimeoutError(
                f"the catalog's changes have been taken up for {_PATIENCE_S:g} s, many new titles perhaps"
            )
        try:
            yield
        finally:
            self._lock.release()

    def _active(self) -> str:
        return read_active(self.index_dir)
