"""A run's folder: what a killed run needs to go on, and what it logged.

    runs/<adapter>/
      run.json       what decides the run's numbers; a run of anything else starts over
      checkpoint     the newest state, whole or not there
      metrics.jsonl  one line per update, measurement of d_t, and epoch
      lock           held by the process that trains

A run that was published leaves no folder: its log lies with the adapter.
"""

from __future__ import annotations

import fcntl
import io
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import IO, Any

import torch

from index.artifact import naming, write_file
from index.errors import CorruptArtifactError
from training.errors import TrainingError
from training.progress import Progress


class RunFolder:
    """The folder of one run; made if it is missing, emptied if it holds another run.

    Only one process may write to it, and does so under `lock`. See `training.loop.fit` for what a state holds.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._checkpoint = path / "checkpoint"
        self._identity = path / "run.json"
        self.metrics_path = path / "metrics.jsonl"

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes out while the context is open; a process that dies lets go.

        Held until the adapter is published and the folder removed: a second run of it would resume the finished one.

        Raises:
            TrainingError: another process is at this run.
        """
        with self._open_lock() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise TrainingError(
                    f"another process trains in {self.path}",
                    remedy="wait for it or end it; workers of a killed torchrun outlive it",
                ) from error
            if not self._is_current(file):  # its holder published and removed the folder just now
                with self.lock():
                    yield
                return
            yield

    def _open_lock(self) -> IO[str]:
        self.path.mkdir(parents=True, exist_ok=True)
        return (self.path / "lock").open("w")

    def _is_current(self, file: IO[str]) -> bool:
        try:
            return os.path.samestat(os.fstat(file.fileno()), (self.path / "lock").stat())
        except FileNotFoundError:
            return False

    def open(self, identity: Mapping[str, str], progress: Progress) -> dict[str, Any] | None:
        """Return the state to go on from, or None for a run that begins.

        Args:
            identity: everything that decides the run's numbers, by name. A folder that was begun with other values is
                emptied, and a note names the difference.

        Raises:
            CorruptArtifactError: the checkpoint's bytes are not those that were written.
        """
        stored = self._read_identity()
        if stored is not None and stored != dict(identity):
            changed = sorted(name for name in stored | dict(identity) if stored.get(name) != identity.get(name))
            if self._checkpoint.is_file():
                progress.note(f"an unfinished run is discarded: it had another {', '.join(changed)}")
            self._empty()
        elif stored is not None and self._checkpoint.is_file():
            state = self._read_checkpoint()
            self._cut_metrics(int(state["metrics_bytes"]))
            return state
        write_file(self._identity, json.dumps(dict(identity), indent=2).encode())
        self._cut_metrics(0)
        return None

    def save(self, state: Mapping[str, Any]) -> None:
        """Replace the checkpoint; a reader, and a kill, sees the old one or the new one.

        Raises:
            OSError: the disk is full, say; the old checkpoint stays.
        """
        buffer = io.BytesIO()
        torch.save({**state, "metrics_bytes": self._metrics_bytes()}, buffer)
        data = buffer.getvalue()
        write_file(self._checkpoint, sha256(data).hexdigest().encode() + b"\n" + data)

    def log(self, event: str, row: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl."""
        with naming(self.metrics_path), self.metrics_path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"event": event, **row}) + "\n")

    def remove(self) -> None:
        """Remove the folder with all that it holds."""
        shutil.rmtree(self.path, ignore_errors=True)

    def _empty(self) -> None:
        for path in (self._checkpoint, self._identity, self.metrics_path):
            path.unlink(missing_ok=True)

    def _read_identity(self) -> dict[str, str] | None:
        try:
            content = json.loads(self._identity.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise CorruptArtifactError(self._identity, "unreadable", remedy=f"remove {self.path}") from error
        return dict(content)

    def _read_checkpoint(self) -> dict[str, Any]:
        digest, _, data = self._checkpoint.read_bytes().partition(b"\n")
        if sha256(data).hexdigest().encode() != digest:
            raise CorruptArtifactError(
                self._checkpoint, "changed since it was written", remedy=f"remove {self.path}; the run starts over"
            )
        return dict(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))

    def _metrics_bytes(self) -> int:
        return self.metrics_path.stat().st_size

    def _cut_metrics(self, size: int) -> None:
        """Forget what was logged after the checkpoint: it happens again."""
        with naming(self.metrics_path), self.metrics_path.open("ab") as file:
            file.truncate(size)
