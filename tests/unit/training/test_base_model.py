from __future__ import annotations

import json

import pytest

from index.artifact import write_artifact
from index.errors import CorruptArtifactError, MissingArtifactError, SoftrecError
from index.workspace import ShopSettings, Workspace
from training.base_model import BASE_KIND, locate_base


@pytest.fixture
def shop(tmp_path) -> Workspace:
    return Workspace.create(tmp_path / "shop", ShopSettings())


def write_folder(folder, **config: object) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")


def test_no_stand_in_names_the_command(shop):
    with pytest.raises(MissingArtifactError, match="softrec base"):
        locate_base(shop)


def test_a_stand_in_that_does_not_say_what_it_read_is_not_used(shop):
    with write_artifact(shop.base_dir, kind=BASE_KIND) as draft:
        (draft.path / "config.json").write_text("{}")
    with pytest.raises(
        CorruptArtifactError, match=r"does not say what it was trained on; make it again with `softrec base"
    ):
        locate_base(shop)


def test_a_named_folder_is_identified_by_its_content(shop, tmp_path):
    """Two folders of equal files are one base; other weights are another."""
    digests = []
    for name, weights in (("a", b"weights"), ("b", b"weights"), ("c", b"other")):
        write_folder(tmp_path / name, eos_token_id=[7, 8])
        (tmp_path / name / "model.safetensors").write_bytes(weights)
        base = locate_base(Workspace(shop.root, ShopSettings(base_model=str(tmp_path / name))))
        assert base.end_id == 7
        digests.append(base.digest)
    assert digests[0] == digests[1] != digests[2]


def test_a_base_without_an_end_token_is_refused(shop, tmp_path):
    write_folder(tmp_path / "endless")
    base = locate_base(Workspace(shop.root, ShopSettings(base_model=str(tmp_path / "endless"))))
    with pytest.raises(SoftrecError, match="names no eos_token_id"):
        _ = base.end_id
