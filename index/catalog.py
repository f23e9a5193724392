"""The catalog: what the shop offers, and which row of the index stands for which items.

A row is a *title*. Items that share a title (editions, colours, the same product listed twice) share a row, because a
model that writes titles cannot tell them apart; within a row the items keep the order of the file.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from index.artifact import text_digest, write_file
from index.errors import CorruptArtifactError, MissingArtifactError
from index.workspace import init_command

_FIELDS: list[pa.Field[Any]] = [
    pa.field("item_id", pa.string()),
    pa.field("title", pa.string()),
    pa.field("category", pa.string()),
    pa.field("available", pa.bool_()),
]
_SCHEMA = pa.schema(_FIELDS)


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on offer. Several categories are separated by `|`; an empty category means that none is known."""

    item_id: str
    title: str
    category: str = ""
    available: bool = True


def normalise_title(text: str) -> str:
    """Reduce a title to what must agree for two titles to be the same.

    Unicode's compatibility caseless form (UAX #15, D146), runs of white space as one space, none at the ends.

    Example:
        >>> normalise_title("  The ﬁfth   ELEMENT ")
        'the fifth element'
    """
    if text.isascii():
        return " ".join(text.casefold().split())
    folded = unicodedata.normalize("NFKD", unicodedata.normalize("NFD", text).casefold()).casefold()
    return " ".join(unicodedata.normalize("NFKC", folded).split())


@dataclass(frozen=True)
class Catalog:
    """Items, and their distinct titles as rows. Make one with `Catalog.from_items`; its length is the number of rows.

    Attributes:
        items: all items in the order of the file.
        titles: the distinct titles, as the first item of each row spells them; `titles[r]` is row r of the index.
        digest: SHA-256 over every item's id, title and category in order. Availability is left out: it changes by the
            hour, and nothing that was trained or indexed depends on it.

    Example:
        >>> catalog = Catalog.from_items([Item("a", "Tetris"), Item("b", "Doom"), Item("c", "TETRIS")])
        >>> catalog.titles, catalog.find_item_row("c"), catalog.find_title_row("doom ")
        (('Tetris', 'Doom'), 0, 1)
        >>> [item.item_id for item in catalog.items_of(0)]
        ['a', 'c']
    """

    items: tuple[Item, ...]
    titles: tuple[str, ...]
    digest: str
    _items_by_row: tuple[tuple[Item, ...], ...] = field(repr=False, compare=False)
    _row_by_item: dict[str, int] = field(repr=False, compare=False)
    _row_by_title: dict[str, int] = field(repr=False, compare=False)

    @classmethod
    def from_items(cls, items: Iterable[Item]) -> Catalog:
        """Group items by title.

        Raises:
            ValueError: two items have the same id.
        """
        kept = tuple(items)
        rows: list[list[Item]] = []
        row_by_item: dict[str, int] = {}
        row_by_title: dict[str, int] = {}
        for item in kept:
            if item.item_id in row_by_item:
                raise ValueError(f"item id {item.item_id!r} occurs twice; ids must be unique")
            row = row_by_title.setdefault(normalise_title(item.title), len(rows))
            if row == len(rows):
                rows.append([])
            rows[row].append(item)
            row_by_item[item.item_id] = row
        return cls(
            items=kept,
            titles=tuple(group[0].title for group in rows),
            digest=text_digest(*(text for item in kept for text in (item.item_id, item.title, item.category))),
            _items_by_row=tuple(map(tuple, rows)),
            _row_by_item=row_by_item,
            _row_by_title=row_by_title,
        )

    def __len__(self) -> int:
        return len(self.titles)

    def find_item_row(self, item_id: str) -> int | None:
        """Return the row of an item, or None when the catalog has no such item."""
        return self._row_by_item.get(item_id)

    def find_title_row(self, text: str) -> int | None:
        """Return the row whose title is `text` up to `normalise_title`, or None."""
        return self._row_by_title.get(normalise_title(text))

    def items_of(self, row: int) -> tuple[Item, ...]:
        """Return the items of a row, at least one, in the order of the file."""
        return self._items_by_row[row]

    def category_of(self, row: int) -> str:
        """Return the category of the row's first item."""
        return self._items_by_row[row][0].category


def write_catalog(path: Path, catalog: Catalog) -> None:
    """Write the catalog as Parquet, one row per item; a reader sees the old file or the new one, never a part."""
    columns = [[getattr(item, name) for item in catalog.items] for name in _SCHEMA.names]
    table = pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=_SCHEMA)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_file(path, buffer.getvalue().to_pybytes())


def read_catalog(path: Path) -> Catalog:
    """Read what `write_catalog` wrote.

    Raises:
        MissingArtifactError: there is no such file.
        CorruptArtifactError: it is no Parquet file, or not one of ours.
    """
    if not path.is_file():
        raise MissingArtifactError("catalog", path, command=init_command(path.parent))
    try:
        table = pq.read_table(path, schema=_SCHEMA)
        return Catalog.from_items(Item(**row) for row in table.to_pylist())
    except (pa.ArrowException, ValueError) as error:
        remedy = f"make it again with `{init_command(path.parent)}`"
        raise CorruptArtifactError(path, f"unreadable catalog ({error})", remedy=remedy) from error
