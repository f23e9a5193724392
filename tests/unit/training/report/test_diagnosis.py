from __future__ import annotations

import json
from dataclasses import replace

import pytest

from index.catalog.catalog import Catalog, Item
from tests.finished_runs import sft_run, soft_run
from training.report.diagnosis import Diagnosis, compare_first_epochs, correlate_distance, diagnose
from training.report.distilled_signs import describe_distilled

CATALOG = Catalog.from_items([Item("a", "Doom", "action"), Item("b", "Myst", "puzzle")])
SIGNS = describe_distilled(["Doom", "Doom", "Myst"], ["Doom", "Myst", "Doom"], CATALOG)


def test_the_first_epochs_are_compared_per_token_and_per_title():
    """Distilled 1.0 nats per token and 6 per title; true 2.0 and 20."""
    losses, reason = compare_first_epochs(soft_run((1.0, 1.0, 0.1)), sft_run(0.1, 0.2))
    assert reason == ""
    assert [(loss.unit, loss.distilled, loss.real) for loss in losses] == [
        ("nats per token", 1.0, 2.0),
        ("nats per title", 6.0, 20.0),
    ]
    assert [loss.ratio for loss in losses] == [0.5, 0.3]


def test_runs_of_an_older_version_logged_one_loss_under_one_name():
    run = replace(soft_run(), history=[{"epoch": 1, "tau": 1.0, "loss": 0.5, "validation_hr10": 0.1}])
    parent = replace(sft_run(), history=[{"epoch": 1, "loss": 2.0, "validation_hr10": 0.1}])
    losses, _ = compare_first_epochs(run, parent)
    assert [(loss.unit, loss.ratio) for loss in losses] == [("nats per token", 0.25)]


def test_first_epochs_that_differ_in_more_than_the_titles_are_not_compared():
    run, parent = soft_run((1.0, 1.0, 0.1), curriculum_alpha=10.0), sft_run(0.1, max_epochs=9)
    assert compare_first_epochs(run, parent)[0]
    losses, reason = compare_first_epochs(run, sft_run(0.1, learning_rate=0.1))
    assert (losses, "learning_rate" in reason) == ((), True)
    losses, reason = compare_first_epochs(soft_run((1.0, 0.9, 0.1)), parent)
    assert (losses, "tau below 1" in reason) == ((), True)


def test_a_tau_that_fell_within_the_first_epoch_is_seen_in_the_log():
    run = soft_run((1.0, 1.0, 0.1))
    log = [row | {"tau": 0.8} if row["event"] == "update" and row["step"] == 3 else row for row in run.log]
    assert compare_first_epochs(replace(run, log=log), sft_run(0.1))[0] == ()


def test_distance_is_paired_with_the_loss_of_the_same_weights():
    """Six epochs: d_t before epochs 2 to 6 with the validation loss after 1 to 5, which only falls.

    The distances 0.9, 0.8, 0.5, 0.6, 0.7 have the ranks 4, 3, 0, 1, 2 and the losses 4, 3, 2, 1, 0: rank differences
    0, 0, 2, 0, 2, so rho = 1 - 6 * 8 / (5 * 24) = 0.6. d_0, whatever it is, has no part in it.
    """
    ratios = (1.0, 0.9, 0.8, 0.5, 0.6, 0.7)
    run = soft_run(*((ratio, ratio, 0.1) for ratio in ratios))
    correlation = correlate_distance(run, run.distances())
    assert (correlation.rho, correlation.n, correlation.chance) == (pytest.approx(0.6), 5, 0.5)


def test_what_was_measured_within_an_epoch_has_no_validation_loss():
    run = soft_run(*((ratio, ratio, 0.1) for ratio in (1.0, 0.9, 0.8, 0.7, 0.6)))
    log = list(run.log)
    log.insert(2, {"event": "distance", "epoch": 1, "step": 1, "d_t": 0.1, "d_ratio": 0.025, "tau": 0.1})
    run = replace(run, log=log)
    assert len(run.distances()) == 6
    assert correlate_distance(run, run.distances()).n == 4


def test_a_short_run_says_that_it_is_too_short():
    diagnosis = diagnose(soft_run((1.0, 1.0, 0.1), (0.9, 0.9, 0.2)))
    assert diagnosis.correlation is not None
    assert (diagnosis.correlation.rho, diagnosis.correlation.n) == (None, 1)
    assert "too few" in diagnosis.correlation.note


def test_a_diagnosis_survives_json():
    run = soft_run(*((ratio, ratio, 0.1) for ratio in (1.0, 0.99, 0.98, 0.97, 0.96)))
    diagnosis = diagnose(run, parent=sft_run(0.3, 0.2), distilled=SIGNS, unknown=["something"])
    assert diagnosis.distilled == SIGNS
    assert {"tau_stuck", "distance_stuck"} <= {sign.code for sign in diagnosis.signs}
    assert Diagnosis.from_json(json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))) == diagnosis


def test_sft_gets_the_part_that_applies():
    diagnosis = diagnose(sft_run(0.1, 0.2))
    assert (diagnosis.distilled, diagnosis.correlation, diagnosis.losses, diagnosis.distances) == (None, None, (), ())
    assert [sign.code for sign in diagnosis.signs] == ["still_improving"]
    assert Diagnosis.from_json(diagnosis.to_json()) == diagnosis


def test_other_validation_windows_are_not_compared_and_it_is_said():
    diagnosis = diagnose(soft_run((1.0, 1.0, 0.1), (0.8, 0.5, 0.1)), parent=sft_run(0.9, seed=7))
    assert any("validated on other windows" in text for text in diagnosis.unknown)
    assert all(sign.code != "below_sft" for sign in diagnosis.signs)
