from __future__ import annotations

import pytest

from training.errors import SettingError
from training.settings import PRESETS, resolve_settings


def test_assignments_keep_the_presets_types():
    settings = resolve_settings("tiny", ["max_epochs=5", "learning_rate=1e-3", "lora_modules=q_proj,v_proj"])
    assert (settings.max_epochs, settings.learning_rate, settings.lora_modules) == (5, 1e-3, "q_proj,v_proj")
    assert PRESETS["tiny"].max_epochs != 5


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
        ("micro_batch_size=5", "batch_size 32 is no multiple of micro_batch_size 5"),
        ("min_history=11", "min_history 11 exceeds max_history 10"),
        ("precision=fp16", "precision must be one of fp32, bf16"),
        ("preset=paper", "unknown setting 'preset'"),
    ],
)
def test_a_wrong_assignment_says_what_is_allowed(assignment, message):
    with pytest.raises(SettingError, match=message):
        resolve_settings("tiny", [assignment])


def test_unknown_preset():
    with pytest.raises(SettingError, match="unknown preset 'huge'; choose one of tiny, paper"):
        resolve_settings("huge")


def test_the_papers_preset_is_the_papers():
    """SOFT, section 4.1."""
    paper = PRESETS["paper"]
    assert (paper.lora_rank, paper.lora_alpha, paper.lora_dropout, paper.lora_modules) == (8, 16, 0.05, "q_proj,v_proj")
    assert (paper.learning_rate, paper.warmup_steps, paper.batch_size) == (1e-4, 20, 256)
    assert (paper.max_history, paper.min_history) == (10, 10)
    assert (paper.max_epochs, paper.patience, paper.beams, paper.distance_samples) == (7, 2, 4, 256)
    assert (paper.train_windows, paper.validation_windows, paper.test_windows) == (4096, 512, 1000)
