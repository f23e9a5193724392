"""The catalog: what the shop offers, and which row of the index stands for which items.

A row is a *title*. Items that share a title (editions, colours, the same product listed twice) share a row, because a
model that writes titles cannot tell them apart; within a row the items keep the order of the file.

A catalog never changes; `changed` returns another one, which shares with it what stayed. Rows never move and are never
given to another title: new titles get new rows, and a row whose items are all gone stays, empty.
"""

from __future__ import annotations

import json
import unicodedata
from bisect import bisect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from index.artifact import text_digest, write_file
from index.catalog.overlay import ListDraft, OverlayDict, OverlayList
from index.errors import CorruptArtifactError, MissingArtifactError
from index.workspace import init_command

_FIELDS: list[pa.Field[Any]] = [
    pa.field("item_id", pa.string()),
    pa.field("title", pa.string()),
    pa.field("category", pa.string()),
    pa.field("available", pa.bool_()),
]
_SCHEMA = pa.schema(_FIELDS)


_KEY = b"softrec"  # in the Parquet file's metadata: `imported_at` and `earlier_digests`


@dataclass(frozen=True, slots=True)
class Position:
    """A point in the sequence of all changes of a shop's catalog.

    Attributes:
        changes: how many there are before it.
        chain: hash over all of them and the catalog that they began with.
    """

    changes: int
    chain: str


@dataclass(frozen=True, slots=True)
class Item:
    """One thing on offer. Several categories are separated by `|`; an empty category means that none is known."""

    item_id: str
    title: str
    category: str = ""
    available: bool = True


def normalise_title(text: str) -> str:
    """Return the form of a title that equal titles share.

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

    Each item id has a slot, in the order of the file and then of first appearance; that order holds within a row.

    Attributes:
        titles: one per row, as the row's first item writes it; `titles[r]` is row r of the index.
        slots: the items by slot; None where one was removed.
        digest: SHA-256 over every item's id, title and category in order, and over every change of them since.
            Availability is left out: it changes by the hour, and nothing that was trained or indexed depends on it.
        imported_digest: `digest` of the catalog as it was imported: what adapters are trained on.
        imported_at: the changes that the imported catalog covers: none, or those that `softrec rebase` folded into it.
        earlier_digests: `imported_digest` of the catalogs before each rebase, oldest first.
        empty_rows: the rows without items; none before the first change.

    Example:
        >>> catalog = Catalog.from_items([Item("a", "Tetris"), Item("b", "Doom"), Item("c", "TETRIS")])
        >>> catalog.titles, catalog.find_item_row("c"), catalog.find_title_row("doom ")
        (('Tetris', 'Doom'), 0, 1)
        >>> [item.item_id for item in catalog.items_of(0)]
        ['a', 'c']
        >>> later = catalog.changed([("b", None), ("d", Item("d", "Myst"))])
        >>> list(later.titles), later.find_title_row("Doom"), later.find_title_row("Myst")
        (['Tetris', 'Doom', 'Myst'], None, 2)
    """

    titles: Sequence[str] = field(compare=False)
    slots: Sequence[Item | None] = field(repr=False, compare=False)
    digest: str
    imported_digest: str
    imported_at: Position = field(compare=False)
    earlier_digests: tuple[str, ...] = field(repr=False, compare=False)
    empty_rows: frozenset[int] = field(repr=False, compare=False)
    _items_by_row: Sequence[tuple[Item, ...]] = field(repr=False, compare=False)
    _row_by_slot: Sequence[int] = field(repr=False, compare=False)
    _slot_by_item: Mapping[str, int] = field(repr=False, compare=False)
    _row_by_title: Mapping[str, int] = field(repr=False, compare=False)
    _overlaid: Catalog | None = field(default=None, repr=False, compare=False)

    @classmethod
    def from_items(
        cls, items: Iterable[Item], *, imported_at: Position | None = None, earlier_digests: Sequence[str] = ()
    ) -> Catalog:
        """Group items by title.

        Args:
            imported_at: the changes that these items cover, after a rebase; None: a first import, which covers none.

        Raises:
            ValueError: two items have the same id.
        """
        kept = tuple(items)
        rows: list[list[Item]] = []
        slot_by_item: dict[str, int] = {}
        row_by_slot: list[int] = []
        row_by_title: dict[str, int] = {}
        for slot, item in enumerate(kept):
            if slot_by_item.setdefault(item.item_id, slot) != slot:
                raise ValueError(f"item id {item.item_id!r} occurs twice; ids must be unique")
            row = row_by_title.setdefault(normalise_title(item.title), len(rows))
            if row == len(rows):
                rows.append([])
            rows[row].append(item)
            row_by_slot.append(row)
        digest = text_digest(*(text for item in kept for text in (item.item_id, item.title, item.category)))
        return cls(
            titles=tuple(group[0].title for group in rows),
            slots=kept,
            digest=digest,
            imported_digest=digest,
            imported_at=imported_at or Position(0, digest[:16]),
            earlier_digests=tuple(earlier_digests),
            empty_rows=frozenset(),
            _items_by_row=tuple(map(tuple, rows)),
            _row_by_slot=tuple(row_by_slot),
            _slot_by_item=slot_by_item,
            _row_by_title=row_by_title,
        )

    def __len__(self) -> int:
        return len(self.titles)

    @cached_property
    def items(self) -> tuple[Item, ...]:
        """All items, in the order of their slots."""
        return tuple(item for item in self.slots if item is not None)

    @property
    def overlaid(self) -> Catalog:
        """The immutable catalog under this overlay; the catalog itself if there is no overlay."""
        return self._overlaid or self

    @property
    def changed_slots(self) -> list[int]:
        """Slots that `overlaid` lacks or that hold another item there, ascending."""
        return sorted(self.slots.over) if isinstance(self.slots, OverlayList) else []

    def find_item(self, item_id: str) -> Item | None:
        """Return an item, or None when the catalog has no such item (any more)."""
        slot = self._slot_by_item.get(item_id)
        return None if slot is None else self.slots[slot]

    def find_slot(self, item_id: str) -> int | None:
        """Return the slot of an item, also of a removed one, or None if the id never appeared."""
        return self._slot_by_item.get(item_id)

    def row_of_slot(self, slot: int) -> int:
        """Return the row of a slot's item; of a removed item, the row that it was in."""
        return self._row_by_slot[slot]

    def find_item_row(self, item_id: str) -> int | None:
        """Return the row of an item, or None when the catalog has no such item (any more)."""
        slot = self._slot_by_item.get(item_id)
        return None if slot is None or self.slots[slot] is None else self._row_by_slot[slot]

    def recall_item_row(self, item_id: str) -> int | None:
        """Return the row of an item, also of one that was removed since: a user's history may still name it."""
        slot = self._slot_by_item.get(item_id)
        return None if slot is None else self._row_by_slot[slot]

    def find_title_row(self, text: str) -> int | None:
        """Return the row whose title is `text` up to `normalise_title`, or None; an empty row is not found."""
        row = self._row_by_title.get(normalise_title(text))
        return None if row is None or not self._items_by_row[row] else row

    def items_of(self, row: int) -> tuple[Item, ...]:
        """Return the items of a row in the order of their slots; only changes can leave a row without items."""
        return self._items_by_row[row]

    def category_of(self, row: int) -> str:
        """Return the category of the row's first item; "" for an empty row."""
        items = self._items_by_row[row]
        return items[0].category if items else ""

    def changed(self, steps: Iterable[tuple[str, Item | None]]) -> Catalog:
        """Return the catalog after some steps, each an item id and the item that it stands for afterwards.

        An item whose title changes goes to the row of its new title; None removes it. Costs as much as all steps since
        `compacted`, not as much as the catalog.
        """
        draft = _Draft(self)
        for item_id, item in steps:
            draft.set(item_id, item)
        return draft.finish()

    def compacted(self) -> Catalog:
        """Return the same catalog without an overlay: one pass over all of it."""
        return replace(
            self,
            titles=tuple(self.titles),
            slots=tuple(self.slots),
            _items_by_row=tuple(self._items_by_row),
            _row_by_slot=tuple(self._row_by_slot),
            _slot_by_item=dict(self._slot_by_item),
            _row_by_title=dict(self._row_by_title),
            _overlaid=None,
        )


class _Draft:
    """The overlay of a catalog while steps are taken."""

    def __init__(self, catalog: Catalog) -> None:
        self._overlaid = base = catalog.overlaid
        self._titles = ListDraft(base.titles, catalog.titles)
        self._slots = ListDraft(base.slots, catalog.slots)
        self._items_by_row = ListDraft(base._items_by_row, catalog._items_by_row)
        self._row_by_slot = ListDraft(base._row_by_slot, catalog._row_by_slot)
        self._slot_by_item = _copy_over(base._slot_by_item, catalog._slot_by_item)
        self._row_by_title = _copy_over(base._row_by_title, catalog._row_by_title)
        self._empty = set(catalog.empty_rows)
        self._digest = catalog.digest

    def set(self, item_id: str, item: Item | None) -> None:
        slot = self._slot_by_item.get(item_id)
        before = None if slot is None else self._slots[slot]
        if item == before:
            return
        if slot is None:
            slot = len(self._slots)
            self._slot_by_item.over[item_id] = slot
        if before is not None:
            self._remove_from(self._row_by_slot[slot], before)
        if item is not None:
            self._row_by_slot[slot] = self._add_to_row(item, slot)
        self._slots[slot] = item
        if _decisive(before) != _decisive(item):
            self._digest = text_digest(self._digest, item_id, *_decisive(item))

    def finish(self) -> Catalog:
        return replace(
            self._overlaid,
            titles=self._titles.finish(),
            slots=self._slots.finish(),
            digest=self._digest,
            empty_rows=frozenset(self._empty),
            _items_by_row=self._items_by_row.finish(),
            _row_by_slot=self._row_by_slot.finish(),
            _slot_by_item=self._slot_by_item,
            _row_by_title=self._row_by_title,
            _overlaid=self._overlaid,
        )

    def _remove_from(self, row: int, item: Item) -> None:
        self._items_by_row[row] = tuple(other for other in self._items_by_row[row] if other is not item)
        if not self._items_by_row[row]:
            self._empty.add(row)

    def _add_to_row(self, item: Item, slot: int) -> int:
        title = normalise_title(item.title)
        row = self._row_by_title.get(title)
        if row is None:
            row = len(self._titles)
            self._row_by_title.over[title] = row
            self._titles[row] = item.title
            self._items_by_row[row] = ()
        there = self._items_by_row[row]
        at = bisect([self._slot_by_item[other.item_id] for other in there], slot)
        self._items_by_row[row] = (*there[:at], item, *there[at:])
        self._empty.discard(row)
        return row


def _copy_over(base: Mapping[str, int], now: Mapping[str, int]) -> OverlayDict[str, int]:
    assert isinstance(base, dict)  # what is overlaid is no overlay itself
    return OverlayDict(base, dict(now.over) if isinstance(now, OverlayDict) else {})


def _decisive(item: Item | None) -> tuple[str, ...]:
    """The fields of an item that the digest covers."""
    return () if item is None else (item.title, item.category)


def write_catalog(path: Path, catalog: Catalog) -> None:
    """Write the catalog as Parquet, one row per item; a reader sees the old file or the new one, never a part."""
    columns = [[getattr(item, name) for item in catalog.items] for name in _SCHEMA.names]
    facts = {**asdict(catalog.imported_at), "earlier_digests": catalog.earlier_digests}
    schema = _SCHEMA.with_metadata({_KEY: json.dumps(facts).encode()})
    table = pa.table(dict(zip(_SCHEMA.names, columns, strict=True)), schema=schema)
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_file(path, buffer.getvalue().to_pybytes())


def read_catalog(path: Path) -> Catalog:
    """Read what `write_catalog` wrote.

    Raises:
        MissingArtifactError: there is no such file.
        CorruptArtifactError: it is not a Parquet file, or not a catalog.
    """
    if not path.is_file():
        raise MissingArtifactError("catalog", path, command=init_command(path.parent))
    try:
        with path.open("rb") as file:  # one file, even if it is replaced meanwhile
            facts = json.loads((pq.read_schema(file).metadata or {})[_KEY])
            file.seek(0)
            table = pq.read_table(file, schema=_SCHEMA)
        position = Position(facts["changes"], facts["chain"])
        items = (Item(**row) for row in table.to_pylist())
        return Catalog.from_items(items, imported_at=position, earlier_digests=facts["earlier_digests"])
    except (pa.ArrowException, ValueError, KeyError) as error:
        remedy = f"make it again with `{init_command(path.parent)}`"
        raise CorruptArtifactError(path, f"unreadable catalog ({error})", remedy=remedy) from error
