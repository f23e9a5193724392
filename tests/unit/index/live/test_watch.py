"""Files that others change: new once, unless the system would not let them be read."""

from pathlib import Path

import pytest

from index.errors import SoftrecError
from index.live.watch import Watch


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def watch(tmp_path: Path, notes: list[str]) -> Watch:
    (tmp_path / "a").write_text("one")
    return Watch({"a": tmp_path / "a", "b": tmp_path / "b"}, notes.append)


def take_up(watch: Watch, name: str, error: Exception | None = None) -> None:
    with watch.taking_up(name):
        if error is not None:
            raise error


def test_a_file_is_new_until_it_was_taken_up(watch: Watch, tmp_path: Path) -> None:
    assert not watch.is_stale()
    for change in (
        lambda: (tmp_path / "b").write_text("made"),
        lambda: (tmp_path / "b").write_text("written anew"),
        lambda: (tmp_path / "b").unlink(),
    ):
        change()
        assert (watch.is_new("a"), watch.is_new("b"), watch.is_stale()) == (False, True, True)
        take_up(watch, "b")
        assert not watch.is_stale()


def test_what_is_written_while_a_file_is_read_makes_it_new_again(watch: Watch, tmp_path: Path) -> None:
    with watch.taking_up("b"):
        (tmp_path / "b").write_text("while it was read")
    assert watch.is_new("b")


def test_a_damaged_file_is_a_problem_until_it_is_replaced(watch: Watch, notes: list[str]) -> None:
    error = SoftrecError("line 3 is damaged")
    take_up(watch, "a", error)
    assert (watch.problem, watch.is_stale()) == (error, False)
    take_up(watch, "b")
    assert watch.problem is error  # of another file
    take_up(watch, "a")
    assert (watch.problem, notes) == (None, ["index: line 3 is damaged"])


def test_a_file_that_the_system_refused_to_read_stays_new_and_is_noted_once(watch: Watch, notes: list[str]) -> None:
    for _ in range(3):
        take_up(watch, "a", OSError(24, "Too many open files"))
        assert watch.is_new("a")
    assert str(watch.problem) == "[Errno 24] Too many open files"
    assert len(notes) == 1
    take_up(watch, "a")
    assert (watch.problem, watch.is_stale()) == (None, False)


def test_a_bug_is_not_taken_for_a_problem(watch: Watch) -> None:
    with pytest.raises(ZeroDivisionError):
        take_up(watch, "a", ZeroDivisionError())
    assert watch.problem is None
