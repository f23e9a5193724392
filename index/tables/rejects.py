"""Rows of a user's file that cannot be used: counted, written down with line and reason, refused if too many."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from index.artifact import write_file
from index.errors import InputError, Problem

MAX_REJECT_SHARE = 0.01


@dataclass(frozen=True)
class ImportReport:
    """How many of a file's rows were kept and rejected. `rows_read == rows_kept + rejected.total()`.

    Attributes:
        rows_read: rows in the file, without header and blank lines.
        rows_kept: rows that were taken over.
        rejected: reason to number of rows.
        notes: tolerated or corrected oddities, as sentences.
    """

    rows_read: int
    rows_kept: int
    rejected: Counter[str] = field(default_factory=Counter)
    notes: tuple[str, ...] = ()


class Rejects:
    """Collect the bad rows of one file.

    Args:
        source: the file they come from.
        path: where they are written down: CSV with line, reason, row.
        max_share: how large a share of the rows may be bad, in [0, 1].
    """

    def __init__(self, source: Path, path: Path, *, max_share: float) -> None:
        if not 0 <= max_share <= 1:
            raise ValueError(f"max_reject_share must be in [0, 1], got {max_share}")
        self.reasons: Counter[str] = Counter()
        self._source = source
        self._path = path
        self._max_share = max_share
        self._rows: list[tuple[int, str, str]] = []
        path.unlink(missing_ok=True)  # an earlier import's

    def add(self, line: int, reason: str, values: Sequence[str]) -> None:
        """Put a row aside. `reason` is one of few, so that it can be counted; the row itself says the rest."""
        self.reasons[reason] += 1
        text = values[0] if len(values) == 1 else _to_line(values).removesuffix("\n")
        self._rows.append((line, reason, _printable(text)))

    def finish(self, rows_read: int, *, advice: str = "") -> None:
        """Write the rejects down, if there are any.

        Args:
            rows_read: all rows of the file.
            advice: another way to mend the file, before the general remedy.

        Raises:
            InputError: no row is left, or more than `max_share` are bad. The rejects are written even so.
        """
        rejected = len(self._rows)
        self._rows.sort()
        if rejected:
            text = "".join(map(_to_line, [("line", "reason", "row"), *self._rows]))
            write_file(self._path, text.encode())
        if rows_read == 0:
            raise InputError(self._source, [Problem(None, "no rows below the header")], remedy="export it again")
        if rejected == rows_read or rejected > self._max_share * rows_read:
            problems = [Problem(line, f"{reason}: {row[:80]}") for line, reason, row in self._rows]
            share = f"{rejected:,} of {rows_read:,} rows are bad, {self._max_share:.2%} are allowed"
            raise InputError(self._source, problems, remedy=f"{share}; {advice}{self._remedy(rejected / rows_read)}")

    def _remedy(self, share: float) -> str:
        mend = f"all are listed in {self._path}; mend them"
        return mend if share == 1 else f"{mend}, or accept the loss with --max-reject-share {share + 0.0005:.3f}"


def _printable(text: str) -> str:
    """Show the bytes that are not UTF-8, which the reader turned into lone surrogates, as \\xe9."""
    return text.encode("utf-8", "backslashreplace").decode().replace("\\udc", "\\x")


def _to_line(values: Sequence[object]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(values)
    return buffer.getvalue()
