"""An artifact is whole or absent, and any changed byte is refused."""

from __future__ import annotations

import errno
import json
import os
import time
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.artifact import MANIFEST, read_manifest, text_digest, write_artifact, write_file
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError


def write(folder: Path, data: bytes = b"weights", **body: object) -> None:
    with write_artifact(folder, kind="thing") as draft:
        (draft.path / "data.bin").write_bytes(data)
        (draft.path / "deep").mkdir()
        (draft.path / "deep" / "more.txt").write_text("more")
        draft.body.update(body)


def read(folder: Path):
    return read_manifest(folder, kind="thing", command="make thing")


def test_write_then_read_is_identity(tmp_path):
    write(tmp_path / "a", size=3, names=("x", "y"))
    manifest = read(tmp_path / "a")
    assert manifest.body == {"size": 3, "names": ["x", "y"]}
    assert set(manifest.files) == {"data.bin", "deep/more.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_identity_is_the_content_not_the_time(tmp_path):
    write(tmp_path / "a", size=3)
    write(tmp_path / "b", size=3)
    write(tmp_path / "c", size=4)
    write(tmp_path / "d", b"other", size=3)
    digests = [read(tmp_path / name).digest for name in "abcd"]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("name", ["data.bin", "deep/more.txt"])
def test_any_changed_byte_is_refused(tmp_path, name):
    write(tmp_path / "a")
    file = tmp_path / "a" / name
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(CorruptArtifactError, match=r"changed since it was written .*make it again with `make thing`"):
        read(tmp_path / "a")


def test_a_missing_file_a_changed_manifest_and_no_manifest_are_refused(tmp_path):
    write(tmp_path / "a", size=1)
    manifest = tmp_path / "a" / MANIFEST
    content = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps(content | {"body": {"size": 2}}))
    with pytest.raises(CorruptArtifactError, match="manifest was changed"):
        read(tmp_path / "a")
    manifest.write_text("{")
    with pytest.raises(CorruptArtifactError, match="unreadable manifest"):
        read(tmp_path / "a")
    manifest.write_text(json.dumps(content))
    (tmp_path / "a" / "data.bin").unlink()
    with pytest.raises(CorruptArtifactError, match=r"data.bin: the file is missing"):
        read(tmp_path / "a")
    manifest.unlink()
    with pytest.raises(MissingArtifactError, match="make it with `make thing`"):
        read(tmp_path / "a")


def test_another_kind_or_format_names_both_values(tmp_path):
    write(tmp_path / "a")
    with pytest.raises(MismatchError, match="kind of artifact: expected index, found thing"):
        read_manifest(tmp_path / "a", kind="index", command="x")
    manifest = tmp_path / "a" / MANIFEST
    manifest.write_text(json.dumps(json.loads(manifest.read_bytes()) | {"format": 99}))
    with pytest.raises(MismatchError, match="format: expected 1, found 99"):
        read(tmp_path / "a")


def test_a_writer_that_fails_changes_nothing_and_leaves_nothing(tmp_path):
    write(tmp_path / "a", size=1)

    def fail() -> None:
        with write_artifact(tmp_path / "a", kind="thing") as draft:
            (draft.path / "data.bin").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert read(tmp_path / "a").body == {"size": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_killed_writers_draft_is_no_artifact_and_is_swept(tmp_path):
    leftover = tmp_path / ".a.draft-killed"
    leftover.mkdir()
    (leftover / "data.bin").write_bytes(b"half")
    with pytest.raises(MissingArtifactError):
        read(tmp_path / "a")
    write(tmp_path / "a")
    assert not leftover.exists()


def test_rewriting_replaces_the_folder(tmp_path):
    write(tmp_path / "a", size=1)
    (tmp_path / "a" / "stray.txt").write_text("old")
    write(tmp_path / "a", size=2)
    assert read(tmp_path / "a").body == {"size": 2}
    assert not (tmp_path / "a" / "stray.txt").exists()


def test_write_file_replaces_atomically_and_cleans_up(tmp_path):
    write_file(tmp_path / "deep" / "f", b"one")
    write_file(tmp_path / "deep" / "f", b"two")
    assert (tmp_path / "deep" / "f").read_bytes() == b"two"
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["f"]


def test_temporaries_of_killed_writers_are_swept_and_nothing_else_is(tmp_path):
    """Minutes old and of the same file: swept. Just written, of another file, or an editor's: left alone."""
    with pytest.raises(InterruptedError), mock.patch.object(Path, "replace", side_effect=InterruptedError):
        write_file(tmp_path / "f", b"one")
    assert list(tmp_path.iterdir()) == []
    with mock.patch.object(Path, "replace"):  # killed before the rename
        write_file(tmp_path / "f", b"half")
        write_file(tmp_path / "g", b"half")
    [left, other] = sorted(tmp_path.iterdir())
    (tmp_path / ".f.swp").touch()
    write_file(tmp_path / "f", b"two")
    assert left.exists()
    for path in (left, other, tmp_path / ".f.swp"):
        os.utime(path, (time.time() - 3600,) * 2)
    write_file(tmp_path / "f", b"three")
    assert {path.name for path in tmp_path.iterdir()} == {"f", ".f.swp", other.name}


def test_a_full_disk_is_reported_with_the_files_name(tmp_path):
    full = OSError(errno.ENOSPC, "No space left on device")
    with mock.patch("os.fsync", side_effect=full), pytest.raises(OSError, match=r"No space left .*'.*/f'"):
        write_file(tmp_path / "f", b"one")
    assert list(tmp_path.iterdir()) == []


@given(parts=st.lists(st.text(), max_size=4), other=st.lists(st.text(), max_size=4))
def test_text_digest_tells_lists_apart(parts, other):
    assert (text_digest(*parts) == text_digest(*other)) == (parts == other)
