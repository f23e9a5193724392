"""Read the users to score from Parquet, some rows at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from index.errors import InputError, Problem


@dataclass(frozen=True, slots=True)
class UserRow:
    """One row, counted from 1. Without a history the stored one is read. `is_repeated`: an earlier row has its id."""

    row: int
    user_id: str | None
    history: list[str] | None
    is_repeated: bool


def open_users(path: Path) -> pq.ParquetFile:
    """Open a users' file: user_id (text or whole numbers), optionally history (list of item ids or titles).

    Raises:
        InputError: no such file, not Parquet, or a column is missing or of another type.
    """
    remedy = "give a Parquet file with user_id (text) and optionally history (list of item ids)"
    if not path.is_file():
        raise InputError(path, [Problem(None, "no such file")], remedy=remedy)
    try:
        file = pq.ParquetFile(path)
    except pa.ArrowInvalid as error:
        raise InputError(path, [Problem(None, f"not a Parquet file ({error})")], remedy=remedy) from error
    schema = file.schema_arrow
    problems = []
    if "user_id" not in schema.names:
        problems.append(Problem(None, f"no column user_id; it has {', '.join(schema.names)}"))
    elif not _is_id(schema.field("user_id").type):
        problems.append(Problem(None, f"user_id is {schema.field('user_id').type}, neither text nor whole numbers"))
    if "history" in schema.names:
        kind = schema.field("history").type
        if not ((pa.types.is_list(kind) or pa.types.is_large_list(kind)) and _is_id(kind.value_type)):
            problems.append(Problem(None, f"history is {kind}, not a list of item ids"))
    if problems:
        raise InputError(path, problems, remedy=remedy)
    return file


def read_shards(file: pq.ParquetFile, shard_rows: int) -> Iterator[list[UserRow]]:
    """Yield the rows in order, at most `shard_rows` together; the same file gives the same shards."""
    columns = [name for name in ("user_id", "history") if name in file.schema_arrow.names]
    seen: set[str | None] = set()
    row = 0
    for batch in file.iter_batches(batch_size=shard_rows, columns=columns):
        ids = pc.cast(batch["user_id"], pa.string()).to_pylist()
        histories = batch["history"].to_pylist() if "history" in columns else [None] * len(ids)
        rows = []
        for user_id, history in zip(ids, histories, strict=True):
            row += 1
            entries = None if history is None else ["" if entry is None else str(entry) for entry in history]
            rows.append(UserRow(row, user_id, entries, is_repeated=user_id in seen))
            seen.add(user_id)
        yield rows


def _is_id(kind: pa.DataType) -> bool:
    return pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)
