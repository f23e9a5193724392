"""Folders that are either whole or absent.

An artifact is a folder whose `manifest.json` says what it is, what it must be used with, and the SHA-256 of every file
in it. It is filled under a temporary name, its manifest is written last, and one rename puts it in place. So a folder
without a manifest is not an artifact, and a killed writer leaves nothing that could be loaded.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError

MANIFEST = "manifest.json"
FORMAT = 1  # raise when a reader of the old layout would go wrong

_LEFT_AFTER_S = 600.0  # a temporary file this old belongs to no living writer


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
    """Write a file so that a reader sees the old bytes or the new ones, never a part.

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
    with tempfile.NamedTemporaryFile(dir=path.parent, prefix=_temporary_prefix(path), delete=False) as file:
        temporary = Path(file.name)
        try:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


@contextmanager
def write_artifact(directory: Path, *, kind: str) -> Iterator[Draft]:
    """Fill a draft; on a clean exit it becomes `directory`, replacing what stood there. On an error nothing changes."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    for leftover in directory.parent.glob(f".{directory.name}.draft-*"):
        shutil.rmtree(leftover, ignore_errors=True)  # a killed writer's
    draft = Draft(Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}.draft-")))
    try:
        yield draft
        _write_manifest(draft, kind)
        draft.path.chmod(0o755)
        _replace_folder(draft.path, directory)
    except BaseException:
        shutil.rmtree(draft.path, ignore_errors=True)
        raise


def read_manifest(directory: Path, *, kind: str, command: str) -> Manifest:
    """Read an artifact's manifest and check every byte it vouches for.

    Args:
        directory: the artifact's folder.
        kind: what it must be.
        command: what makes it, for the error's remedy.

    Raises:
        MissingArtifactError: no manifest there.
        CorruptArtifactError: the manifest is unreadable, or a file is missing or changed.
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
        if not file.is_file():
            raise CorruptArtifactError(file, "the file is missing", remedy=again)
        if (found := file_digest(file)) != expected:
            raise CorruptArtifactError(
                file, f"changed since it was written (SHA-256 {expected[:12]} then, {found[:12]} now)", remedy=again
            )
    return manifest


def _write_manifest(draft: Draft, kind: str) -> None:
    paths = [path for path in sorted(draft.path.rglob("*")) if path.is_file()]
    for path in paths:  # safetensors writes for its owner alone, and a server may be another user's
        path.chmod(0o644)
    files = {path.relative_to(draft.path).as_posix(): file_digest(path) for path in paths}
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


def _replace_folder(new: Path, directory: Path) -> None:
    """Two renames: a reader finds the old folder, for an instant none, then the new one; never a mixture."""
    if not directory.exists():
        new.rename(directory)
        return
    aside = Path(tempfile.mkdtemp(dir=directory.parent, prefix=f".{directory.name}.draft-old-"))
    directory.rename(aside / directory.name)
    new.rename(directory)
    shutil.rmtree(aside, ignore_errors=True)
