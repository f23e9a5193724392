"""Results for people, on standard output, and the same results for programs, as JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from index.artifact import write_file


def say(*lines: str) -> None:
    """Print lines as they are."""
    for line in lines:
        sys.stdout.write(line + "\n")
    sys.stdout.flush()


def show_table(
    rows: Sequence[Mapping[str, object]], *, title: str | None = None, styles: Mapping[str, str] | None = None
) -> None:
    """Print rows as a table. Columns are the keys of the first row; numbers are set to the right.

    Args:
        rows: one mapping per line, all with the same keys; a float is shown with four decimals.
        title: shown above.
        styles: cell text to rich style, for instance {"wrong": "red"}.
    """
    if not rows:
        return
    table = Table(title=title, title_justify="left", title_style="bold")
    for name in rows[0]:
        numeric = all(isinstance(row[name], int | float) for row in rows)
        table.add_column(name, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(text, style=(styles or {}).get(text, "")) for text in map(_cell, row.values())))
    on_terminal = sys.stdout.isatty()
    Console(file=sys.stdout, width=None if on_terminal else 160).print(table)


def write_json(path: Path | None, content: Any) -> None:
    """Write content as indented JSON, whole or not at all; no path, no file."""
    if path is not None:
        write_file(path, (json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n").encode())


def _cell(value: object) -> str:
    if value is None:
        return ""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
