from __future__ import annotations

import json

import pytest

from clients.commands.train import _use_base
from index.artifact import file_digest, write_artifact
from index.errors import CorruptArtifactError, MissingArtifactError, SoftrecError
from index.workspace import ShopSettings, Workspace
from training.base_model import BASE_KIND, locate_base
from training.progress import Silence


@pytest.fixture
def shop(tmp_path) -> Workspace:
    return Workspace.create(tmp_path / "shop", ShopSettings())


def write_folder(folder, **config: object) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "tokenizer.json").write_text("{}")


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


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_folder_that_lacks_a_file_is_refused_and_pickled_weights_are_no_replacement(shop, tmp_path, name):
    write_folder(tmp_path / "base")
    (tmp_path / "base" / name).rename(tmp_path / "base" / "pytorch_model.bin")
    with pytest.raises(MissingArtifactError, match=rf"no base model \({name}\) at .*--base MODEL"):
        locate_base(Workspace(shop.root, ShopSettings(base_model=str(tmp_path / "base"))))


def test_a_missing_shard_is_named(shop, tmp_path):
    write_folder(tmp_path / "base")
    shards = {"a": "model-1.safetensors", "b": "model-2.safetensors"}
    (tmp_path / "base" / "model.safetensors").rename(tmp_path / "base" / "model-1.safetensors")
    (tmp_path / "base" / "model.safetensors.index.json").write_text(json.dumps({"weight_map": shards}))
    with pytest.raises(MissingArtifactError, match=r"\(model-2.safetensors\)"):
        locate_base(Workspace(shop.root, ShopSettings(base_model=str(tmp_path / "base"))))


def test_a_named_base_is_hashed_once_and_again_when_a_file_changes(shop, tmp_path, monkeypatch):
    hashed: list[str] = []

    def noted(path):
        hashed.append(path.name)
        return file_digest(path)

    monkeypatch.setattr("training.base_model.file_digest", noted)
    write_folder(tmp_path / "base")
    named = Workspace(shop.root, ShopSettings(base_model=str(tmp_path / "base")))
    first = locate_base(named).digest
    assert sorted(hashed) == ["config.json", "model.safetensors", "tokenizer.json"]
    assert locate_base(named).digest == first
    assert len(hashed) == 3
    (tmp_path / "base" / "model.safetensors").write_bytes(b"WEIGHTS")
    second = locate_base(named).digest
    assert second != first
    shop.base_digest_path.write_text("{")
    assert locate_base(named).digest == second
    assert len(hashed) == 9


class Hub:
    """Stands in for `huggingface_hub.snapshot_download`: a cache and a hub whose main branch moves."""

    def __init__(self, cache) -> None:
        self.cache = cache
        self.main = "a" * 40
        self.asked: list[str | None] = []  # revisions, over the network

    def __call__(self, name, *, revision, allow_patterns, local_files_only):
        folder = self.cache / (revision or self.main)
        if not local_files_only:
            self.asked.append(revision)
            if not folder.exists():
                write_folder(folder, eos_token_id=7)
                (folder / "model.safetensors").write_bytes(folder.name.encode())
        elif not folder.exists():
            raise FileNotFoundError(folder)
        return str(folder)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Hub:
    (tmp_path / "cache").mkdir()
    hub = Hub(tmp_path / "cache")
    monkeypatch.setattr("huggingface_hub.snapshot_download", hub)
    return hub


def test_a_hub_model_is_pinned_by_its_first_use_and_found_without_the_network_from_then_on(shop, hub):
    shop.write_settings(ShopSettings(noun="game", base_model="some/llm"))
    first = locate_base(Workspace.open(shop.root))
    assert (first.name, first.revision, hub.asked) == ("some/llm", "a" * 40, [None])
    pinned = Workspace.open(shop.root)
    assert pinned.settings == ShopSettings(noun="game", base_model=f"some/llm@{'a' * 40}")
    hub.main = "b" * 40
    assert locate_base(pinned) == first
    assert hub.asked == [None]


def test_a_pinned_model_that_the_cache_lacks_or_holds_in_part_is_fetched_by_its_commit(shop, hub):
    pinned = Workspace(shop.root, ShopSettings(base_model=f"some/llm@{'a' * 40}"))
    hub.main = "b" * 40
    assert locate_base(pinned).revision == "a" * 40
    assert hub.asked == ["a" * 40]
    (hub.cache / ("a" * 40) / "tokenizer.json").unlink()
    with pytest.raises(MissingArtifactError, match=r"tokenizer\.json"):
        locate_base(pinned)
    assert hub.asked == ["a" * 40] * 2


def test_train_with_a_hub_name_pins_it_at_once(shop, hub):
    shop.write_settings(ShopSettings(base_model="other/llm@" + "c" * 40))
    changed = _use_base(Workspace.open(shop.root), "some/llm", Silence())
    assert changed.settings.base_model == f"some/llm@{'a' * 40}"
    assert Workspace.open(shop.root).settings == changed.settings
    locate_base(changed)
    assert hub.asked == [None]


def test_looking_at_another_model_does_not_change_the_shop(shop, hub):
    """As a dry run does."""
    locate_base(Workspace(shop.root, ShopSettings(base_model="some/llm")))
    assert Workspace.open(shop.root).settings == ShopSettings()
