"""One writer at a time, among all processes of a machine."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_POLL_S = 0.01


@contextmanager
def file_lock(path: Path, *, timeout_s: float | None = None) -> Iterator[None]:
    """Hold an exclusive `flock` on a file. The system releases the lock of a dead holder.

    The file is empty and stays: if it were removed, two holders could lock two files. Not re-entrant.

    Args:
        path: the file; made if absent.
        timeout_s: how long to wait for the holder; None: until it is free.

    Raises:
        TimeoutError: it was not free in time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        _take(file.fileno(), path, timeout_s)  # closing the file releases it
        yield


def _take(descriptor: int, path: Path, timeout_s: float | None) -> None:
    if timeout_s is None:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        return
    until = time.monotonic() + timeout_s
    while True:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            if time.monotonic() >= until:
                raise TimeoutError(f"{path}: another writer has held it for {timeout_s:g} s") from None
        time.sleep(_POLL_S)
