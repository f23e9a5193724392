"""Score a file of users, shard by shard, so that a killed run resumes where it stopped.

recs.parquet.parts/       beside the output while a run is unfinished
  run.json                marks the folder as ours and says which run its shards are of; null: of none, they count for
                          nothing. Any other folder of that name is refused
  00000.parquet ...       finished shards, each whole or absent; its rejected rows are in its metadata
recs.parquet              all shards in order, moved into place at the end
recs.rejects.csv          rows that could not be scored: row, user_id, reason
"""

from __future__ import annotations

import asyncio
import csv
import io
import json
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from clients.batch.users_file import UserRow, open_users, read_shards
from clients.errors import RefusedError
from index.artifact import file_digest, naming, write_file
from index.errors import MismatchError
from serving.errors import DeadlineError
from serving.schema import RecommendRequest, RecommendResponse
from training.progress import Advance, Progress

REJECTS = b"softrec.rejects"
RUN = "run.json"
_MADE_BY = "softrec score"
_COLUMNS: dict[str, pa.DataType] = {
    "user_id": pa.string(),
    "rank": pa.int32(),
    "item_id": pa.string(),
    "title": pa.string(),
    "score": pa.float64(),
    "distance": pa.float64(),  # null for an item by popularity
    "log_prob": pa.float64(),  # null for an item whose title the model did not write
    "source": pa.string(),
    "adapter_id": pa.string(),  # null for an answer by popularity
}
SCHEMA = pa.schema(_COLUMNS)

Recommend = Callable[[RecommendRequest, str], Awaitable[RecommendResponse]]  # (request, request_id)


@dataclass(frozen=True)
class BatchSettings:
    """How to score.

    Attributes:
        k: items per user.
        adapter: name or id of the adapter for all; None: each user's own arm, as online.
        timeout_ms: longest wait for one user; past it the row is rejected.
        shard_rows: rows per shard: what a kill can cost, about twenty seconds on two cores.
    """

    k: int = 10
    adapter: str | None = None
    timeout_ms: int = 120_000
    shard_rows: int = 256


@dataclass(frozen=True)
class BatchReport:
    """How many of the users' rows were scored and how many rejected. `resumed_shards` were there already."""

    scored: int
    rejected: int
    resumed_shards: int


async def score_file(
    users: Path,
    output: Path,
    recommend: Recommend,
    settings: BatchSettings,
    *,
    served: Mapping[str, Any],
    concurrency: int,
    restart: bool,
    progress: Progress,
) -> BatchReport:
    """Recommend to every user of a Parquet file and write Parquet; the module's docstring lists the files.

    Args:
        users: see `clients.batch.users_file`.
        output: replaced when all is done, one row per user and rank.
        served: what answers (index version, adapter ids, experiment); an unfinished run of anything else is not
            continued.
        concurrency: users in work at once.
        restart: discard the shards of an earlier run.

    Raises:
        InputError: the users' file cannot be read.
        MismatchError: the shards there belong to another run, and no `restart`.
        RefusedError: OUTPUT.parts exists and is not ours.
        SoftrecError: the recommender failed for a reason that is not the row's; finished shards stay.
    """
    file = open_users(users)
    parts = output.with_name(output.name + ".parts")
    _begin(parts, {"users": file_digest(users), **asdict(settings), **served}, restart=restart)
    limit = asyncio.Semaphore(concurrency)
    shards: list[Path] = []
    resumed = 0
    with progress.step("score", file.metadata.num_rows) as advance:
        for rows in read_shards(file, settings.shard_rows):
            shard = parts / f"{len(shards):05d}.parquet"
            shards.append(shard)
            if shard.is_file():
                resumed += 1
                advance(len(rows))
            else:
                _write_shard(shard, rows, await _score_rows(rows, recommend, settings, limit, advance))
    rejected = _merge(shards, output)
    _clear(parts)
    return BatchReport(file.metadata.num_rows - rejected, rejected, resumed)


async def _score_rows(
    rows: Sequence[UserRow], recommend: Recommend, settings: BatchSettings, limit: asyncio.Semaphore, advance: Advance
) -> list[RecommendResponse | str]:
    async def score(row: UserRow) -> RecommendResponse | str:
        async with limit:
            outcome = await _score_row(row, recommend, settings)
            advance(1)
            return outcome

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(score(row)) for row in rows]
    except ExceptionGroup as failures:
        raise failures.exceptions[0] from None  # the other tasks were cancelled because of this one
    return [task.result() for task in tasks]


async def _score_row(row: UserRow, recommend: Recommend, settings: BatchSettings) -> RecommendResponse | str:
    """Return the answer, or why this row has none. What is not the row's fault is raised."""
    if row.user_id is None:
        return "no user_id"
    if row.is_repeated:
        return "user_id seen before"
    try:
        request = RecommendRequest(
            user_id=row.user_id,
            history=row.history,
            k=settings.k,
            adapter=settings.adapter,
            timeout_ms=settings.timeout_ms,
        )
        return await recommend(request, f"score-{row.row}")
    except ValidationError as error:
        return "; ".join(f"{'.'.join(map(str, at['loc']))}: {at['msg']}" for at in error.errors())
    except DeadlineError as error:
        return str(error)


def _begin(parts: Path, run: Mapping[str, Any], *, restart: bool) -> None:
    """Make the folder of shards, or make sure that the one there is this run's.

    Raises:
        RefusedError: something of that name is not ours; --restart does not remove it either.
        MismatchError: it is another run's, and no `restart`.
    """
    ours = json.loads(json.dumps(run))
    is_new = not os.path.lexists(parts) or (parts.is_dir() and not parts.is_symlink() and not any(parts.iterdir()))
    found = None if is_new else _read_run(parts)
    if found is not None and found != ours and not restart:
        remedy = "finish it with its own file and settings, or start again with --restart"
        expected, other = (json.dumps(one, sort_keys=True) for one in (ours, found))
        raise MismatchError(f"{parts}: an unfinished run", expected=expected, found=other, remedy=remedy)
    if not is_new and (found is None or restart):
        _clear(parts)
    _write_run(parts, ours)


def _read_run(parts: Path) -> dict[str, Any] | None:
    """Return which run the shards are of; None: they count for nothing.

    Raises:
        RefusedError: the folder is not ours.
    """
    try:
        content = json.loads((parts / RUN).read_bytes())
        if parts.is_symlink() or content["made_by"] != _MADE_BY:
            raise KeyError("made_by")
        run: dict[str, Any] | None = content["run"]
        return run
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RefusedError(
            f"{parts} is not a folder of `softrec score`: it has no {RUN} of ours",
            remedy="move it away, or name another output",
        ) from error


def _write_run(parts: Path, run: Mapping[str, Any] | None) -> None:
    write_file(parts / RUN, json.dumps({"made_by": _MADE_BY, "run": run}, sort_keys=True).encode())


def _clear(parts: Path) -> None:
    """Remove the shards, then the folder; files that are not ours stay.

    run.json says first that the shards count for nothing, and goes last: whatever a kill leaves is ours still.
    """
    _write_run(parts, None)
    for shard in [*parts.glob("[0-9]*.parquet"), *parts.glob(".[0-9]*.parquet.new-*")]:
        shard.unlink()
    (parts / RUN).unlink()
    with suppress(OSError):  # something that is not ours lies in it
        parts.rmdir()


def _write_shard(path: Path, rows: Sequence[UserRow], outcomes: Sequence[RecommendResponse | str]) -> None:
    lines: list[tuple[object, ...]] = []
    rejects: list[tuple[int, str, str]] = []
    for row, outcome in zip(rows, outcomes, strict=True):
        if isinstance(outcome, str):
            rejects.append((row.row, row.user_id or "", outcome))
            continue
        for item in outcome.items:
            distance, log_prob = (item.grounding.distance, item.grounding.log_prob) if item.grounding else (None, None)
            identity = (row.user_id, item.rank, item.item_id, item.title)
            lines.append((*identity, item.score, distance, log_prob, item.source.value, outcome.adapter))
    columns = list(zip(*lines, strict=True)) if lines else [()] * len(SCHEMA)
    arrays = [pa.array(column, field.type) for column, field in zip(columns, SCHEMA, strict=True)]
    buffer = pa.BufferOutputStream()
    pq.write_table(pa.table(arrays, schema=SCHEMA.with_metadata({REJECTS: json.dumps(rejects)})), buffer)
    write_file(path, buffer.getvalue().to_pybytes())


def _merge(shards: Sequence[Path], output: Path) -> int:
    """Copy all shards into one file, and their rejects into another; returns the number of rejects."""
    rejects: list[tuple[int, str, str]] = []
    draft = output.with_name(f".{output.name}.draft")
    with naming(draft), pq.ParquetWriter(draft, SCHEMA) as writer:
        for shard in shards:
            table = pq.read_table(shard)
            rejects.extend(json.loads((table.schema.metadata or {})[REJECTS]))
            writer.write_table(table.replace_schema_metadata(None))
    draft.replace(output)
    rejects_path = output.with_suffix(".rejects.csv")
    rejects_path.unlink(missing_ok=True)  # an earlier run's
    if rejects:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([("row", "user_id", "reason"), *rejects])
        write_file(rejects_path, text.getvalue().encode())
    return len(rejects)
