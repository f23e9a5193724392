from __future__ import annotations

import pytest

from training.errors import SettingError
from training.recipes.methods import METHODS, SOFT
from training.settings import TrainSettings, resolve_settings, restore_settings


def test_assignments_keep_the_presets_types():
    settings = resolve_settings(
        TrainSettings, "tiny", ["max_epochs=5", "learning_rate=1e-3", "lora_modules=q_proj,v_proj"]
    )
    assert (settings.max_epochs, settings.learning_rate, settings.lora_modules) == (5, 1e-3, "q_proj,v_proj")
    assert TrainSettings().max_epochs != 5


@pytest.mark.parametrize(
    ("assignment", "message"),
    [
        ("max_epoch=5", "unknown setting 'max_epoch'; did you mean max_epochs"),
        ("zzz=1", "unknown setting 'zzz'; known: "),
        ("max_epochs", "--set takes key=value, got 'max_epochs'"),
        ("max_epochs=two", "max_epochs takes a whole number, got 'two'"),
        ("max_epochs=0", "max_epochs must be positive, got 0"),
        ("learning_rate=nan", "learning_rate must be positive, got nan"),
        ("lora_dropout=1", r"lora_dropout must be in \[0, 1\)"),
        ("micro_batch_size=5", "batch_size 32 is not a multiple of micro_batch_size 5"),
        ("min_history=11", "min_history 11 exceeds max_history 10"),
        ("precision=fp16", "precision must be one of fp32, bf16"),
        ("quantization=8bit", "quantization must be one of none, 4bit, got '8bit'"),
        ("max_epochs=none", "max_epochs takes a whole number, got 'none'"),
        ("curriculum_alpha=10", "unknown setting 'curriculum_alpha'"),
        ("preset=paper", "unknown setting 'preset'"),
    ],
)
def test_a_wrong_assignment_says_what_is_allowed(assignment, message):
    with pytest.raises(SettingError, match=message):
        resolve_settings(TrainSettings, "tiny", [assignment])


def test_unknown_preset():
    with pytest.raises(SettingError, match="unknown preset 'huge'; choose one of tiny, paper"):
        resolve_settings(TrainSettings, "huge")


def test_the_papers_preset_is_the_papers():
    """SOFT, section 4.1."""
    paper = SOFT.settings.presets()["paper"]
    assert (paper.lora_rank, paper.lora_alpha, paper.lora_dropout, paper.lora_modules) == (8, 16, 0.05, "q_proj,v_proj")
    assert (paper.learning_rate, paper.warmup_steps, paper.batch_size) == (1e-4, 20, 256)
    assert (paper.max_history, paper.min_history) == (10, 10)
    assert (paper.max_epochs, paper.patience, paper.beams, paper.distance_samples) == (7, 2, 4, 256)
    assert (paper.train_windows, paper.validation_windows, paper.test_windows) == (4096, 512, 1000)


def test_none_is_spelled_none():
    chosen = resolve_settings(SOFT.settings, "tiny", ["quantization=none", "distance_every=none", "report_to=none"])
    assert (chosen.quantization, chosen.distance_every, chosen.report_to) == (None, None, None)
    assert resolve_settings(SOFT.settings, "tiny", ["distance_every=3"]).distance_every == 3
    with pytest.raises(SettingError, match="distance_every takes a whole number or none, got 'often'"):
        resolve_settings(SOFT.settings, "tiny", ["distance_every=often"])


def test_a_methods_own_setting_is_found_by_its_nearest_name():
    with pytest.raises(SettingError, match="did you mean curriculum_alpha"):
        resolve_settings(SOFT.settings, "tiny", ["curriculum_alfa=1"])


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
@pytest.mark.parametrize("preset", ["tiny", "paper"])
def test_a_presets_settings_survive_their_json_and_differ_from_it_in_nothing(method, preset):
    settings = resolve_settings(method.settings, preset)
    assert restore_settings(method.settings, settings.to_json()) == settings
    assert settings.changed == ()
    assert restore_settings(method.settings, settings.to_json(), ["seed=7"]).changed == ("seed",)


def test_settings_of_another_version_are_refused():
    with pytest.raises(SettingError, match=r"not of this version \(beams, old\); train again"):
        restore_settings(
            TrainSettings, {"old": 1} | {k: v for k, v in TrainSettings().to_json().items() if k != "beams"}
        )
