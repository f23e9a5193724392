import csv
import gzip
import io
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.errors import InputError
from index.tables.rows import Row, open_rows, open_separated

fields = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.sampled_from('",;\t\n'), max_size=8)


def read(path: Path, *picked: str) -> list[Row]:
    return list(open_rows(path).rows(picked))


@given(st.lists(st.tuples(fields, fields, fields), max_size=12), st.sampled_from(",;\t"))
def test_every_csv_that_python_writes_is_read_back(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str, str]], delimiter: str
) -> None:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([("a", "b", "c"), *rows])
    path = tmp_path_factory.mktemp("csv") / "items.csv"
    path.write_bytes(buffer.getvalue().encode())
    found = read(path, "a", "b", "c")
    assert [row.values for row in found] == rows
    assert not any(row.reason for row in found)


def test_the_same_table_reads_alike_in_every_form(tmp_path: Path) -> None:
    rows = [("1", "Toy Story"), ("2", "Café, the"), ("3", "")]
    text = 'item_id,title\n1,Toy Story\n2,"Café, the"\n3,\n'
    objects = "".join(json.dumps({"item_id": int(item_id), "title": title or None}) + "\n" for item_id, title in rows)
    (tmp_path / "items.csv").write_text(text, encoding="utf-8")
    (tmp_path / "bom.csv").write_text(text, encoding="utf-8-sig")
    (tmp_path / "dos.csv").write_text(text.replace("\n", "\r\n"), encoding="utf-8", newline="")
    (tmp_path / "items.csv.gz").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "items.jsonl").write_text(objects)
    (tmp_path / "items.jsonl.gz").write_bytes(gzip.compress(objects.encode()))
    table = pa.table({"item_id": [1.0, 2.0, 3.0], "title": ["Toy Story", "Café, the", None]})  # floats, as pandas does
    pq.write_table(table, tmp_path / "items.parquet")
    for path in sorted(tmp_path.iterdir()):
        assert [row.values for row in read(path, "item_id", "title")] == rows, path.name


def test_columns_are_picked_in_the_order_asked_and_unknown_ones_are_empty(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("x,y\n1,2\n")
    (tmp_path / "a.jsonl").write_text('{"x": 1, "y": 2}\n')
    pq.write_table(pa.table({"x": [1], "y": [2]}), tmp_path / "a.parquet")
    for path in tmp_path.iterdir():
        source = open_rows(path)
        assert source.columns == ("x", "y")
        assert [row.values for row in source.rows(["y", "z", "x"])] == [("2", "", "1")]


@given(missing=st.integers(0, 3), rows=st.sampled_from([1, 2, 7, 8]), batch=st.integers(1, 8))
def test_every_row_of_a_parquet_file_is_read_however_many_columns_it_lacks(
    tmp_path_factory: pytest.TempPathFactory, missing: int, rows: int, batch: int
) -> None:
    path = tmp_path_factory.mktemp("parquet") / "a.parquet"
    pq.write_table(pa.table({"x": [*map(str, range(rows))]}), path, row_group_size=batch)
    found = read(path, "x", *(f"missing {number}" for number in range(missing)))
    assert found == [Row(at + 1, (str(at), *[""] * missing)) for at in range(rows)]


def test_a_parquet_catalog_longer_than_a_batch_is_read_whole(tmp_path: Path) -> None:
    """pyarrow reads 65,536 rows at a time."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": np.arange(70_001)}), path)
    found = read(path, "y", "x", "z")
    assert [row.line for row in found] == [*range(1, 70_002)]
    assert found[-1] == Row(70_001, ("", "70000", ""))


def test_a_column_that_is_asked_for_twice_is_given_twice(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": ["1", "2"]}), path)
    assert [row.values for row in read(path, "x", "x")] == [("1", "1"), ("2", "2")]


def test_a_parquet_file_that_names_another_number_of_rows_is_damaged(tmp_path: Path) -> None:
    """The footer says 5 rows (a varint of 2 x 5 after 0x16, then the row groups); 7 are written over it."""
    path = tmp_path / "a.parquet"
    pq.write_table(pa.table({"x": ["1", "2", "3", "4", "5"]}), path)
    five, seven = b"\x16\x0a\x19\x1c", b"\x16\x0e\x19\x1c"
    content = path.read_bytes()
    assert content.count(five) == 1
    path.write_bytes(content.replace(five, seven))
    with pytest.raises(InputError, match=r"line 5: .*damaged .*it names 7 rows and holds 5.*; fetch or export it"):
        read(path, "x")


def test_lines_count_from_one_with_header_blank_lines_and_breaks_inside_quotes(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('x,y\n1,a\n\n2,"b\nb"\n3,c\n')
    assert read(path, "x") == [Row(2, ("1",)), Row(4, ("2",)), Row(6, ("3",))]


@pytest.mark.parametrize("broken", ['2,"b', '2,"b" b', "2,b,b", "2", '2,b,"b'])
def test_a_broken_line_costs_that_line_only(tmp_path: Path, broken: str) -> None:
    path = tmp_path / "a.csv"
    path.write_text(f"x,y\n1,a\n{broken}\n3,c\n4,d\n")
    rows = read(path, "x", "y")
    assert [row.values for row in rows if not row.reason] == [("1", "a"), ("3", "c"), ("4", "d")]
    assert [(row.line, row.values) for row in rows if row.reason] == [(3, [broken])]


def test_a_quote_opened_in_a_large_file_costs_one_line_not_the_rest(tmp_path: Path) -> None:
    """The parser gives up after 131,072 characters; all 20,000 lines after the quote are there again."""
    path = tmp_path / "a.csv"
    path.write_text('x,y\n0,"oops\n' + "".join(f"{number},abcdef\n" for number in range(1, 20_001)))
    rows = read(path, "x")
    assert [row.line for row in rows if row.reason] == [2]
    assert [row.values[0] for row in rows[1:]] == [str(number) for number in range(1, 20_001)]


def test_lines_that_are_no_json_objects_are_put_aside(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"x": 1}\n\n{"x": \n[1]\n{"x": true}\n{"y": 3}\n{"x": ["a", 2.0, null]}\n')
    rows = read(path, "x")
    assert [(row.line, row.values[0], bool(row.reason)) for row in rows] == [
        (1, "1", False),
        (3, '{"x":', True),
        (4, "[1]", True),
        (5, "true", False),
        (6, "", False),
        (7, "a|2|", False),
    ]


def test_json_numbers_keep_every_digit(tmp_path: Path) -> None:
    """A float would read 1735843646.1234568 and 1735843646123456768; 3.0 is an id in a table with gaps."""
    path = tmp_path / "a.jsonl"
    numbers = ["1735843646.123456789", "1735843646123456789.0", "3.0", "2.50", "1e3", "1.5E3", "7", "1e400"]
    path.write_text("".join(f'{{"x": {number}}}\n' for number in numbers))
    found = [row.values[0] for row in read(path, "x")]
    assert found == ["1735843646.123456789", "1735843646123456789", "3", "2.50", "1000", "1500", "7", "inf"]


@pytest.mark.parametrize(("encoding", "title"), [("latin-1", "Café"), ("utf-8", "Café"), ("utf-8", "人")])
def test_separated_files_are_utf8_or_else_latin1(tmp_path: Path, encoding: str, title: str) -> None:
    path = tmp_path / "movies.dat"
    path.write_bytes(f"1::{title}::Drama\n2::Heat\n".encode(encoding))
    rows = list(open_separated(path, "::", ("id", "title", "genres")).rows(["title", "id"]))
    assert rows[0] == Row(1, (title, "1"))
    assert rows[1] == Row(2, ("2::Heat",), "expected 3 fields separated by '::'")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"\n\n", "the file is empty"),
        ("id,title\n".encode("utf-16"), "UTF-16"),
        (b"PK\x03\x04....", "Excel workbook"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1", "Excel workbook"),
        (b'[{"x": 1}]', "one JSON array"),
        (gzip.compress(b"x,y\n" + bytes(range(256)) * 99)[:-40], "damaged or cut off"),
        (b"PAR1 and then nothing", "damaged or cut off"),
    ],
)
def test_files_that_cannot_be_read_say_what_to_do(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "items"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        read(path, "x")
    assert str(path) in str(caught.value)
    assert caught.value.remedy


def test_no_file_and_a_directory_are_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"items\.csv: no such file"):
        open_rows(tmp_path / "items.csv")
    with pytest.raises(InputError, match="is a directory"):
        open_rows(tmp_path)
