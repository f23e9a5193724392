"""Rows of a user's file with their line numbers: CSV, JSON lines, Parquet or separated text, gzipped or not.

The form is recognised from the content, not from the file's name. A row that cannot be read is returned with a reason,
and reading goes on at the next line: one stray quote costs one line, not the rest of the file.
"""

from __future__ import annotations

import csv
import gzip
import io
import itertools
import json
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from index.errors import InputError, Problem

_PEEKED_OBJECTS = 100  # JSON objects whose keys are taken as the columns; later ones may lack some


class Row(NamedTuple):
    """One row: its line (its number, in Parquet), counted from 1, and its values as text.

    Where `reason` says why the row could not be read, `values` holds its raw text alone.
    """

    line: int
    values: Sequence[str]
    reason: str = ""


@dataclass(frozen=True)
class RowSource:
    """An open file: `columns` as it names them, and `rows(picked)` to read some of them; an unknown one reads as ""."""

    columns: tuple[str, ...]
    rows: Callable[[Sequence[str]], Iterator[Row]]


def open_rows(path: Path) -> RowSource:
    """Recognise a file with a header (CSV, JSON lines, Parquet; CSV also with tabs or semicolons).

    Raises:
        InputError: no such file, empty, damaged, or of a form that is not read; with what to do.
    """
    start = _read_start(path)
    if start.startswith(b"PAR1"):
        return _open_parquet(path)
    if start.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"{"):
        return _open_json_lines(path)
    return _open_csv(path)


def open_separated(path: Path, separator: str, columns: tuple[str, ...]) -> RowSource:
    """Open a raw file without a header and without quoting; `columns` names its fields.

    It is read as UTF-8 if all of it is, else as Latin-1: MovieLens published both.
    """
    _read_start(path)
    encoding = _find_encoding(path)

    def rows(picked: Sequence[str]) -> Iterator[Row]:
        pick = _picker(columns, picked)
        for line, text in enumerate(_read_lines(path, encoding), start=1):
            text = text.rstrip("\r\n")
            fields = text.split(separator)
            if len(fields) == len(columns):
                yield Row(line, pick(fields))
            elif text:
                yield Row(line, (text,), f"expected {len(columns)} fields separated by {separator!r}")

    return RowSource(columns, rows)


def _open_csv(path: Path) -> RowSource:
    header_line = next(_read_lines(path), "")
    delimiter = max(",\t;", key=header_line.count)

    def parse() -> Iterator[tuple[int, list[str], str]]:
        return _parse_csv(_read_lines(path), delimiter)

    _, header, reason = next(parse(), (1, [], "no header"))
    if reason:
        raise InputError(path, [Problem(1, reason)], remedy="the first line must name the columns")
    columns = tuple(name.strip() for name in header)

    def rows(picked: Sequence[str]) -> Iterator[Row]:
        pick = _picker(columns, picked)
        for line, fields, reason in itertools.islice(parse(), 1, None):
            if reason:
                yield Row(line, fields, reason)
            else:
                yield Row(line, pick(fields))

    return RowSource(columns, rows)


def _parse_csv(lines: Iterator[str], delimiter: str) -> Iterator[tuple[int, list[str], str]]:
    """Parse CSV strictly: (line, fields, ""), or (line, [raw text], reason). Blank lines are no rows.

    A record that goes wrong after running over several lines had a stray quote: only its first line is given up, the
    others are read again.
    """
    feed = _Feed(lines)
    reader = csv.reader(feed, delimiter=delimiter, strict=True)
    width = 0
    while True:
        line = feed.line + 1
        feed.taken.clear()
        try:
            fields, reason = next(reader), ""
        except StopIteration:
            return
        except csv.Error as error:
            fields, reason = [], f"not CSV ({error})"
        if not fields and not reason:
            continue
        width = width or len(fields)
        if not reason and len(fields) != width:
            reason = "wrong number of columns"
        if reason:
            fields = [feed.give_back_all_but_first().rstrip("\r\n")]
        yield line, fields, reason


class _Feed:
    """Lines for csv.reader that remember what the current record took, so that it can be given back."""

    def __init__(self, lines: Iterator[str]) -> None:
        self._lines = lines
        self._again: list[str] = []  # next one last
        self.taken: list[str] = []
        self.line = 0

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        text = self._again.pop() if self._again else next(self._lines)
        self.taken.append(text)
        self.line += 1
        return text

    def give_back_all_but_first(self) -> str:
        first, *others = self.taken
        self._again.extend(reversed(others))
        self.line -= len(others)
        return first


def _open_json_lines(path: Path) -> RowSource:
    peeked = itertools.islice((found for _, found, _ in _parse_json(path) if isinstance(found, dict)), _PEEKED_OBJECTS)
    columns = tuple(dict.fromkeys(key for found in peeked for key in found))

    def rows(picked: Sequence[str]) -> Iterator[Row]:
        for line, found, text in _parse_json(path):
            if isinstance(found, dict):
                yield Row(line, tuple([_to_text(found.get(name)) for name in picked]))
            else:
                yield Row(line, (text,), "not a JSON object")

    return RowSource(columns, rows)


def _parse_json(path: Path) -> Iterator[tuple[int, Any, str]]:
    for line, text in enumerate(_read_lines(path), start=1):
        text = text.strip()
        if text:
            try:
                yield line, json.loads(text, parse_float=_number_as_written), text
            except (ValueError, RecursionError):
                yield line, None, text


def _open_parquet(path: Path) -> RowSource:
    try:
        columns = tuple(pq.read_schema(path).names)
    except (pa.ArrowException, OSError) as error:
        raise _damaged(path, error) from error

    def rows(picked: Sequence[str]) -> Iterator[Row]:
        present = [name for name in picked if name in columns]
        line = 0
        try:
            with pq.ParquetFile(path) as file:
                for batch in file.iter_batches(columns=present):
                    values = {name: list(map(_to_text, batch.column(name).to_pylist())) for name in present}
                    empty = [""] * batch.num_rows  # a list: two missing columns would share an iterator
                    for fields in zip(*(values.get(name, empty) for name in picked), strict=True):
                        line += 1
                        yield Row(line, fields)
                expected = file.metadata.num_rows
        except (pa.ArrowException, OSError) as error:
            raise _damaged(path, error, line) from error
        if line != expected:
            raise _damaged(path, f"it names {expected:,} rows and holds {line:,}", line)

    return RowSource(columns, rows)


def _picker(columns: Sequence[str], picked: Sequence[str]) -> Callable[[list[str]], tuple[str, ...]]:
    """Return a function from all fields to the picked ones; it appends "" for those that the file lacks."""
    positions = [columns.index(name) if name in columns else len(columns) for name in picked]

    def pick(fields: list[str]) -> tuple[str, ...]:
        fields.append("")
        return tuple([fields[at] for at in positions])

    return pick


def _to_text(value: Any) -> str:
    """Write a typed value as a CSV would: 3.0 is "3" (tables with gaps make floats of ids), lists are joined by `|`."""
    if isinstance(value, str):
        return value
    if value is None or value != value:  # NaN
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    if isinstance(value, list):
        return "|".join(map(_to_text, value))
    return str(value)


def _number_as_written(text: str) -> str:
    """Keep all digits of a JSON number that is not written as a whole one; 3.0 is "3", as `_to_text` has it."""
    if "e" in text or "E" in text:
        return _to_text(float(text))
    whole, _, fraction = text.partition(".")
    return text if fraction.strip("0") else whole


def _read_start(path: Path) -> bytes:
    """Return a file's first bytes, unpacked; refuse what is not read at all."""
    if not path.is_file():
        seen = "is a directory, not a file" if path.is_dir() else "no such file"
        raise InputError(path, [Problem(None, seen)], remedy="name a CSV, JSON lines or Parquet file")
    try:
        with _open_bytes(path) as file:
            start = file.read(4096)
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error) from error
    seen = ""
    if not start.strip():
        seen, remedy = "the file is empty", "export it again; the first line must name the columns"
    elif start.startswith((b"\xff\xfe", b"\xfe\xff")):
        seen, remedy = "the file is UTF-16", "convert it: iconv -f UTF-16 -t UTF-8"
    elif start.startswith((b"PK\x03\x04", b"\xd0\xcf\x11\xe0")):  # the second is Excel's older form
        seen, remedy = "the file is a zip archive or an Excel workbook", "unpack it, or save the sheet as CSV"
    elif start.lstrip().startswith(b"[") and path.suffixes[-1:] != [".csv"]:
        seen, remedy = "the file is one JSON array", "write one object per line: jq -c '.[]'"
    if seen:
        raise InputError(path, [Problem(None, seen)], remedy=remedy)
    return start


def _read_lines(path: Path, encoding: str = "utf-8-sig", errors: str = "surrogateescape") -> Iterator[str]:
    """Yield a text file's lines; bytes that are not UTF-8 become lone surrogates, to be refused row by row."""
    line = 0
    try:
        file = _open_bytes(path)
        with io.TextIOWrapper(file, encoding=encoding, errors=errors, newline="") as lines:
            for text in lines:
                line += 1
                yield text
    except (OSError, EOFError, zlib.error) as error:
        raise _damaged(path, error, line) from error


def _open_bytes(path: Path) -> gzip.GzipFile | io.BufferedReader:
    with path.open("rb") as file:
        packed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if packed else path.open("rb")


def _find_encoding(path: Path) -> str:
    try:
        for _ in _read_lines(path, errors="strict"):
            pass
    except UnicodeDecodeError:
        return "latin-1"
    return "utf-8-sig"


def _damaged(path: Path, error: Exception | str, line: int | None = None) -> InputError:
    problem = Problem(line, f"the file is damaged or cut off after this ({error})")
    return InputError(path, [problem], remedy="fetch or export it again")
