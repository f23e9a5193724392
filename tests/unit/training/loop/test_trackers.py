import importlib.util

import pytest
from accelerate import PartialState

from training.errors import SettingError
from training.loop.trackers import Trackers, open_trackers
from training.settings import TrainSettings


def read_scalars(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_holds_what_was_logged(tmp_path):
    """0.5, 0.25 and 2 are exact in float32, which is what an event file keeps."""
    trackers = open_trackers("tensorboard", tmp_path / "runs", "soft", TrainSettings().to_json())
    trackers.log(1, {"loss": 0.5, "tau": 1.0})
    trackers.log(7, {"loss": 0.25, "tokens": 2})
    trackers.close()
    assert read_scalars(tmp_path / "runs" / "soft") == {
        "loss": [(1, 0.5), (7, 0.25)],
        "tau": [(1, 1.0)],
        "tokens": [(7, 2.0)],
    }
    [stored] = (tmp_path / "runs" / "soft").glob("*/hparams.yml")
    assert "learning_rate: 0.003" in stored.read_text()


def test_nothing_is_opened_unless_asked(tmp_path):
    trackers = open_trackers(None, tmp_path / "runs", "soft", {})
    trackers.log(1, {"loss": 0.5})
    trackers.close()
    assert not (tmp_path / "runs").exists()


def test_other_processes_than_the_main_one_log_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(PartialState, "is_main_process", property(lambda state: False))
    open_trackers("tensorboard", tmp_path / "runs", "soft", {}).log(1, {"loss": 0.5})
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ("tensorbord", r"unknown tracker 'tensorbord'; did you mean tensorboard\?"),
        ("tensorboard,visdom", r"unknown tracker 'visdom'; choose from tensorboard, mlflow, wandb, or none alone"),
        ("none,tensorboard", r"unknown tracker 'none'; choose from"),
    ],
)
def test_an_unknown_tracker_is_answered_with_those_there_are(names, said, tmp_path):
    with pytest.raises(SettingError, match=said):
        open_trackers(names, tmp_path, "soft", {})


def test_a_tracker_that_is_not_installed_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match=r"--report-to wandb: the package is not installed; .*pip install wandb"):
        open_trackers("wandb", tmp_path, "soft", {})


def test_every_tracker_gets_every_figure_and_is_closed():
    class Fake:
        def __init__(self):
            self.told = []

        def log(self, values, step):
            self.told.append((step, values))

        def finish(self):
            self.told.append("finish")

    one, two = Fake(), Fake()
    trackers = Trackers([one, two])
    trackers.log(3, {"loss": 1.0})
    trackers.close()
    assert one.told == two.told == [(3, {"loss": 1.0}), "finish"]
