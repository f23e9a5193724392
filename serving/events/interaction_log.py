"""Read the workspace's interaction log for the event store, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from index.artifact import file_digest
from index.errors import CorruptArtifactError, MissingArtifactError
from index.workspace import init_command

LoggedInteraction = tuple[str, str, int]

_BATCH_ROWS = 10_000


def digest_log(path: Path) -> str:
    """Return the identity of the log's content.

    Raises:
        MissingArtifactError: the workspace has no log.
    """
    if not path.is_file():
        raise MissingArtifactError("interaction log", path, command=init_command(path.parent))
    return file_digest(path)


def read_log(path: Path) -> Iterator[list[LoggedInteraction]]:
    """Yield (user_id, item_id, timestamp) in the order of the log, in batches that fit in memory.

    Raises:
        CorruptArtifactError: not a Parquet file, or not an interaction log.
    """
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=["user_id", "item_id", "timestamp"]):
                columns = batch.to_pydict()
                yield list(zip(columns["user_id"], columns["item_id"], columns["timestamp"], strict=True))
    except (pa.ArrowException, OSError, KeyError) as error:
        remedy = f"make it again with `{init_command(path.parent)}`"
        raise CorruptArtifactError(path, f"unreadable interaction log ({error})", remedy=remedy) from error
