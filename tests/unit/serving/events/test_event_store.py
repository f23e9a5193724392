"""The event store: order, idempotence, all-or-nothing. `tests/integration/test_postgres.py` runs this on Postgres."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from serving.errors import SettingsError, StoreUnavailableError
from serving.events.event_store import Decision, EventStore, StoredEvent


def event(event_id: str, item: str, timestamp: int, kind: str = "purchase", user: str = "ann") -> StoredEvent:
    return StoredEvent(event_id, user, item, kind, timestamp, None)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of an empty database."""
    return f"sqlite:///{tmp_path / 'events.db'}"


@pytest.fixture
def empty(url: str) -> Iterator[EventStore]:
    opened = EventStore.open(url)
    yield opened
    opened.close()


def read_decision(url: str, request_id: str) -> dict[str, Any]:
    """What lies in a store of one answer."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    decisions = sa.Table("decisions", sa.MetaData(), autoload_with=engine)
    with engine.connect() as connection:
        [row] = connection.execute(sa.select(decisions).where(decisions.c.request_id == request_id)).mappings()
    engine.dispose()
    return dict(row)


def test_history_is_in_order_of_time_then_of_arrival(empty: EventStore) -> None:
    empty.import_log("d", [[("ann", "i1", 5), ("ann", "i2", 5)], [("bob", "i9", 1), ("ann", "i3", 4)]])
    empty.add_events([event("e1", "i4", 5), event("e2", "i5", 1), event("e3", "i6", 9, "click")])
    assert empty.history("ann", 10) == ["i5", "i3", "i1", "i2", "i4"]
    assert empty.history("ann", 2) == ["i2", "i4"]
    assert empty.history("nobody", 10) == []


def test_an_event_is_stored_once(empty: EventStore) -> None:
    batch = [event("e1", "i1", 1), event("e2", "i2", 2), event("e1", "i3", 3)]
    assert empty.add_events(batch) == 2
    assert empty.add_events([*batch, event("e4", "i4", 4)]) == 1
    assert empty.history("ann", 10) == ["i1", "i2", "i4"]
    assert empty.add_events([]) == 0


def test_a_thousand_events_fit_in_one_batch(empty: EventStore) -> None:
    assert empty.add_events([event(f"e{n}", f"i{n}", n) for n in range(1000)]) == 1000


def test_a_log_is_imported_once_and_replaced_by_another(empty: EventStore) -> None:
    first = [[("ann", "i1", 1), ("ann", "i2", 2)]]
    assert empty.import_log("first", first) == 2
    assert empty.import_log("first", first) == 0
    empty.add_events([event("e1", "i3", 3)])
    assert empty.import_log("second", [[("ann", "i7", 1)], []]) == 1
    assert empty.history("ann", 10) == ["i7", "i3"]  # what came over the API stays


def test_an_import_that_fails_half_way_leaves_nothing(empty: EventStore) -> None:
    def broken() -> Iterator[list[tuple[str, str, int]]]:
        yield [("ann", "i1", 1)]
        raise OSError("disk")

    with pytest.raises(OSError, match="disk"):
        empty.import_log("d", broken())
    assert empty.history("ann", 10) == []
    assert empty.import_log("d", [[("ann", "i1", 1)]]) == 1


def test_a_decision_is_stored_as_it_was(empty: EventStore, url: str) -> None:
    items = [{"item_id": "i1", "rank": 1, "score": -0.5, "source": "generated"}]
    details = {"prompt_ids": [1]}
    decision = Decision("r", None, "e", None, None, "no_user", "soft@1", "v", items, ["fewer_than_k"], details)
    empty.record_decision(decision)
    stored = read_decision(url, "r")
    assert stored.pop("created") > 0
    assert stored == asdict(decision)


def test_what_was_stored_is_there_after_opening_again(url: str) -> None:
    for number in range(2):
        store = EventStore.open(url)
        store.add_events([event(f"e{number}", f"i{number}", number)])
        stored = store.history("ann", 10)
        store.close()
    assert stored == ["i0", "i1"]


def test_a_store_that_cannot_be_opened_says_so(tmp_path: Path) -> None:
    (tmp_path / "events.db").mkdir()
    with pytest.raises(StoreUnavailableError, match="does not answer"):
        EventStore.open_file(tmp_path / "events.db")


def test_a_damaged_file_is_one_line_with_a_remedy(tmp_path: Path) -> None:
    (tmp_path / "events.db").write_bytes(b"not a database, but long enough to be taken for one" * 100)
    with pytest.raises(StoreUnavailableError, match=r"events\.db is damaged: file is not a database; restore a backup"):
        EventStore.open_file(tmp_path / "events.db")


@pytest.mark.parametrize("url", ["no url", "mysql://user:secret@host/db", "postgresql+asyncpg://h/db", "nope://h:x/d"])
def test_another_kind_of_url_is_refused_without_its_password(url: str) -> None:
    with pytest.raises(SettingsError, match=r"use sqlite:///PATH or postgresql://") as refused:
        EventStore.open(url)
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_a_postgres_url_is_psycopgs_however_it_is_written(scheme: str) -> None:
    """Nothing listens on port 1: the driver was found and asked, and its answer is one line."""
    with pytest.raises(StoreUnavailableError, match="does not answer: connection failed") as refused:
        EventStore.open(f"{scheme}://user:secret@127.0.0.1:1/db")
    assert "\n" not in str(refused.value)
    assert "secret" not in str(refused.value)


def test_the_token_is_of_one_database_and_one_log(tmp_path: Path) -> None:
    """It outlives the process, and nothing else: not another database, not the file's deletion, not another log."""
    folder = tmp_path / "made with its file"
    tokens = []
    for name, digest in (("a", "d"), ("a", "d"), ("b", "d"), ("a", "other")):
        store = EventStore.open_file(folder / name)
        store.import_log(digest, [])
        tokens.append(store.token())
        store.close()
    for path in folder.glob("a*"):
        path.unlink()
    store = EventStore.open_file(folder / "a")
    store.import_log("d", [])
    tokens.append(store.token())
    store.close()
    assert tokens[0] == tokens[1]
    assert len(set(tokens)) == 4


def test_of_several_at_once_one_imports(url: str) -> None:
    def start(_: int) -> tuple[int, str]:
        store = EventStore.open(url)
        taken = store.import_log("d", ([(f"u{n}", "i1", 1)] for n in range(50)))
        token = store.token()
        store.close()
        return taken, token

    with ThreadPoolExecutor(4) as threads:
        started = list(threads.map(start, range(4)))
    assert sorted(taken for taken, _ in started) == [0, 0, 0, 50]
    assert len({token for _, token in started}) == 1
