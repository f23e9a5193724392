"""Read the workspace's interaction log for the event store, a batch at a time."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq

from index.errors import MissingArtifactError

LoggedInteraction = tuple[str, str, int]

_BATCH_ROWS = 10_000


def read_log(path: Path) -> Iterator[list[LoggedInteraction]]:
    """Yield (user_id, item_id, timestamp) in the order of the log, in batches that fit in memory.

    Raises:
        MissingArtifactError: the shop has no log.
    """
    if not path.is_file():
        raise MissingArtifactError("interaction log", path, command=f"softrec init {path.parent}")
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=["user_id", "item_id", "timestamp"]):
            columns = batch.to_pydict()
            yield list(zip(columns["user_id"], columns["item_id"], columns["timestamp"], strict=True))
