"""The journal of a catalog's changes: a table in SQLite, one row per change, appended to in whole batches.

    catalog_changes.db
      number  time   change                                    chain
      0                                                        3ded2c7c...   the imported catalog
      1       ...    {"op": "put", "item_id": "i900", ...}     77aa01d3...
      2       ...    {"op": "remove", "item_id": "i004"}       1f0c9b2e...

The first row stands for the catalog as it was imported. `chain` is a hash over the change and the chain before it, so
two journals with the same chain at the same number hold the same changes up to there. SQLite provides the rest: a batch
is in the journal or it is not, one process writes at a time, and `PRAGMA data_version` says whether another one wrote.
The database keeps a rollback journal instead of a WAL: then it is one file, which can be read without write permission.
"""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from index.artifact import text_digest
from index.catalog.catalog import Position
from index.catalog.changes import Change, parse_change
from index.errors import ArtifactError, CorruptArtifactError, MismatchError

Append = Callable[[Sequence[Change], Position], Position]

_TABLE = """CREATE TABLE IF NOT EXISTS changes (
    number INTEGER PRIMARY KEY, time TEXT NOT NULL, change TEXT NOT NULL, chain TEXT NOT NULL
) STRICT"""
_WAIT_S = 86_400.0  # where the caller names no limit
_READ_WAIT_S = 10.0  # a commit locks readers out for some milliseconds
_ERRNO = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
    sqlite3.SQLITE_NOMEM: errno.ENOMEM,
}


@dataclass(frozen=True)
class Journal:
    """The journal at `path` of a catalog that was imported at `start`. The file need not exist yet.

    Every method raises CorruptArtifactError where the file is damaged, MismatchError where it belongs to another
    catalog or is of an older softrec, TimeoutError where others hold its lock, and OSError where the system
    refuses to read or write it.
    """

    path: Path
    start: Position

    def read(self, after: Position | None = None, *, until: Position | None = None) -> tuple[list[Change], Position]:
        """Read the changes after a position, by default all since the import, and the position behind them.

        Args:
            after: the journal must hold it.
            until: the last one to read; the journal must hold it, too. None: read to the end.
        """
        after = after or self.start
        last = until.changes if until else 1 << 62
        with self._opened() as database:
            if after == self.start and database is not None:
                self._check_pages(database)
            rows = [] if database is None else self._select(database, after.changes, last)
        if not rows and after == self.start and self.is_empty():
            rows = [(after.changes, "", after.chain)]
        self._check_row(after, rows[0] if rows else None)
        changes, now = [], after
        for number, text, chain in rows[1:]:
            if number != now.changes + 1 or chain != _chain(now.chain, text):
                raise self._damaged(now.changes + 1, "it, or one before it, was changed after it was written")
            try:
                changes.append(parse_change(json.loads(text)))
            except ValueError as error:
                raise self._damaged(number, str(error)) from error
            now = Position(number, chain)
        if until is not None and now != until:
            self._check_row(until, (now.changes, "", now.chain))
        return changes, now

    def is_empty(self) -> bool:
        """Whether nothing was ever written to it."""
        with self._opened() as database:
            return database is None or not self._select(database, 0, 1 << 62, limit=1)

    @contextmanager
    def locked(self, *, timeout_s: float | None = None) -> Iterator[Append]:
        """Keep other processes from appending until this context ends or its `append` returns.

        Read the state inside, then call `append(changes, end)` at most once, where `end` is what `read` returned
        inside. It writes the batch as a whole and syncs it to the disk; it returns the new end.
        """
        self._check_format()
        waited_s = _WAIT_S if timeout_s is None else timeout_s
        with self._translated(waited_s), closing(_connect(self.path, "rwc", waited_s)) as database:
            database.execute("PRAGMA synchronous = EXTRA")
            database.execute("BEGIN IMMEDIATE")
            yield lambda changes, end: self._append(database, changes, end)

    def forget(self, until: Position) -> None:
        """Remove the changes before a position that an imported catalog covers; that position becomes the first row."""
        if self.is_empty():
            return
        with self._translated(_READ_WAIT_S), closing(_connect(self.path, "rw", _READ_WAIT_S)) as database:
            if database.execute("DELETE FROM changes WHERE number < ?", (until.changes,)).rowcount:
                database.execute("VACUUM")

    def set_aside(self) -> Path | None:
        """Rename the journal to the first free name beside it and return that; None: there is no journal."""
        if not self.path.exists():
            return None
        with self.locked():  # a writer that waits for this lock finds that its journal is not the one it has read
            number = 1
            while (aside := self.path.with_suffix(f".{number}{self.path.suffix}")).exists():
                number += 1
            return self.path.rename(aside)

    def _append(self, database: sqlite3.Connection, changes: Sequence[Change], end: Position) -> Position:
        database.execute(_TABLE)
        last = database.execute("SELECT number, change, chain FROM changes ORDER BY number DESC LIMIT 1").fetchone()
        if last is None and end == self.start:
            last = (end.changes, "", end.chain)
            database.execute("INSERT INTO changes VALUES (?, '', '', ?)", (end.changes, end.chain))
        self._check_row(end, last)
        time, now = datetime.now(UTC).isoformat(timespec="milliseconds"), end
        for change in changes:
            text = json.dumps(change.to_json(), ensure_ascii=False)
            now = Position(now.changes + 1, _chain(now.chain, text))
            database.execute("INSERT INTO changes VALUES (?, ?, ?, ?)", (now.changes, time, text, now.chain))
        database.execute("COMMIT")
        return now

    @contextmanager
    def _opened(self) -> Iterator[sqlite3.Connection | None]:
        """A connection for reading; None where there is no file."""
        self._check_format()
        if not self.path.exists():
            yield None
            return
        with self._translated(_READ_WAIT_S), closing(_connect(self.path, "rw", _READ_WAIT_S)) as database:
            yield database

    def _select(
        self, database: sqlite3.Connection, first: int, last: int, *, limit: int = -1
    ) -> list[tuple[int, str, str]]:
        if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
            return []  # a writer created the file and wrote nothing
        query = "SELECT number, change, chain FROM changes WHERE number BETWEEN ? AND ? ORDER BY number LIMIT ?"
        return database.execute(query, (first, last, limit)).fetchall()

    def _check_pages(self, database: sqlite3.Connection) -> None:
        [found] = database.execute("PRAGMA quick_check(1)").fetchone()
        if found != "ok":
            raise CorruptArtifactError(self.path, f"damaged ({found})", remedy=_ways_out(self.path))

    def _check_row(self, expected: Position, row: tuple[int, str, str] | None) -> None:
        """Check that the journal's row at a position is the one expected; None: there is no such row."""
        found = None if row is None else Position(row[0], row[2])
        if found == expected:
            return
        what = f"the first {expected.changes} changes" if expected.changes else "catalog that was changed"
        same = found is not None and found.changes == expected.changes
        raise MismatchError(
            f"{self.path}: {what}",
            expected=expected.chain[:12],
            found=found.chain[:12] if found and same else "other ones or fewer",
            remedy=_ways_out(self.path),
        )

    def _check_format(self) -> None:
        old = self.path.with_suffix(".jsonl")
        if old.exists():
            raise ArtifactError(
                f"{old}: changes of the catalog as an earlier softrec kept them",
                remedy="move the file away; to keep its changes, put them into items.csv and run `softrec init "
                f"--force`; then build the index again with `softrec index {self.path.parent}`",
            )

    def _damaged(self, number: int, why: str) -> CorruptArtifactError:
        return CorruptArtifactError(self.path, f"change {number} cannot be used: {why}", remedy=_ways_out(self.path))

    @contextmanager
    def _translated(self, waited_s: float) -> Iterator[None]:
        try:
            yield
        except (sqlite3.DatabaseError, UnicodeDecodeError) as error:  # of a damaged text in an error's message
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_CORRUPT) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise TimeoutError(f"{self.path}: another writer has held it for {waited_s:g} s") from None
            if code in _ERRNO:
                raise OSError(_ERRNO[code], str(error), str(self.path)) from error
            raise CorruptArtifactError(self.path, str(error), remedy=_ways_out(self.path)) from error


class JournalStamp:
    """Says whether a journal was written to, at the cost of a `stat` call and a read lock. Threads may share one."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._database: sqlite3.Connection | None = None
        self._opened = (0, 0)  # how often, and the inode

    def read(self) -> object:
        """Return a value that changes with every commit and with a replaced file."""
        with self._lock:
            try:
                found = os.stat(self._path)
            except OSError:
                return None
            try:
                if self._database is None or self._opened[1] != found.st_ino:
                    self.close()
                    self._database = _connect(self._path, "rw", 0.0)
                    self._opened = self._opened[0] + 1, found.st_ino
                version = self._database.execute("PRAGMA data_version").fetchone()[0]
            except sqlite3.Error:  # a commit is in progress, or the file is damaged
                return object()
            return *self._opened, found.st_size, found.st_mtime_ns, version

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None


def _connect(path: Path, mode: str, timeout_s: float) -> sqlite3.Connection:
    database = sqlite3.connect(
        f"{path.resolve().as_uri()}?mode={mode}",
        uri=True,
        timeout=timeout_s,
        isolation_level=None,
        check_same_thread=False,
    )
    database.text_factory = lambda data: data.decode(errors="replace")  # damage shows in the chain
    return database


def _ways_out(path: Path) -> str:
    return (
        "put an undamaged copy back, or move it away to give its changes up and build the index again with "
        f"`softrec index {path.parent}`"
    )


def _chain(before: str, change: str) -> str:
    return text_digest(before, change)[:16]
