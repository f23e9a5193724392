from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from index.errors import CorruptArtifactError
from index.workspace import ShopSettings, Workspace
from tests.finished_runs import SETTINGS, publish, sft_run, soft_run
from training.data.windows import DataSplit, Window
from training.report.finished_run import Distance, count_windows, for_shop, read_run


def test_the_published_epoch_is_the_best_and_the_earlier_of_equals():
    assert sft_run(0.1, 0.3, 0.3, 0.2).best_epoch == 2
    assert sft_run(0.1, 0.3, 0.3, 0.2).best["epoch"] == 2


def test_updates_lie_on_the_axis_of_epochs():
    """Four updates per epoch, two epochs."""
    positions = [position for position, _ in sft_run(0.1, 0.2).updates()]
    assert positions == pytest.approx([0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0])


def test_distances_lie_where_they_were_measured():
    run = soft_run((1.0, 1.0, 0.1), (0.9, 0.8, 0.2))
    expected = [Distance(0.0, 4.0, 1.0, 1.0), Distance(1.0, 3.6, 0.9, 0.8)]
    assert run.distances() == expected
    assert sft_run(0.1).distances() == []


def test_a_measurement_within_an_epoch_stands_after_the_updates_before_it():
    """Logged after two of an epoch's four updates, whatever its own step says."""
    run = soft_run((1.0, 1.0, 0.1))
    log = list(run.log)
    log.insert(3, {"event": "distance", "epoch": 1, "step": 2, "d_t": 3.0, "d_ratio": 0.75, "tau": 0.5})
    assert [distance.position for distance in replace(run, log=log).distances()] == [0.0, 0.5]


def test_a_command_repeats_what_was_changed_and_names_the_workspace_last():
    run = sft_run(0.1, seed=3, learning_rate=0.01)
    assert run.changed_settings == {"seed": 3, "learning_rate": 0.01}
    command = run.command({"seed": 4, "max_epochs": 6, "report_to": None})
    arguments = "--preset tiny --set seed=4 --set learning_rate=0.01 --set max_epochs=6 --set report_to=none"
    assert for_shop(command, "'my shop'") == f"`softrec train sft 'my shop' {arguments}`"


def test_windows_are_counted_as_used_and_as_available():
    window = Window("u", (0,), 1, 5)
    split = DataSplit((window,) * 3, (window,) * 2, (window,), (), (30, 20, 10))
    assert count_windows(split) == {
        "train": 3,
        "validation": 2,
        "test": 1,
        "train_available": 30,
        "validation_available": 20,
        "test_available": 10,
    }


def test_a_published_run_is_read_back(tmp_path: Path):
    workspace = Workspace.create(tmp_path, ShopSettings())
    run = soft_run((1.0, 1.0, 0.1), (0.9, 0.8, 0.2))
    adapter = publish(workspace, "soft", run)
    assert read_run(adapter, windows=run.windows) == replace(run, name=adapter.adapter_id)


@pytest.mark.parametrize("rows", ["", "no json\n", json.dumps({"epoch": 1}) + "\n"])
def test_figures_that_cannot_be_read_are_named(rows: str, tmp_path: Path):
    adapter = publish(Workspace.create(tmp_path, ShopSettings()), "sft", sft_run(0.1))
    (adapter.path / "history.jsonl").write_text(rows)
    with pytest.raises(CorruptArtifactError, match=r"history\.jsonl.*softrec train sft"):
        read_run(adapter)


def test_the_tests_settings_are_the_presets():
    assert sft_run(0.1).changed_settings == {}
    assert SETTINGS["preset"] == "tiny"
