"""One writer at a time, among all processes of a machine."""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Hold a lock that a file stands for; waits for whoever holds it. The system lets go of a dead holder's.

    The file is empty and stays: removing it would let two hold "the" lock. Not re-entrant.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # closing the file lets go
        yield
