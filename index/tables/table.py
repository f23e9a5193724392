"""Read a user's table of items or interactions row by row, in our columns, from any layout that is understood."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from index.tables.layouts import Layout, find_layout, open_source
from index.tables.rejects import Rejects
from index.tables.rows import RowSource

NOT_UTF8 = "bytes that are not UTF-8"


@dataclass(frozen=True)
class Table:
    """A recognised file."""

    path: Path
    layout: Layout
    source: RowSource

    def rows(self, rejects: Rejects) -> Iterator[tuple[int, Sequence[str]]]:
        """Yield (line, values in our columns) of every row that can be read; the others go to `rejects`.

        Values are text, stripped of white space at the ends; "" where the file has none.
        """
        for line, values, reason in self.source.rows(self.layout.picked):
            if reason:
                rejects.add(line, reason, values)
            elif not _is_unicode(values):
                rejects.add(line, NOT_UTF8, values)
            else:
                yield line, self._to_ours(values)

    def rows_at(self, lines: Collection[int]) -> Iterator[tuple[int, Sequence[str]]]:
        """Read the file again and yield those of its `rows` that stand at these lines, up to the last of them.

        So a reader need not keep the text of every row to show a few as they were written.
        """
        last = max(lines, default=0)
        if last:
            for line, values, _ in self.source.rows(self.layout.picked):
                if line in lines:
                    yield line, self._to_ours(values)
                if line >= last:
                    return

    def _to_ours(self, values: Sequence[str]) -> Sequence[str]:
        stripped = [value.strip() for value in values]
        return self.layout.to_ours(stripped) if self.layout.to_ours else stripped


def open_table(path: Path, layouts: Sequence[Layout]) -> Table:
    """Open a file and recognise its layout.

    Args:
        path: CSV (comma, semicolon or tab), JSON lines or Parquet, gzipped or not, or a raw MovieLens file.
        layouts: `ITEM_LAYOUTS` or `INTERACTION_LAYOUTS`.

    Raises:
        InputError: it cannot be read, or lacks a column; with what to do.
    """
    source = open_source(path)
    return Table(path, find_layout(path, source.columns, layouts), source)


def advice_for(rejects: Rejects) -> str:
    """Return a remedy for unreadable rows, to precede others; "" when none is unreadable."""
    return "convert the file: iconv -f LATIN1 -t UTF-8; " if rejects.reasons[NOT_UTF8] else ""


def _is_unicode(values: Sequence[str]) -> bool:
    text = "".join(values)
    if text.isascii():
        return True
    try:
        text.encode()
    except UnicodeEncodeError:  # lone surrogates: what the decoder made of bad bytes, or "\ud800" in JSON
        return False
    return True
