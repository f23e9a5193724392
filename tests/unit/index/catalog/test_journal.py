"""The journal on disk: killed writers, damage, and two writers."""

import sqlite3
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.catalog import journal as module
from index.catalog.catalog import Position
from index.catalog.changes import Change
from index.catalog.journal import Journal, JournalStamp
from index.errors import ArtifactError, CorruptArtifactError, MismatchError

START = Position(0, "0" * 16)
BATCHES = [
    [Change("put", "a", "Tetris “x”", "puz\u2028zle")],
    [Change("patch", "a", available=False), Change("remove", "b"), Change("put", "ü", "Doom\\n")],
    [Change("remove", "a")],
]
ALL = [change for batch in BATCHES for change in batch]


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    return write(tmp_path)


def write(folder: Path) -> Journal:
    journal = Journal(folder / "catalog_changes.db", START)
    end = START
    for batch in BATCHES:
        end = append(journal, batch, end)
    return journal


def append(journal: Journal, changes: list[Change], end: Position | None = None) -> Position:
    with journal.locked() as add:
        return add(changes, end or journal.read()[1])


def execute(journal: Journal, statement: str) -> None:
    with sqlite3.connect(journal.path) as database:
        database.execute(statement)
    database.close()


def test_write_then_read_is_identity_from_every_position(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.db", START)
    assert journal.read() == ([], START)
    ends = [START]
    for batch in BATCHES:
        ends.append(append(journal, batch, ends[-1]))
    for done, end in enumerate(ends):
        assert journal.read(end) == ([change for batch in BATCHES[done:] for change in batch], ends[-1])
        assert journal.read(until=end) == ([change for batch in BATCHES[:done] for change in batch], end)
    assert [end.changes for end in ends] == [0, 1, 4, 5]


def test_a_batch_that_is_not_finished_is_not_there(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its second change cannot be written."""
    before = journal.read()
    with monkeypatch.context() as patch:
        patch.setattr(module, "_chain", lambda chain, change: None if "second" in change else "x" * 16)
        with pytest.raises(CorruptArtifactError, match="NOT NULL"):
            append(journal, [Change("remove", "first"), Change("remove", "second")], before[1])
    assert journal.read() == before


@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_any_changed_byte_is_noticed_or_makes_no_difference(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Most bytes of a database are free. No change is read as another one, and none but the last ones gets lost."""
    journal = write(tmp_path_factory.mktemp("shop"))
    content = bytearray(journal.path.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16, 32, 64, 128]))
    journal.path.write_bytes(content)
    try:
        changes, _ = journal.read()
    except (ArtifactError, OSError):
        return
    assert changes == ALL


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE changes SET change = replace(change, 'Tetris', 'Doom') WHERE number = 1",
        "UPDATE changes SET chain = 'x' WHERE number = 1",
        "DELETE FROM changes WHERE number = 1",
        "UPDATE changes SET number = 9 WHERE number = 1",
    ],
)
def test_a_damaged_change_is_named(journal: Journal, damage: str) -> None:
    execute(journal, damage)
    with pytest.raises(CorruptArtifactError, match=r"catalog_changes\.db: change 1 .*move it away"):
        journal.read()


def test_a_file_that_is_no_database_is_refused(journal: Journal) -> None:
    journal.path.write_bytes(b"{}\n")
    with pytest.raises(CorruptArtifactError, match=r"catalog_changes\.db: .*put an undamaged copy back"):
        journal.read()


def test_the_log_of_an_earlier_softrec_is_refused(journal: Journal) -> None:
    journal.path.with_suffix(".jsonl").write_text("{}\n")
    for refused in (journal.read, lambda: append(journal, [Change("remove", "a")], START)):
        with pytest.raises(ArtifactError, match=r"catalog_changes\.jsonl: .*softrec init --force.*softrec index"):
            refused()


def test_another_catalogs_journal_is_refused_with_both_named(journal: Journal) -> None:
    with pytest.raises(MismatchError, match="catalog that was changed: expected 111111111111, found 000000000000"):
        Journal(journal.path, Position(0, "1" * 16)).read()


def test_a_journal_that_lost_what_was_read_is_refused(journal: Journal) -> None:
    _, end = journal.read()
    whole, other = journal.path.read_bytes(), Journal(journal.path.with_name("other.db"), START)
    append(other, [Change("remove", name) for name in "vwxyz" * 9])
    execute(journal, "DELETE FROM changes WHERE number = 5")
    for content in (journal.path.read_bytes(), other.path.read_bytes(), None):
        journal.path.unlink() if content is None else journal.path.write_bytes(content)
        for refused in (lambda: journal.read(end), lambda: journal.read(until=end)):
            with pytest.raises(MismatchError, match="the first 5 changes"):
                refused()
        with journal.locked() as add, pytest.raises(MismatchError, match="the first 5 changes"):
            add([Change("remove", "a")], end)
    journal.path.write_bytes(whole)
    assert journal.read(end) == ([], end)


def test_a_full_disk_appends_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    before = journal.read()
    connect = module._connect

    def connect_to_full_disk(path: Path, mode: str, timeout_s: float) -> sqlite3.Connection:
        database = connect(path, mode, timeout_s)
        database.execute("PRAGMA max_page_count = 2")
        return database

    with monkeypatch.context() as patch:
        patch.setattr(module, "_connect", connect_to_full_disk)
        with pytest.raises(OSError, match=r"No space|full") as caught:
            append(journal, [Change("put", str(number), "x" * 900) for number in range(20)])
    assert caught.value.filename == str(journal.path)
    assert journal.read() == before


def test_two_writers_wait_for_each_other(tmp_path: Path) -> None:
    """Each reads the end under the lock, so every number is given once."""

    def write_ten(name: str) -> None:
        journal = Journal(tmp_path / "j.db", START)
        for number in range(10):
            append(journal, [Change("remove", f"{name}{number}")])

    threads = [threading.Thread(target=write_ten, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changes, end = Journal(tmp_path / "j.db", START).read()
    assert sorted(change.item_id for change in changes) == sorted(f"{name}{at}" for name in "xy" for at in range(10))
    assert end.changes == 20


def test_a_writer_that_waits_too_long_says_so(journal: Journal) -> None:
    with journal.locked(), pytest.raises(TimeoutError, match=r"another writer has held it for 0\.01 s"):  # noqa: SIM117
        with journal.locked(timeout_s=0.01):
            pass
    append(journal, [Change("remove", "a")])  # nobody holds it any more


WRITER = """
import sys
from pathlib import Path
from index.catalog.catalog import Position
from index.catalog.changes import Change
from index.catalog.journal import Journal
journal = Journal(Path(sys.argv[1]), Position(0, "0" * 16))
for number in range(int(sys.argv[3])):
    with journal.locked() as append:
        append([Change("remove", f"{sys.argv[2]}{number}"), Change("remove", "end")], journal.read()[1])
    print(number, flush=True)
"""


def test_a_process_that_is_killed_leaves_the_others_a_sound_journal(tmp_path: Path) -> None:
    """Two processes append batches of two at the same time; one dies by SIGKILL while it does."""
    journal = Journal(tmp_path / "j.db", START)
    command = [sys.executable, "-c", WRITER, str(journal.path)]
    with (
        subprocess.Popen([*command, "x", "100000"], stdout=subprocess.PIPE, text=True) as doomed,
        subprocess.Popen([*command, "y", "10"], stdout=subprocess.PIPE, text=True) as other,
    ):
        assert doomed.stdout is not None
        for _ in range(5):
            doomed.stdout.readline()
        doomed.kill()
        other.communicate()
    assert other.returncode == 0
    changes, end = journal.read()
    names = [change.item_id for change in changes]
    assert names[1::2] == ["end"] * (len(changes) // 2)
    assert [name for name in names if name[0] == "y"] == [f"y{number}" for number in range(10)]
    dead = [name for name in names if name[0] == "x"]
    assert dead == [f"x{number}" for number in range(len(dead))]
    assert len(dead) >= 5  # what it said was written is written
    assert end.changes == len(changes)


def test_a_stamp_differs_after_a_commit_or_another_file_and_else_not(journal: Journal) -> None:
    stamp = JournalStamp(journal.path)
    seen = [stamp.read()]

    def assert_new() -> None:
        now = stamp.read()
        assert now not in seen
        assert stamp.read() == now
        seen.append(now)

    assert stamp.read() == seen[0]
    journal.read()
    with journal.locked():  # and nothing is written
        assert stamp.read() == seen[0]
    append(journal, [Change("remove", "y")])
    assert_new()
    copy = journal.path.with_name("copy")
    copy.write_bytes(journal.path.read_bytes())
    copy.rename(journal.path)
    assert_new()
    journal.path.unlink()
    assert_new()
    write(journal.path.parent)
    assert_new()
    stamp.close()


def test_what_an_import_covers_is_forgotten_and_the_rest_goes_on(journal: Journal) -> None:
    _, middle = journal.read()
    later = append(journal, [Change("remove", "z")])
    rebased = Journal(journal.path, middle)
    rebased.forget(middle)
    assert rebased.read() == ([Change("remove", "z")], later)
    with pytest.raises(MismatchError, match="catalog that was changed"):
        journal.read()
    assert append(rebased, [Change("remove", "y")], later).changes == 7


def test_set_aside_takes_a_name_that_is_free(journal: Journal) -> None:
    first = journal.set_aside()
    assert first == journal.path.with_name("catalog_changes.1.db")
    assert journal.read() == ([], START)
    assert journal.set_aside() is None
    write(journal.path.parent)
    assert journal.set_aside() == journal.path.with_name("catalog_changes.2.db")
