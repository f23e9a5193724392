"""The journal of a catalog's changes: appended to, synced to the disk, never rewritten.

    catalog_changes.jsonl
      {"imported_digest": "..."}                               the catalog that all this began with
      {"number": 1, "time": "...", "op": "put", "item_id": ..., ..., "chain": "..."}
      {"number": 2, "time": "...", "op": "patch", ..., "more": true, "chain": "..."}

`chain` is a hash over the line and the chain before it, so a changed, missing or foreign line is noticed. Lines with
`more` belong together with the next: a batch is taken as a whole. What a killed writer left behind the last whole batch
is no part of the journal; the next writer cuts it off.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index.artifact import naming, text_digest
from index.catalog.changes import Change, parse_change
from index.errors import CorruptArtifactError, MismatchError
from index.file_lock import file_lock


@dataclass(frozen=True)
class Position:
    """A place in a journal, between two batches.

    Attributes:
        changes: how many lie before it.
        offset: bytes before it.
        chain: hash over all of them.
    """

    changes: int = 0
    offset: int = 0
    chain: str = ""


START = Position()

_LONGEST_LINE = 1 << 16  # bytes; an id, a title and a category of the greatest length take a fifth of it


@dataclass(frozen=True)
class Journal:
    """The journal at `path`, of the catalog whose digest is `imported_digest`. It may not exist yet."""

    path: Path
    imported_digest: str

    def read(self, after: Position = START) -> tuple[list[Change], Position]:
        """Read the whole batches after a position, and the position behind them.

        Raises:
            CorruptArtifactError: a line is damaged; names the line.
            MismatchError: the journal belongs to another catalog, or is shorter than `after`.
        """
        data = self._read_bytes(after)
        changes: list[Change] = []
        position, batch, now = after, 0, after
        for line in data[: data.rfind(b"\n") + 1].splitlines(keepends=True):
            if now.offset == 0:
                now = position = self._begin(line)
                continue
            change, more, chain = self._parse(line, now)
            now = Position(now.changes + 1, now.offset + len(line), chain)
            changes.append(change)
            batch += 1
            if not more:
                position, batch = now, 0
        return changes[: len(changes) - batch], position

    @contextmanager
    def locked(self, *, timeout_s: float | None = None) -> Iterator[None]:
        """Keep other processes from appending; hold it from reading the state to appending what depends on it.

        Raises:
            TimeoutError: somebody else held it for so long.
        """
        with file_lock(self.path.with_name(f".{self.path.name}.lock"), timeout_s=timeout_s):
            yield

    def append(self, changes: Sequence[Change], end: Position) -> Position:
        """Append a batch, whole or not at all, and sync it. Call it under `locked`.

        Args:
            changes: one batch.
            end: what `read` gave under this very lock; what lies behind it is cut off.

        Returns:
            The new end.
        """
        lines = []
        now = end
        if now.offset == 0:
            header = _to_line({"imported_digest": self.imported_digest})
            lines.append(header)
            now = self._begin(header)
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        for place, change in enumerate(changes, start=1):
            body: dict[str, Any] = {"number": now.changes + 1, "time": time, **change.to_json()}
            if place < len(changes):
                body["more"] = True
            chain = _chain(now.chain, body)
            lines.append(_to_line(body | {"chain": chain}))
            now = Position(now.changes + 1, now.offset + len(lines[-1]), chain)
        self._write(b"".join(lines), end.offset)
        return now

    def copy(self, end: Position) -> bytes:
        """Return the bytes up to a position, for `write_file`: a journal of their own."""
        return self._read_bytes(START)[: end.offset]

    def check_begins_with(self, position: Position) -> None:
        """Check that the changes before a position of a copy are this journal's first ones.

        Raises:
            MismatchError: it holds fewer, or others.
        """
        if position.changes == 0:
            return
        start = max(0, position.offset - _LONGEST_LINE)
        try:
            with self.path.open("rb") as file:
                file.seek(start)
                data = file.read(position.offset - start)
        except FileNotFoundError:
            data = b""
        last = data.removesuffix(b"\n").rpartition(b"\n")[2]
        try:
            chain = str(json.loads(last)["chain"])
        except (ValueError, KeyError, TypeError):
            chain = ""
        if start + len(data) < position.offset or chain != position.chain:
            raise MismatchError(
                f"{self.path}: the first {position.changes} changes",
                expected=position.chain,
                found=chain[:16] or "fewer",
                remedy=_ways_out(self.path),
            )

    def set_aside(self) -> Path | None:
        """Rename the journal to the first free name beside it, which is returned; None: there is none."""
        if not self.path.exists():
            return None
        with self.locked():
            number = 1
            while (aside := self.path.with_suffix(f".{number}.jsonl")).exists():
                number += 1
            self.path.rename(aside)
            return aside

    def _read_bytes(self, after: Position) -> bytes:
        try:
            with self.path.open("rb") as file:
                size = os.fstat(file.fileno()).st_size
                if size >= after.offset:
                    file.seek(after.offset)
                    return file.read()
        except FileNotFoundError:
            if after.offset == 0:
                return b""
            size = 0
        raise MismatchError(
            f"{self.path}: journal of the catalog's changes",
            expected=f"{after.changes} changes in {after.offset} bytes or more",
            found=f"{size} bytes",
            remedy=_ways_out(self.path),
        )

    def _begin(self, line: bytes) -> Position:
        try:
            found = json.loads(line)["imported_digest"]
        except (ValueError, KeyError, TypeError):
            raise self._damaged(1, "it does not name the catalog") from None
        if found != self.imported_digest:
            raise MismatchError(
                f"{self.path}: catalog that was changed",
                expected=self.imported_digest[:12],
                found=str(found)[:12],
                remedy="put the catalog.parquet of these changes back, or move the journal away to give them up",
            )
        return Position(0, len(line), text_digest(self.imported_digest)[:16])

    def _parse(self, line: bytes, before: Position) -> tuple[Change, bool, str]:
        number = before.changes + 1
        try:
            body = json.loads(line)
            chain, found = body.pop("chain"), body["number"]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise self._damaged(number + 1, "it is no change") from None
        if chain != _chain(before.chain, body) or found != number:
            raise self._damaged(number + 1, "it, or one before it, was changed after it was written")
        fields = {name: value for name, value in body.items() if name not in ("number", "time", "more")}
        try:
            return parse_change(fields), bool(body.get("more")), chain
        except ValueError as error:
            raise self._damaged(number + 1, str(error)) from error

    def _damaged(self, line: int, why: str) -> CorruptArtifactError:
        return CorruptArtifactError(self.path, f"line {line} cannot be used: {why}", remedy=_ways_out(self.path))

    def _write(self, data: bytes, offset: int) -> None:
        created = not self.path.exists()
        with naming(self.path), self.path.open("ab", buffering=0) as file:
            file.truncate(offset)
            try:
                while data:
                    data = data[file.write(data) :]
                os.fsync(file.fileno())
            except OSError:  # a full disk: nothing was appended
                os.ftruncate(file.fileno(), offset)
                raise
        if created:
            _sync_folder(self.path.parent)


def _ways_out(path: Path) -> str:
    return (
        "put an undamaged copy back (index/<version>/changes.jsonl holds the changes that a version covers), or move "
        f"it away to give its changes up and build the index again with `softrec index {path.parent}`"
    )


def _chain(before: str, body: dict[str, Any]) -> str:
    return text_digest(before, json.dumps(body, sort_keys=True, ensure_ascii=False))[:16]


def _to_line(body: dict[str, Any]) -> bytes:
    return json.dumps(body, ensure_ascii=False).encode() + b"\n"


def _sync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
