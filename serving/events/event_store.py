"""The event store: what users did and what they were shown. It is the truth; every cache can be rebuilt from it.

SQLite (WAL) in the workspace, or Postgres by URL. The only module that imports sqlalchemy. Its methods block: an event
loop calls them in the store's own threads, `reads` and `writes`.
"""

from __future__ import annotations

import secrets
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from serving.errors import SettingsError, StoreUnavailableError
from serving.events.interaction_log import LoggedInteraction
from serving.threads import Threads

HISTORY_TYPES = ("interaction", "purchase")
_BUSY_TIMEOUT_MS = 5_000
_THREADS = 4  # of readers, and of writers; together fewer than the connections of SQLAlchemy's pool
_POSTGRES = "postgresql+psycopg"
_DRIVERS = {"sqlite": "sqlite", _POSTGRES: _POSTGRES, "postgresql": _POSTGRES, "postgres": _POSTGRES}
_SETUP_LOCK = 0x50F7_12EC  # of Postgres, for its whole database: ours alone

_metadata = sa.MetaData()

_events = sa.Table(
    "events",
    _metadata,
    # BIGINT in Postgres; SQLite numbers rows itself only in an INTEGER column
    sa.Column("sequence", sa.BigInteger().with_variant(sa.Integer, "sqlite"), sa.Identity(), primary_key=True),
    sa.Column("event_id", sa.String, unique=True),  # null in rows imported from the interaction log
    sa.Column("user_id", sa.String, nullable=False),
    sa.Column("item_id", sa.String, nullable=False),
    sa.Column("type", sa.String, nullable=False),
    sa.Column("timestamp", sa.BigInteger, nullable=False),  # seconds since 1970, or only an order
    sa.Column("request_id", sa.String),
    sa.Index("events_of_user", "user_id", "timestamp", "sequence"),
)

_decisions = sa.Table(
    "decisions",
    _metadata,
    sa.Column("request_id", sa.String, primary_key=True),
    sa.Column("user_id", sa.String),
    sa.Column("experiment", sa.String),
    sa.Column("arm_assigned", sa.String),
    sa.Column("arm_served", sa.String),
    sa.Column("reason", sa.String, nullable=False),
    sa.Column("adapter_id", sa.String),
    sa.Column("index_version", sa.String, nullable=False),
    sa.Column("items", sa.JSON, nullable=False),  # as answered: id, rank, score, source
    sa.Column("degraded", sa.JSON, nullable=False),
    sa.Column("details", sa.JSON),  # prompt ids and generation, when the request said explain
    sa.Column("created", sa.Float, nullable=False),  # seconds since 1970
    sa.Index("decisions_of_user", "user_id", "created"),
)

_imports = sa.Table(
    "imports",
    _metadata,
    sa.Column("digest", sa.String, primary_key=True),
    sa.Column("rows", sa.BigInteger, nullable=False),
    sa.Column("created", sa.Float, nullable=False),
)

_identity = sa.Table("identity", _metadata, sa.Column("token", sa.String, primary_key=True))  # one row


@dataclass(frozen=True)
class StoredEvent:
    """An event as it is stored; `timestamp` in seconds since 1970."""

    event_id: str
    user_id: str
    item_id: str
    type: str
    timestamp: int
    request_id: str | None


@dataclass(frozen=True)
class Decision:
    """One answer of `/recommend`: the arm, the reason and the items shown."""

    request_id: str
    user_id: str | None
    experiment: str | None
    arm_assigned: str | None
    arm_served: str | None
    reason: str
    adapter_id: str | None
    index_version: str
    items: list[dict[str, Any]]
    degraded: list[str]
    details: dict[str, Any] | None = None


class EventStore:
    """An open event store. Every method raises StoreUnavailableError when the database does not answer.

    Attributes:
        reads: threads for `history` and `ping`. In SQLite a reader does not wait for a writer.
        writes: threads for `add_events` and `record_decision`, which wait for other writers.
    """

    def __init__(self, engine: sa.Engine) -> None:
        self.reads = Threads("store-read", _THREADS)
        self.writes = Threads("store-write", _THREADS)
        self._engine = engine
        self._insert = postgresql.insert if engine.dialect.name == "postgresql" else sqlite.insert

    @classmethod
    def open(cls, url: str | sa.URL) -> EventStore:
        """Open the store at a URL and create missing tables. Several processes may do so at once.

        Raises:
            SettingsError: the URL is invalid or names another kind of database.
            StoreUnavailableError: the database does not answer, is damaged, or refuses to create tables.
        """
        try:
            engine = sa.create_engine(_read_url(url), pool_pre_ping=True, hide_parameters=True)
        except ImportError as error:
            raise SettingsError(
                f"the event store's database driver is not installed ({error})",
                remedy="install softrec's `postgres` extra",
            ) from error
        if engine.dialect.name == "sqlite":
            sa.event.listen(engine, "connect", _prepare_sqlite)
        store = cls(engine)
        try:
            with store._transaction() as connection:
                store._lock_setup(connection)
                _metadata.create_all(connection)
                if connection.execute(sa.select(_identity)).first() is None:
                    connection.execute(sa.insert(_identity).values(token=_new_token()))
        except BaseException as error:
            store.close()  # or the pool keeps its connection to the server
            if not isinstance(error, sa.exc.ProgrammingError):
                raise
            raise StoreUnavailableError(
                f"cannot create the event store's tables: {_one_line(error)}",
                remedy="allow its user to create tables in that database",
            ) from error
        return store

    @classmethod
    def open_file(cls, path: Path) -> EventStore:
        """Open the store in a SQLite file."""
        path.parent.mkdir(parents=True, exist_ok=True)
        return cls.open(sa.URL.create("sqlite", database=str(path)))

    def token(self) -> str:
        """Return a random name of this content: every new database and every imported log gets another."""
        with self._transaction() as connection:
            return str(connection.execute(sa.select(_identity.c.token)).scalar_one())

    def import_log(self, digest: str, batches: Iterable[Sequence[LoggedInteraction]]) -> int:
        """Import an interaction log, once.

        All or nothing: killed half-way it leaves the store as it was. It replaces the rows of an earlier log (the shop
        was initialised again) and keeps events of the API. Of several processes one imports, the others wait.

        Args:
            digest: identity of the log's content.
            batches: its rows, oldest first inside a user.

        Returns:
            Number of rows imported; 0 if the store already holds this log.
        """
        with self._transaction() as connection:
            self._lock_setup(connection)
            if connection.execute(sa.select(_imports.c.rows).where(_imports.c.digest == digest)).first():
                return 0
            connection.execute(sa.delete(_imports))
            connection.execute(sa.delete(_events).where(_events.c.event_id.is_(None)))
            imported = 0
            for batch in batches:
                rows = [
                    {"user_id": user, "item_id": item, "type": "interaction", "timestamp": timestamp}
                    for user, item, timestamp in batch
                ]
                if rows:
                    connection.execute(sa.insert(_events), rows)
                imported += len(rows)
            connection.execute(sa.insert(_imports).values(digest=digest, rows=imported, created=time.time()))
            connection.execute(sa.update(_identity).values(token=_new_token()))
            return imported

    def history(self, user_id: str, limit: int) -> list[str]:
        """Return the item ids of a user's newest `limit` interactions, oldest first; ties in order of arrival."""
        newest = (
            sa.select(_events.c.item_id)
            .where(_events.c.user_id == user_id, _events.c.type.in_(HISTORY_TYPES))
            .order_by(_events.c.timestamp.desc(), _events.c.sequence.desc())
            .limit(limit)
        )
        with self._transaction() as connection:
            return list(connection.execute(newest).scalars())[::-1]

    def add_events(self, events: Sequence[StoredEvent]) -> int:
        """Store the events whose event_id is new, in one transaction; return their number."""
        if not events:
            return 0
        # One statement per batch; a duplicate inside the batch conflicts like an older one
        statement = (
            self._insert(_events)
            .values([asdict(event) for event in events])
            .on_conflict_do_nothing(index_elements=["event_id"])
            .returning(_events.c.sequence)
        )
        with self._transaction() as connection:
            return len(connection.execute(statement).all())

    def record_decision(self, decision: Decision) -> None:
        """Store a decision, and with it the exposure, in one transaction."""
        with self._transaction() as connection:
            connection.execute(sa.insert(_decisions).values(**asdict(decision), created=time.time()))

    def ping(self) -> None:
        """Return if the database answers."""
        with self._transaction() as connection:
            connection.execute(sa.text("SELECT 1"))

    def close(self) -> None:
        """Wait for the calls that run in its threads, then close every connection."""
        self.reads.close()
        self.writes.close()
        self._engine.dispose()

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        try:
            with self._engine.begin() as connection:
                yield connection
        except (sa.exc.OperationalError, sa.exc.InterfaceError, sa.exc.TimeoutError) as error:
            raise StoreUnavailableError(
                f"the event store does not answer: {_one_line(error)}",
                remedy="try again, and check SOFTREC_DATABASE_URL where one is set",
            ) from error
        except sa.exc.DatabaseError as error:
            if type(error) is not sa.exc.DatabaseError:  # a subclass: our bug
                raise
            raise StoreUnavailableError(
                f"the event store {self._engine.url.database} is damaged: {_one_line(error)}",
                remedy="restore a backup, or move it away: the server imports the log again, the API's events are lost",
            ) from error

    def _lock_setup(self, connection: sa.Connection) -> None:
        """Exclude other processes from creating tables or importing a log until this transaction ends."""
        if connection.dialect.name == "postgresql":
            connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_SETUP_LOCK)))
        else:
            connection.exec_driver_sql("BEGIN IMMEDIATE")


def _read_url(url: str | sa.URL) -> sa.URL:
    """Parse a URL as SQLAlchemy or a hosting platform writes it; postgres:// means psycopg."""
    allowed = "use sqlite:///PATH or postgresql://USER:PASSWORD@HOST/DATABASE"
    try:
        read = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise SettingsError(f"invalid URL of the event store: {_one_line(error)}", remedy=allowed) from error
    if read.drivername not in _DRIVERS:
        raise SettingsError(f"the event store does not support {read.drivername}://", remedy=allowed)
    return read.set(drivername=_DRIVERS[read.drivername])


def _new_token() -> str:
    return secrets.token_hex(8)


def _one_line(error: Exception) -> str:
    """Return the database's message without SQLAlchemy's statement and links."""
    return " ".join(str(getattr(error, "orig", None) or error).split())


def _prepare_sqlite(connection: Any, _record: Any) -> None:
    """WAL: readers do not wait for the writer. FULL: an accepted event survives a power cut."""
    cursor = connection.cursor()
    cursor.execute(f"PRAGMA busy_timeout={_BUSY_TIMEOUT_MS}")
    deadline = time.monotonic() + _BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            cursor.execute("PRAGMA journal_mode=WAL")
            break
        except sqlite3.OperationalError:  # the switch does not wait for another process's switch
            if time.monotonic() > deadline:
                raise
            time.sleep(0.01)
    cursor.execute("PRAGMA synchronous=FULL")
    cursor.close()
