"""The journal on disk: killed writers, damage, and two writers."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from index.catalog.changes import Change
from index.catalog.journal import START, Journal
from index.errors import CorruptArtifactError, MismatchError

DIGEST = "0" * 64
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
    journal = Journal(folder / "catalog_changes.jsonl", DIGEST)
    end = START
    for batch in BATCHES:
        end = journal.append(batch, end)
    return journal


def test_write_then_read_is_identity_from_every_position(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.jsonl", DIGEST)
    assert journal.read() == ([], START)
    ends = [START]
    for batch in BATCHES:
        ends.append(journal.append(batch, ends[-1]))
    for done, end in enumerate(ends):
        assert journal.read(end) == ([change for batch in BATCHES[done:] for change in batch], ends[-1])
        journal.check_begins_with(end)
    assert [end.changes for end in ends] == [0, 1, 4, 5]


@given(data=st.data())
@settings(max_examples=40)
def test_a_killed_writer_loses_its_batch_and_nothing_else(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Cut anywhere: whole batches are read, and the next writer goes on behind them."""
    journal = write(tmp_path_factory.mktemp("shop"))
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    changes, end = journal.read()
    assert changes in ([], ALL[:1], ALL[:4], ALL)
    last = journal.append([Change("remove", "z")], end)
    assert journal.read() == ([*changes, Change("remove", "z")], last)


@given(data=st.data())
@settings(max_examples=40)
def test_any_changed_byte_is_noticed_and_its_line_named(
    data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Unless it only makes the last batch an unfinished one."""
    journal = write(tmp_path_factory.mktemp("shop"))
    content = bytearray(journal.path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 2))
    content[place] ^= data.draw(st.sampled_from([1, 2, 4, 8, 16, 32]))
    journal.path.write_bytes(content)
    with pytest.raises((CorruptArtifactError, MismatchError), match=r"line \d+ cannot|that was changed"):
        journal.read()


def test_a_lost_line_is_noticed(journal: Journal) -> None:
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join(lines[:2] + lines[3:]))
    with pytest.raises(CorruptArtifactError, match=r"catalog_changes\.jsonl: line 3 .*move it away"):
        journal.read()


def test_another_catalogs_journal_is_refused_with_both_named(journal: Journal) -> None:
    with pytest.raises(MismatchError, match="expected 111111111111, found 000000000000"):
        Journal(journal.path, "1" * 64).read()


def test_a_journal_that_lost_what_was_read_is_refused(journal: Journal) -> None:
    _, end = journal.read()
    other = journal.path.with_name("other.jsonl")
    Journal(other, DIGEST).append([Change("remove", name) for name in "vwxyz" * 9], START)
    for content in (journal.path.read_bytes()[:200], other.read_bytes(), None):
        journal.path.unlink() if content is None else journal.path.write_bytes(content)
        with pytest.raises(MismatchError, match="the first 5 changes"):
            journal.check_begins_with(end)
    with pytest.raises(MismatchError, match="found 0 bytes"):
        journal.read(end)


def test_a_full_disk_appends_nothing(journal: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    before = journal.path.read_bytes()
    _, end = journal.read()

    def refuse(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", refuse)
        with pytest.raises(OSError, match=r"No space left on device.*catalog_changes"):
            journal.append([Change("remove", "z")], end)
    assert journal.path.read_bytes() == before


def test_two_writers_wait_for_each_other(tmp_path: Path) -> None:
    """Each reads the end under the lock, so every number is given once and no line is torn."""

    def append(name: str) -> None:
        journal = Journal(tmp_path / "j.jsonl", DIGEST)
        for number in range(10):
            with journal.locked():
                _, end = journal.read()
                journal.append([Change("remove", f"{name}{number}")], end)

    threads = [threading.Thread(target=append, args=(name,)) for name in "xy"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    changes, end = Journal(tmp_path / "j.jsonl", DIGEST).read()
    assert sorted(change.item_id for change in changes) == sorted(f"{name}{at}" for name in "xy" for at in range(10))
    assert end.changes == 20
    numbers = [json.loads(line).get("number") for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert numbers == [None, *range(1, 21)]


WRITER = """
import sys
from pathlib import Path
from index.catalog.changes import Change
from index.catalog.journal import Journal
journal = Journal(Path(sys.argv[1]), "0" * 64)
for number in range(int(sys.argv[3])):
    with journal.locked():
        journal.append([Change("remove", f"{sys.argv[2]}{number}"), Change("remove", "end")], journal.read()[1])
    print(number, flush=True)
"""


def test_a_process_that_is_killed_leaves_the_others_a_sound_journal(tmp_path: Path) -> None:
    """Two processes append batches of two at the same time; one dies by SIGKILL while it does."""
    journal = Journal(tmp_path / "j.jsonl", DIGEST)
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


def test_set_aside_takes_a_name_that_is_free(journal: Journal) -> None:
    first = journal.set_aside()
    assert first == journal.path.with_name("catalog_changes.1.jsonl")
    assert journal.read() == ([], START)
    assert journal.set_aside() is None
    write(journal.path.parent)
    assert journal.set_aside() == journal.path.with_name("catalog_changes.2.jsonl")
