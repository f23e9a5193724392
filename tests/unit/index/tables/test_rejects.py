import csv
from pathlib import Path

import pytest

from index.errors import InputError
from index.tables.rejects import Rejects


def test_rejects_are_written_with_line_reason_and_row_in_the_order_of_lines(tmp_path: Path) -> None:
    rejects = Rejects(Path("a.csv"), tmp_path / "deep" / "rejects.csv", max_share=0.5)
    rejects.add(7, "empty title", ("3", 'a "quoted", text'))
    rejects.add(2, "not CSV", ("caf\udce9",))
    rejects.finish(4)
    with (tmp_path / "deep" / "rejects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.reader(file))
    assert rows == [
        ["line", "reason", "row"],
        ["2", "not CSV", r"caf\xe9"],
        ["7", "empty title", '3,"a ""quoted"", text"'],
    ]


@pytest.mark.parametrize(("bad", "refused"), [(0, False), (1, False), (2, True), (100, True)])
def test_more_than_the_share_is_refused(tmp_path: Path, bad: int, refused: bool) -> None:
    """1 % of 100 rows is one row."""
    rejects = Rejects(Path("a.csv"), tmp_path / "rejects.csv", max_share=0.01)
    for line in range(bad):
        rejects.add(line + 2, "empty title", ("1", ""))
    if not refused:
        rejects.finish(100)
    else:
        with pytest.raises(InputError, match=rf"{bad} of 100 rows are bad, 1\.00% are allowed"):
            rejects.finish(100)
    assert (tmp_path / "rejects.csv").exists() == (bad > 0)


def test_ten_are_shown_with_the_remedy_that_would_accept_them(tmp_path: Path) -> None:
    """25 of 200 are 0.125; the share named must let them through, so it is rounded up, to 0.126."""
    path = tmp_path / "rejects.csv"
    rejects = Rejects(Path("a.csv"), path, max_share=0.01)
    for line in range(25):
        rejects.add(line + 2, "empty title", (str(line), ""))
    with pytest.raises(InputError) as caught:
        rejects.finish(200)
    message = str(caught.value)
    assert message.startswith("a.csv: line 2: empty title: 0,; line 3: empty title: 1,; ")
    assert "line 11:" in message
    assert "line 12:" not in message
    assert "and 15 more" in message
    assert message.endswith("--max-reject-share 0.126")
    assert str(path) in message


def test_a_table_without_a_good_row_is_refused_whatever_the_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no rows below the header"):
        Rejects(Path("a.csv"), tmp_path / "r.csv", max_share=1).finish(0)
    rejects = Rejects(Path("a.csv"), tmp_path / "r.csv", max_share=1)
    rejects.add(2, "empty title", ("1", ""))
    with pytest.raises(InputError, match="1 of 1 rows are bad"):
        rejects.finish(1)


def test_an_earlier_imports_rejects_do_not_stay(tmp_path: Path) -> None:
    path = tmp_path / "rejects.csv"
    path.write_text("old")
    Rejects(Path("a.csv"), path, max_share=0.01).finish(1)
    assert not path.exists()


def test_a_share_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 5"):
        Rejects(Path("a.csv"), tmp_path / "r.csv", max_share=5)
