"""The event store on a real Postgres: the laws that hold on SQLite, and what only a server can do."""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from serving.errors import StoreUnavailableError
from serving.events.event_store import EventStore
from tests.postgres_server import PostgresServer, find_programs
from tests.unit.serving.events.test_event_store import (  # noqa: F401 - run here on this file's `url`
    empty,
    event,
    test_a_decision_is_stored_as_it_was,
    test_a_log_is_imported_once_and_replaced_by_another,
    test_a_thousand_events_fit_in_one_batch,
    test_an_event_is_stored_once,
    test_an_import_that_fails_half_way_leaves_nothing,
    test_history_is_in_order_of_time_then_of_arrival,
    test_of_several_at_once_one_imports,
    test_what_was_stored_is_there_after_opening_again,
)

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    started = PostgresServer(find_programs())
    yield started
    started.close()


@pytest.fixture
def url(server: PostgresServer) -> str:
    """Of an empty database."""
    return server.make_database()


def test_the_token_is_of_one_database_and_one_log(server: PostgresServer, url: str) -> None:
    tokens = []
    for database, digest in ((url, "d"), (url, "d"), (server.make_database(), "d"), (url, "other")):
        store = EventStore.open(database)
        store.import_log(digest, [])
        tokens.append(store.token())
        store.close()
    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 3


def test_a_user_without_the_right_to_create_tables_learns_what_to_grant(server: PostgresServer, url: str) -> None:
    with server.connect() as connection:
        connection.execute("CREATE ROLE reader LOGIN")  # since Postgres 15 `public` is its owner's alone
    with pytest.raises(
        StoreUnavailableError,
        match=r"cannot create the event store's tables: permission denied.*allow its user to create tables",
    ):
        EventStore.open(url.replace("postgres@", "reader@"))
    with server.connect() as connection:
        connection.execute(f"DROP DATABASE {sa.make_url(url).database}".encode())  # refused while anyone is connected


def test_a_database_that_does_not_exist_is_one_line(url: str) -> None:
    name = sa.make_url(url).database
    assert name
    with pytest.raises(StoreUnavailableError, match=r'does not answer: .*database "nowhere" does not exist') as refused:
        EventStore.open(url.replace(name, "nowhere"))
    assert "\n" not in str(refused.value)


def test_a_store_works_again_after_its_server_was_restarted(server: PostgresServer, empty: EventStore) -> None:  # noqa: F811
    empty.add_events([event("e1", "i1", 1)])
    server.stop()
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        empty.history("ann", 10)
    server.start()
    assert empty.history("ann", 10) == ["i1"]


def test_an_import_whose_process_is_killed_leaves_nothing_and_locks_nobody_out(url: str) -> None:
    """SIGKILL between two batches: Postgres rolls back, releases the lock, and the next import goes through."""
    code = (
        "import os, signal, sys\n"
        "from serving.events.event_store import EventStore\n"
        "def batches():\n"
        "    yield [('ann', 'i1', 1)]\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "EventStore.open(sys.argv[1]).import_log('d', batches())\n"
    )
    assert subprocess.run([sys.executable, "-c", code, url], cwd=ROOT).returncode == -signal.SIGKILL
    store = EventStore.open(url)
    assert store.history("ann", 10) == []
    assert store.import_log("d", [[("ann", "i2", 2)]]) == 1
    assert store.history("ann", 10) == ["i2"]
    store.close()


def test_the_server_ends_with_a_killed_test_run() -> None:
    code = (
        "from tests.postgres_server import PostgresServer, find_programs\n"
        "server = PostgresServer(find_programs())\n"
        "print(server._process.pid, server._folder, flush=True)\n"
        "input()\n"
    )
    find_programs()
    with subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as test_run:
        assert test_run.stdout is not None
        pid, folder = test_run.stdout.readline().split()
        started = psutil.Process(int(pid))
        test_run.kill()
    started.wait(60)  # raises if it is still there
    shutil.rmtree(folder)
