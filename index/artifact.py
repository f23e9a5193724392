"""Folders that are either whole or absent.

An artifact is a folder whose `manifest.json` names its kind, the artifacts that it belongs to, and the SHA-256 of every
file in it. It is filled under a temporary name, its manifest is written last, and one rename puts it in place. So a
folder without a manifest is not an artifact, and a killed writer leaves nothing that could be loaded.

A manifest may come from elsewhere. So the files that it names must lie in its folder, be no links, and be of a kind
that runs nothing when it is read: no pickles.

    .NAME.draft-3f2a.../    beside the artifact while it is written; swept by later writers once its lock is free
      lock                  held by the writer
      new/                  becomes the artifact
      old-.../              what it replaces
"""

from __future__ import annotations

import errno
import fcntl
import glob
import hashlib
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any

from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError
from index.file_lock import file_lock

MANIFEST = "manifest.json"
FORMAT = 1  # raise when a reader of the old layout would go wrong

_LEFT_AFTER_S = 600.0  # a temporary file this old belongs to no living writer
_KINDS_OF_FILES = frozenset(
    (".faiss", ".jinja", ".json", ".jsonl", ".md", ".model", ".npy", ".parquet", ".safetensors", ".txt")
)


@dataclass
class Draft:
    """An artifact being written: put files under `path`, facts into `body`."""

    path: Path
    body: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Manifest:
    """What an artifact says of itself.

    Attributes:
        kind: "index", "base", "adapter", ...
        created: when, ISO 8601 in UTC.
        digest: SHA-256 over the files and the body: the artifact's identity. `created` is no part of it.
        files: file name to SHA-256.
        body: the facts its writer put down.
    """

    kind: str
    created: str
    digest: str
    files: Mapping[str, str]
    body: Mapping[str, Any]


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def text_digest(*parts: str) -> str:
    """Return the SHA-256 over several texts, in hex; where one ends and the next begins counts.

    Example:
        >>> text_digest("ab", "c") == text_digest("a", "bc")
        False
    """
    state = hashlib.sha256()
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        state.update(len(data).to_bytes(8, "little"))
        state.update(data)
    return state.hexdigest()


def write_file(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old bytes or the new ones, never a part. Its mode follows the umask.

    Temporaries that killed writers of the same file left are removed.

    Raises:
        OSError: it names the file even where the system does not, as for a full disk.
    """
    with naming(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_temporaries(path)
        _write_whole(path, data)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put the file's name into an OSError that has none: writing knows a descriptor only."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def _sweep_temporaries(path: Path) -> None:
    for leftover in path.parent.glob(f"{glob.escape(_temporary_prefix(path))}*"):
        with suppress(FileNotFoundError):  # a concurrent writer of the same file sweeps too, or has just finished
            if time.time() - leftover.stat().st_mtime > _LEFT_AFTER_S:
                leftover.unlink()


def _temporary_prefix(path: Path) -> str:
    return f".{path.name}.new-"


def _write_whole(path: Path, data: bytes) -> None:
    temporary = path.with_name(f"{_temporary_prefix(path)}{secrets.token_hex(8)}")
    with temporary.open("xb") as file:
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def write_artifact(directory: Path, *, kind: str) -> Iterator[Draft]:
    """Fill a draft; on a clean exit it becomes `directory`, replacing an earlier one. On an error nothing changes."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with _workroom(directory) as workroom:
        draft = Draft(workroom / "new")
        draft.path.mkdir()
        yield draft
        _write_manifest(draft, kind)
        _replace_folder(draft.path, directory, workroom)


@contextmanager
def _workroom(directory: Path) -> Iterator[Path]:
    """Make a folder beside `directory` that no other writer sweeps while we hold its lock; removed at the end."""
    prefix = f".{directory.name}.draft-"
    for leftover in directory.parent.glob(f"{glob.escape(prefix)}*"):
        with suppress(FileNotFoundError):  # a concurrent writer sweeps too, or has just finished
            _sweep_draft(leftover)
    while True:
        workroom = directory.parent / f"{prefix}{secrets.token_hex(8)}"
        with ExitStack() as stack:
            try:
                stack.enter_context(file_lock(workroom / "lock"))
            except FileNotFoundError:
                continue  # swept between making the folder and the lock
            if not (workroom / "lock").exists():
                continue  # swept between making the lock and taking it
            stack.callback(shutil.rmtree, workroom, ignore_errors=True)
            yield workroom
            return


def _sweep_draft(leftover: Path) -> None:
    """Remove the draft of a dead writer. A living one makes the lock first, and holds it."""
    names = os.listdir(leftover)
    if not names:
        with suppress(OSError):  # a lock has been made meanwhile
            leftover.rmdir()
    elif "lock" not in names:
        shutil.rmtree(leftover, ignore_errors=True)
    else:
        with (leftover / "lock").open("r+b") as lock, suppress(BlockingIOError):
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(leftover, ignore_errors=True)


def read_manifest(directory: Path, *, kind: str, command: str) -> Manifest:
    """Read an artifact's manifest and check every byte it vouches for.

    Args:
        directory: the artifact's folder.
        kind: the required kind.
        command: the command that makes it, for the error's remedy.

    Raises:
        MissingArtifactError: no manifest there.
        CorruptArtifactError: the manifest is unreadable, or a file is missing, changed, a link, or not of a kind that
            artifacts hold.
        MismatchError: it is an artifact of another kind or of another format.
    """
    path = directory / MANIFEST
    if not path.is_file():
        raise MissingArtifactError(kind, directory, command=command)
    again = f"make it again with `{command}`"
    try:
        content = json.loads(path.read_bytes())
        manifest = Manifest(
            content["kind"], content["created"], content["digest"], dict(content["files"]), dict(content["body"])
        )
        version = int(content["format"])
    except (ValueError, KeyError, TypeError) as error:
        raise CorruptArtifactError(path, f"unreadable manifest ({error})", remedy=again) from error
    if manifest.kind != kind:
        raise MismatchError(f"{path}: kind of artifact", expected=kind, found=manifest.kind, remedy=again)
    if version != FORMAT:
        raise MismatchError(f"{path}: format", expected=str(FORMAT), found=str(version), remedy=again)
    if manifest.digest != _identity(manifest.files, manifest.body):
        raise CorruptArtifactError(path, "the manifest was changed after it was written", remedy=again)
    for name, expected in manifest.files.items():
        file = directory / name
        if (fault := _fault_of_name(name) or _find_link(directory, name)) is not None:
            raise CorruptArtifactError(path, f"{fault}; nothing was loaded", remedy=again)
        if not file.is_file():
            raise CorruptArtifactError(file, "the file is missing", remedy=again)
        if (found := file_digest(file)) != expected:
            raise CorruptArtifactError(
                file, f"changed since it was written (SHA-256 {expected[:12]} then, {found[:12]} now)", remedy=again
            )
    return manifest


def _write_manifest(draft: Draft, kind: str) -> None:
    paths = [path for path in sorted(draft.path.rglob("*")) if path.is_file()]
    mode = draft.path.stat().st_mode & 0o666  # a new folder's mode shows the umask
    for path in paths:  # safetensors writes for its owner alone, and a server may be another user's
        path.chmod(mode)
    files = {path.relative_to(draft.path).as_posix(): file_digest(path) for path in paths}
    if faults := [fault for fault in map(_fault_of_name, files) if fault is not None]:
        raise ValueError("; ".join(faults))
    body = json.loads(json.dumps(draft.body))  # what a reader will see: tuples are lists, keys are text
    content = {
        "kind": kind,
        "format": FORMAT,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "digest": _identity(files, body),
        "files": files,
        "body": body,
    }
    write_file(draft.path / MANIFEST, json.dumps(content, indent=2, ensure_ascii=False).encode())


def _identity(files: Mapping[str, str], body: Mapping[str, Any]) -> str:
    return text_digest(json.dumps([dict(files), dict(body)], sort_keys=True, ensure_ascii=False))


def _fault_of_name(name: str) -> str | None:
    """Say why an artifact must not hold a file of that name; None if it may."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or name != path.as_posix() or "\0" in name:
        return f"{name!r} is not a plain path inside the folder"
    if path.suffix not in _KINDS_OF_FILES:
        return f"{name!r} is not of a kind that artifacts hold ({', '.join(sorted(_KINDS_OF_FILES))})"
    return None


def _find_link(directory: Path, name: str) -> str | None:
    """Say that a file, or a folder between it and the artifact, is a symbolic link; None if none is."""
    path = directory
    for part in PurePosixPath(name).parts:
        path = path / part
        if path.is_symlink():
            return f"{path.relative_to(directory).as_posix()!r} is a symbolic link"
    return None


def _replace_folder(new: Path, directory: Path, workroom: Path) -> None:
    """Two renames: a reader finds the old folder, for an instant none, then the new one; never a mixture.

    Several writers may replace one folder at once: each moves aside what it finds; the last one's stays.
    """
    while True:
        try:
            new.rename(directory)
            return
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR):
                raise
        with suppress(FileNotFoundError):  # another writer moved it
            directory.rename(workroom / f"old-{secrets.token_hex(8)}")
