"""A file of changes: what it may hold, and where bad lines go."""

import csv
from pathlib import Path

import pytest

from index.catalog.catalog import Catalog, Item
from index.catalog.changes import Change
from index.errors import InputError
from index.tables.changes_file import read_changes

CATALOG = Catalog.from_items([Item("a", "Tetris", "puzzle"), Item("b", "Doom")])


def read(tmp_path: Path, content: bytes, share: float = 1.0) -> tuple[list[Change], dict[str, int], tuple[str, ...]]:
    (tmp_path / "changes.jsonl").write_bytes(content)
    changes, report = read_changes(
        tmp_path / "changes.jsonl", CATALOG, rejects_path=tmp_path / "rejects.csv", max_reject_share=share
    )
    assert report.rows_read == report.rows_kept + report.rejected.total()
    return changes, dict(report.rejected), report.notes


def test_lines_are_read_in_order_and_those_that_say_nothing_new_are_counted(tmp_path: Path) -> None:
    lines = (
        b'{"op": "put", "item_id": "c", "title": " Myst "}\n\n{"op": "patch", "item_id": "c", "available": false}\n'
        b'{"op": "put", "item_id": "b", "title": "Doom"}\n{"op": "remove", "item_id": "a"}'
    )
    changes, rejected, notes = read(tmp_path, lines)
    assert changes == [Change("put", "c", "Myst"), Change("patch", "c", available=False), Change("remove", "a")]
    assert (rejected, notes) == ({}, ("lines that the catalog says already: 1",))


def test_bad_lines_are_put_aside_with_line_and_reason(tmp_path: Path) -> None:
    lines = [
        b'{"op": "remove", "item_id": "a"}',
        b'{"op": "patch", "item_id": "a", "title": "x"}',  # removed a line ago
        b'{"op": "put", "item_id": "c"}',
        b"[1]",
        b'{"op": "put", "item_id": "c", "title": "caf\xe9"}',
        b"[" * 100_000,
    ]
    changes, rejected, _ = read(tmp_path, b"\n".join(lines))
    assert changes == [Change("remove", "a")]
    assert rejected == {"unknown item_id": 1, "put needs a title": 1, "not a JSON object": 1, "not valid JSON": 2}
    written = list(csv.reader((tmp_path / "rejects.csv").read_text().splitlines()))[1:]
    assert [(line, reason) for line, reason, _ in written[:3]] == [
        ("2", "unknown item_id"), ("3", "put needs a title"), ("4", "not a JSON object"),
    ]  # fmt: skip


@pytest.mark.parametrize("content", [b"", b"no json\n"])
def test_a_file_without_a_good_line_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(InputError):
        read(tmp_path, content)


def test_too_many_bad_lines_are_refused_with_their_share(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"line 2: unknown item_id: .*--max-reject-share 0\.50"):
        read(tmp_path, b'{"op": "remove", "item_id": "a"}\n{"op": "remove", "item_id": "a"}\n', share=0.01)
    with pytest.raises(InputError, match="no such file"):
        read_changes(tmp_path / "none.jsonl", CATALOG, rejects_path=tmp_path / "rejects.csv")
