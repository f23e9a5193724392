"""The interaction log: who chose what, when. Read from a user's file, checked, and grouped by user in order of time."""

from __future__ import annotations

import itertools
import math
from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from index.artifact import write_file
from index.catalog.catalog import Catalog
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError
from index.limits import MAX_ID_CHARACTERS
from index.tables.layouts import INTERACTION_LAYOUTS
from index.tables.rejects import MAX_REJECT_SHARE, ImportReport, Rejects
from index.tables.table import advice_for, open_table
from index.tables.timestamps import find_unit, in_unit, parse_timestamp, to_seconds
from index.workspace import init_command

_UNKNOWN = "unknown item_id"
_DAY_S = 86_400


@dataclass(frozen=True)
class Interactions:
    """Interactions in parallel arrays [n]: users in order of first appearance, each user's rows in order of time.

    Attributes:
        user_ids: text, as objects.
        item_ids: text, as objects; which of the items that share a title.
        item_rows: int64, the item's catalog row.
        timestamps: int64, seconds since 1970 in UTC, or the position in an order; see `has_only_order`.
        ratings: float32, NaN where there is none.
    """

    user_ids: NDArray[np.object_]
    item_ids: NDArray[np.object_]
    item_rows: NDArray[np.int64]
    timestamps: NDArray[np.int64]
    ratings: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.item_rows)

    def by_user(self) -> Iterator[tuple[str, NDArray[np.int64], NDArray[np.int64]]]:
        """Yield (user_id, catalog rows, timestamps) of every user, oldest interaction first."""
        bounds = self._bounds()
        for start, end in itertools.pairwise(bounds):
            yield self.user_ids[start], self.item_rows[start:end], self.timestamps[start:end]

    def count_users(self) -> int:
        """Return the number of distinct users."""
        return len(self._bounds()) - 1

    def _bounds(self) -> list[int]:
        changes = np.flatnonzero(self.user_ids[1:] != self.user_ids[:-1]) + 1
        return [0, *changes.tolist(), len(self)] if len(self) else [0]


def read_interactions(
    path: Path, catalog: Catalog, *, rejects_path: Path, max_reject_share: float = MAX_REJECT_SHARE
) -> tuple[Interactions, ImportReport]:
    """Read interactions: user_id, item_id, timestamp, optionally rating, in any layout of `index.tables.layouts`.

    Timestamps are numbers since 1970 (their median shows whether in seconds, milli-, micro- or nanoseconds) or ISO
    8601 (UTC unless they say otherwise). Inside a user rows are sorted by time, to the nanosecond; equal times keep the
    order of the file. A row is rejected when its user is empty or over-long, its item unknown, its time or rating
    unreadable, when it repeats an earlier row exactly, or cannot be parsed; it goes to the rejects file as it was
    written, and the rest goes on. What only the whole log shows (repeats, odd times) is read from the file once more.

    Args:
        path: the file.
        catalog: must hold the items; its rows are what the interactions refer to.
        rejects_path: where rejected rows are written, with line and reason.
        max_reject_share: largest share of bad rows that is tolerated, in [0, 1].

    Raises:
        InputError: the file cannot be read, lacks a column, or too many rows are bad.
    """
    rejects = Rejects(path, rejects_path, max_share=max_reject_share)
    table = open_table(path, INTERACTION_LAYOUTS)
    log = _Log(catalog)
    for line, values in table.rows(rejects):
        reason = log.add(line, values)
        if reason:
            rejects.add(line, reason, values)
    rows_read = len(log.lines) + rejects.reasons.total()
    interactions, aside, notes = log.sort()
    for line, values in table.rows_at(aside):
        rejects.add(line, aside[line], values)
    known = f"the catalog's ids look like {catalog.items[0].item_id!r}; " if rejects.reasons[_UNKNOWN] else ""
    rejects.finish(rows_read, advice=advice_for(rejects) + known)
    report = ImportReport(rows_read, len(interactions), rejects.reasons, (f"read as {table.layout.name}", *notes))
    return interactions, report


def has_only_order(interactions: Interactions) -> bool:
    """Say whether the timestamps only number each user's rows: then no split by a common time is possible.

    They do when all lie in the first day of 1970, where no log begins, and rise strictly inside every user. They need
    not be 1, 2, 3, ...: others count from 0, and a rejected row leaves a gap.
    """
    timestamps, user_ids = interactions.timestamps, interactions.user_ids
    rising = np.diff(timestamps) > 0
    return bool(timestamps.max(initial=0) < _DAY_S and np.all(rising | (user_ids[1:] != user_ids[:-1])))


def write_interactions(path: Path, interactions: Interactions) -> None:
    """Write the log as Parquet; a reader sees the old file or the new one, never a part."""
    table = pa.table(
        {
            "user_id": pa.array(interactions.user_ids, pa.string()),
            "item_id": pa.array(interactions.item_ids, pa.string()),
            "timestamp": pa.array(interactions.timestamps, pa.int64()),
            "rating": pa.array(interactions.ratings, pa.float32(), from_pandas=True),  # NaN is written as null
        }
    )
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_file(path, buffer.getvalue().to_pybytes())


def load_interactions(path: Path, catalog: Catalog) -> Interactions:
    """Load what `write_interactions` wrote, with the rows of this catalog.

    Raises:
        MissingArtifactError: there is no such file.
        CorruptArtifactError: it is not a Parquet file, or not a log.
        MismatchError: it refers to an item that the catalog lacks.
    """
    if not path.is_file():
        raise MissingArtifactError("interactions", path, command=init_command(path.parent))
    again = f"make both again with `{init_command(path.parent)}`"
    try:
        table = pq.read_table(path)
        user_ids, item_ids, timestamps, ratings = (
            table[name].to_numpy() for name in ("user_id", "item_id", "timestamp", "rating")
        )
    except (pa.ArrowException, KeyError) as error:
        raise CorruptArtifactError(path, f"unreadable interactions ({error})", remedy=again) from error
    try:
        item_rows = _rows_of(item_ids, catalog)
    except KeyError as error:
        expected = f"an item of the catalog's {len(catalog.items):,}"
        raise MismatchError(f"{path}: item", expected=expected, found=str(error), remedy=again) from error
    return Interactions(user_ids, item_ids, item_rows, timestamps.astype(np.int64), ratings.astype(np.float32))


class _Log:
    """Rows in the order of the file, as compact as they come, until they can be sorted."""

    def __init__(self, catalog: Catalog) -> None:
        self._catalog = catalog
        self._user_codes: dict[str, int] = {}
        self._item_codes = {item.item_id: code for code, item in enumerate(catalog.items)}
        self.lines = array("q")
        self._users = array("q")
        self._items = array("q")
        self._times = array("q")
        self._fractions = array("i")  # billionths
        self._is_iso = array("b")
        self._ratings = array("f")

    def add(self, line: int, values: Sequence[str]) -> str:
        """Keep a row, or return why it cannot be kept."""
        user_id, item_id, timestamp, rating = values
        item = self._item_codes.get(item_id)
        if item is None:
            return _UNKNOWN if item_id else "empty item_id"
        if not user_id:
            return "empty user_id"
        if len(user_id) > MAX_ID_CHARACTERS:
            return f"user_id over {MAX_ID_CHARACTERS} characters"
        time = parse_timestamp(timestamp)
        if time is None:
            return "unreadable timestamp"
        stars = _parse_rating(rating)
        if stars is None:
            return "unreadable rating"
        self.lines.append(line)
        self._users.append(self._user_codes.setdefault(user_id, len(self._user_codes)))
        self._items.append(item)
        self._times.append(time[0])
        self._fractions.append(time[1])
        self._is_iso.append(time[2])
        self._ratings.append(stars)
        return ""

    def sort(self) -> tuple[Interactions, dict[int, str], list[str]]:
        """Order by user and time.

        Returns:
            The interactions; the lines that are not among them, with the reason; what was noticed.
        """
        users, items = np.array(self._users, dtype=np.int64), np.array(self._items, dtype=np.int64)
        numbers, is_iso = np.array(self._times, dtype=np.int64), np.array(self._is_iso, dtype=bool)
        fractions = np.array(self._fractions, dtype=np.int64)
        ratings = np.array(self._ratings, dtype=np.float32)
        user_ids = np.array(list(self._user_codes), dtype=object)
        item_ids = np.array([item.item_id for item in self._catalog.items], dtype=object)

        unit, ticks = find_unit(numbers[~is_iso])
        odd = np.flatnonzero(~is_iso & ~in_unit(numbers, ticks))
        seconds, nanoseconds = to_seconds(numbers, fractions, ticks)
        seconds, nanoseconds = np.where(is_iso, numbers, seconds), np.where(is_iso, fractions, nanoseconds)
        repeated = _find_repeated(users, items, seconds, nanoseconds, ratings.view(np.int32))
        aside = {self.lines[at]: "repeats an earlier row exactly" for at in repeated.tolist()}
        aside |= {self.lines[at]: f"timestamp is not in {unit} like the others" for at in odd.tolist()}

        kept = np.delete(np.arange(len(users)), np.union1d(odd, repeated))
        by_user = kept[np.argsort(users[kept], kind="stable")]
        step, finer_step = np.diff(seconds[by_user]), np.diff(nanoseconds[by_user])
        is_back = (step < 0) | ((step == 0) & (finer_step < 0))
        unsorted = int(np.count_nonzero((np.diff(users[by_user]) == 0) & is_back))
        # stable: equal times stay in the order of the file
        order = kept[np.lexsort((nanoseconds[kept], seconds[kept], users[kept]))]

        notes = [] if ticks == 1 else [f"timestamps were in {unit}, kept in seconds"]
        if unsorted:
            notes.append(f"rows earlier than the same user's row before: {unsorted:,}; sorted")
        if single := int(np.count_nonzero(np.bincount(users[kept], minlength=1) == 1)):
            notes.append(f"users with one interaction: {single:,}; kept, but there is nothing to predict from")
        interactions = Interactions(
            user_ids=user_ids[users[order]],
            item_ids=item_ids[items[order]],
            item_rows=_rows_of(item_ids, self._catalog)[items[order]],
            timestamps=seconds[order],
            ratings=ratings[order],
        )
        return interactions, aside, notes


def _parse_rating(text: str) -> float | None:
    if not text:
        return math.nan
    try:
        rating = float(text)
    except ValueError:
        return None
    return None if math.isinf(rating) else rating


def _find_repeated(*columns: NDArray[Any]) -> NDArray[np.int64]:
    """Return the positions of rows that equal an earlier one in every column."""
    order = np.lexsort(columns)  # stable: the earliest of equal rows comes first
    same = np.ones(max(len(order) - 1, 0), dtype=bool)
    for column in columns:
        same &= column[order[1:]] == column[order[:-1]]
    return np.sort(order[1:][same])


def _rows_of(item_ids: Iterable[str], catalog: Catalog) -> NDArray[np.int64]:
    """Return the catalog row of each item, int64 [n]; a KeyError names an unknown one."""
    row_of = {item.item_id: row for row in range(len(catalog)) for item in catalog.items_of(row)}
    return np.array([row_of[item_id] for item_id in item_ids], dtype=np.int64)
