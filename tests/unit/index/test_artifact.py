"""An artifact is whole or absent, and any changed byte is refused."""

from __future__ import annotations

import errno
import json
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.artifact import MANIFEST, file_digest, read_manifest, text_digest, write_artifact, write_file
from index.errors import CorruptArtifactError, MismatchError, MissingArtifactError


def write(folder: Path, data: bytes = b"weights", **body: object) -> None:
    with write_artifact(folder, kind="thing") as draft:
        (draft.path / "data.npy").write_bytes(data)
        (draft.path / "deep").mkdir()
        (draft.path / "deep" / "more.txt").write_text("more")
        draft.body.update(body)


def read(folder: Path):
    return read_manifest(folder, kind="thing", command="make thing")


def test_write_then_read_is_identity(tmp_path):
    write(tmp_path / "a", size=3, names=("x", "y"))
    manifest = read(tmp_path / "a")
    assert manifest.body == {"size": 3, "names": ["x", "y"]}
    assert set(manifest.files) == {"data.npy", "deep/more.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_the_identity_is_the_content_not_the_time(tmp_path):
    write(tmp_path / "a", size=3)
    write(tmp_path / "b", size=3)
    write(tmp_path / "c", size=4)
    write(tmp_path / "d", b"other", size=3)
    digests = [read(tmp_path / name).digest for name in "abcd"]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3


@pytest.mark.parametrize("name", ["data.npy", "deep/more.txt"])
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
    (tmp_path / "a" / "data.npy").unlink()
    with pytest.raises(CorruptArtifactError, match=r"data\.npy: the file is missing"):
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
            (draft.path / "data.npy").write_bytes(b"half")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert read(tmp_path / "a").body == {"size": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_killed_writers_draft_is_no_artifact_and_is_swept(tmp_path):
    leftover = tmp_path / ".a.draft-killed"
    leftover.mkdir()
    (leftover / "data.npy").write_bytes(b"half")
    with pytest.raises(MissingArtifactError):
        read(tmp_path / "a")
    write(tmp_path / "a")
    assert not leftover.exists()


def test_a_killed_process_leaves_a_draft_that_the_next_writer_sweeps(tmp_path):
    child = os.fork()
    if child == 0:
        with write_artifact(tmp_path / "a", kind="thing"):
            os._exit(0)
    os.waitpid(child, 0)
    assert [path.name.startswith(".a.draft-") for path in tmp_path.iterdir()] == [True]
    write(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_a_writer_leaves_other_writers_drafts_alone(tmp_path):
    """Two servers start together: both write the folder, and the last one's content stays."""
    with write_artifact(tmp_path / "a", kind="thing") as first:
        (first.path / "data.npy").write_bytes(b"first")
        write(tmp_path / "a", b"second")
        assert read(tmp_path / "a").files["data.npy"] == file_digest(tmp_path / "a" / "data.npy")
        assert (first.path / "data.npy").read_bytes() == b"first"
    assert (tmp_path / "a" / "data.npy").read_bytes() == b"first"
    assert set(read(tmp_path / "a").files) == {"data.npy"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_many_writers_of_one_folder_all_succeed(tmp_path):
    def rewrite(number: int) -> None:
        for turn in range(20):
            write(tmp_path / "a", f"{number} {turn}".encode())

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(rewrite, range(4)))
    read(tmp_path / "a")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_modes_follow_the_umask(tmp_path, umask):
    """Even where a library wrote a file for its owner alone, as safetensors does."""
    before = os.umask(umask)
    try:
        write_file(tmp_path / "file", b"one")
        with write_artifact(tmp_path / "a", kind="thing") as draft:
            (draft.path / "model.safetensors").touch(mode=0o600)
    finally:
        os.umask(before)
    for path in (tmp_path / "file", tmp_path / "a" / "model.safetensors", tmp_path / "a" / MANIFEST):
        assert path.stat().st_mode & 0o777 == 0o666 & ~umask
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o777 & ~umask


def rename_in_manifest(folder: Path, old: str, new: str) -> None:
    """As a foreign writer could: the digests fit, whatever the name."""
    content = json.loads((folder / MANIFEST).read_bytes())
    content["files"][new] = content["files"].pop(old)
    identity = json.dumps([content["files"], content["body"]], sort_keys=True, ensure_ascii=False)
    (folder / MANIFEST).write_text(json.dumps(content | {"digest": text_digest(identity)}))


@pytest.mark.parametrize("name", ["../data.npy", "deep/../../data.npy", "./data.npy", "/data.npy", "deep//more.npy"])
def test_a_manifest_that_names_files_outside_its_folder_is_refused(tmp_path, name):
    write(tmp_path / "a")
    name = f"{tmp_path}{name}" if name.startswith("/") else name
    (tmp_path / "data.npy").write_bytes(b"weights")
    rename_in_manifest(tmp_path / "a", "data.npy", name)
    with pytest.raises(CorruptArtifactError, match=r"is not a plain path inside the folder; nothing was loaded; make"):
        read(tmp_path / "a")


def test_links_are_refused_as_a_file_and_as_a_folder(tmp_path):
    (tmp_path / "elsewhere").mkdir()
    for name, target in (("data.npy", "data.npy"), ("deep", "deep")):
        write(tmp_path / "a")
        (tmp_path / "a" / name).rename(tmp_path / "elsewhere" / target)
        (tmp_path / "a" / name).symlink_to(tmp_path / "elsewhere" / target)
        with pytest.raises(CorruptArtifactError, match=f"'{name}' is a symbolic link"):
            read(tmp_path / "a")


def test_files_that_run_code_when_they_are_read_are_neither_written_nor_read(tmp_path):
    with (
        pytest.raises(ValueError, match=r"'adapter_model\.bin' is not of a kind"),
        write_artifact(tmp_path / "a", kind="thing") as draft,
    ):
        (draft.path / "adapter_model.bin").write_bytes(b"pickle")
    assert list(tmp_path.iterdir()) == []
    write(tmp_path / "a")
    (tmp_path / "a" / "data.npy").rename(tmp_path / "a" / "data.pkl")
    rename_in_manifest(tmp_path / "a", "data.npy", "data.pkl")
    with pytest.raises(CorruptArtifactError, match=r"'data\.pkl' is not of a kind that artifacts hold"):
        read(tmp_path / "a")


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
