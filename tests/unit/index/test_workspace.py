from __future__ import annotations

import pytest

from index.errors import InputError, MissingArtifactError, Problem
from index.workspace import ShopSettings, Workspace


def test_settings_round_trip_and_only_changes_are_written(tmp_path):
    settings = ShopSettings(noun='mo"vie', verb="watched", split="leave-last-out")
    Workspace.create(tmp_path / "shop", settings)
    assert Workspace.open(tmp_path / "shop").settings == settings
    text = (tmp_path / "shop" / "softrec.toml").read_text()
    assert "encoder" not in text
    assert "leave-last-out" in text


def test_a_folder_that_is_no_workspace_names_the_command(tmp_path):
    with pytest.raises(MissingArtifactError, match=r"softrec init .*--items items.csv --interactions"):
        Workspace.open(tmp_path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[shop]\nnuon = 'x'", r"unknown setting shop.nuon.*known settings of \[shop\]: noun, verb"),
        ("[shopp]\n", r"unknown section \[shopp\]"),
        ("[shop]\nsplit = 'random'", "shop.split must be one of time, leave-last-out, got 'random'"),
        ("[shop]\nnoun = 3", "shop.noun must be text, got 3"),
        ("[shop", "mend the file"),
    ],
)
def test_a_broken_settings_file_says_where(tmp_path, text, message):
    (tmp_path / "softrec.toml").write_text(text)
    with pytest.raises(InputError, match=message):
        Workspace.open(tmp_path)


def test_an_input_error_lists_ten_problems_and_counts_the_rest(tmp_path):
    error = InputError(tmp_path / "f.csv", [Problem(line, "bad") for line in range(1, 14)], remedy="mend it")
    assert str(error).endswith("line 10: bad; and 3 more; mend it")
