"""Each sign just beyond its threshold and just within; remedies that are commands."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from index.catalog.catalog import Catalog, Item
from tests.finished_runs import sft_run, soft_run
from training.recipes.soft.signs import compare_first_epochs, explain_soft
from training.report.diagnosis import Diagnosis
from training.report.distilled_signs import DISTINCT_TRUE, TOP_TRUE, DistilledSigns, Sign, describe_distilled
from training.report.failure_signs import FailureSign, sampling_noise, setting_swings
from training.report.finished_run import FinishedRun

GOOD = {"distilled_unique": 0.5, "distilled_top10": 0.3, "distilled_true": 0.1, "distilled_off_catalog": 0.01}


def distilled(**shares: float) -> DistilledSigns:
    """Of 1000 titles; 600 distinct true ones, of which the ten most frequent are 0.2."""
    beside = {"distilled_unique": {DISTINCT_TRUE: 0.6}, "distilled_top10": {TOP_TRUE: 0.2}}
    return DistilledSigns(
        1000, tuple(Sign(name, name, share, 1000, beside.get(name, {})) for name, share in (GOOD | shares).items())
    )


PARENT = sft_run(0.1, 0.2, 0.1)


def find(run: FinishedRun, parent: FinishedRun = PARENT, signs: DistilledSigns | None = None) -> dict[str, FailureSign]:
    diagnosis = explain_soft(run, parent=parent, distilled=signs or distilled())
    return {sign.code: sign for sign in diagnosis.signs}


def falling(*taus: float, ratios: tuple[float, ...] = (), **settings: Any) -> FinishedRun:
    """A SOFT run of these taus whose best epoch is the last but one."""
    ratios = ratios or tuple(0.9 - 0.1 * epoch for epoch in range(len(taus)))
    hr10 = [0.1] * (len(taus) - 1) + [0.3, 0.2]
    rows = zip((1.0, *ratios), (1.0, *taus), hr10, strict=True)
    return soft_run(*rows, **settings)


def test_a_healthy_run_has_no_sign():
    assert find(falling(0.7, 0.5), sft_run(0.1, 0.2, 0.1), distilled()) == {}


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"distilled_unique": 0.061}, None),
        ({"distilled_unique": 0.059}, "collapsed"),  # 0.1 of the 0.6 distinct true titles
        ({"distilled_top10": 0.5}, None),
        ({"distilled_top10": 0.51}, "collapsed"),
        ({"distilled_true": 0.5}, None),
        ({"distilled_true": 0.51}, "memorised"),
        ({"distilled_off_catalog": 0.05}, None),
        ({"distilled_off_catalog": 0.051}, "off_catalog"),
    ],
)
def test_distilled_titles_that_teach_nothing(changes: dict[str, float], code: str | None):
    signs = find(falling(0.7, 0.5), sft_run(0.1, 0.2, 0.1), distilled(**changes))
    assert list(signs) == ([code] if code else [])
    if code:
        assert signs[code].level == "warning"
        assert "1000" in signs[code].seen
        assert "softrec train sft SHOP" in signs[code].remedy
        assert signs[code].remedy.endswith("`")
        assert "softrec train soft SHOP" in signs[code].remedy


@pytest.mark.parametrize(
    ("run", "code"),
    [
        (falling(0.91, 0.9), None),
        (falling(0.95, 0.91), "tau_stuck"),
        (falling(0.7, 0.7, ratios=(0.96, 0.95)), None),
        (falling(0.7, 0.7, ratios=(0.96, 0.951)), "distance_stuck"),
        (falling(0.009, 0.01), None),
        (falling(0.009, 0.0), "tau_gone"),
    ],
)
def test_a_curriculum_that_does_not_move_or_moves_at_once(run: FinishedRun, code: str | None):
    assert list(find(run)) == ([code] if code else [])


@pytest.mark.parametrize("schedule", ["linear", "step", "distilled", "real"])
def test_a_schedule_that_does_not_look_at_the_distance_has_no_curriculum_to_be_stuck(schedule: str):
    assert find(falling(0.95, 0.95, schedule=schedule)) == {}


def test_the_alpha_that_is_suggested_brings_tau_nearest_to_a_half():
    """At d_t / d_0 = 0.94, alpha 10 gives exp(-0.6) = 0.55, 100 gives exp(-6) = 0.002."""
    remedy = find(falling(0.96, 0.94, ratios=(0.96, 0.94)))["tau_stuck"].remedy
    assert "tau 0.55" in remedy
    assert "--set curriculum_alpha=10`" in remedy
    assert "no larger alpha" in find(falling(1.0, 1.0, ratios=(1.0, 1.1)))["tau_stuck"].remedy
    assert "curriculum_alpha=10`" in find(falling(0.0, 0.0, curriculum_alpha=100.0))["tau_gone"].remedy


def test_a_published_epoch_that_saw_no_true_title():
    """tau is 1 in the first epoch by definition; here it was the best of two."""
    run = soft_run((1.0, 1.0, 0.3), (0.8, 0.5, 0.1))
    assert list(find(run)) == ["only_distilled"]
    assert "--set learning_rate=0.001" in find(run)["only_distilled"].remedy


def test_a_last_epoch_that_is_the_best_is_a_note_that_comes_last():
    signs = list(find(soft_run((1.0, 1.0, 0.1), (0.9, 0.95, 0.2))).values())
    assert [(sign.code, sign.level) for sign in signs] == [("tau_stuck", "warning"), ("still_improving", "note")]
    assert "--set max_epochs=6`" in signs[-1].remedy


def test_soft_below_sft_is_noise_until_it_is_more():
    """100 windows, p about 0.4: the noise is 1.96 * sqrt(2 * 0.4 * 0.6 / 100) = 0.136."""
    within = find(falling(0.7, 0.5), sft_run(0.4, 0.1))["below_sft"]  # 0.3 against 0.4
    assert (within.level, "30 hits against 40" in within.seen) == ("note", True)
    assert "`softrec compare SHOP sft soft --set test_windows=5000`" in within.remedy
    beyond = find(falling(0.7, 0.5), sft_run(0.5, 0.1))["below_sft"]
    assert (beyond.level, "above 0.1358" in beyond.threshold) == ("warning", True)
    assert "below_sft" not in find(falling(0.7, 0.5), sft_run(0.3, 0.1))
    assert "below_sft" not in find(falling(0.7, 0.5), sft_run(0.5, 0.1, seed=1))  # other windows: no comparison


def test_without_the_number_of_windows_nothing_is_said_of_noise():
    run = falling(0.7, 0.5)
    run = replace(run, windows={})
    sign = find(run, sft_run(0.9, 0.1))["below_sft"]
    assert (sign.level, "not known" in sign.threshold) == ("note", True)


def test_more_to_learn_is_more_windows_where_there_are_more():
    few = {"distilled_unique": 0.01}
    run = falling(0.7, 0.5)
    assert "--set train_windows=8192`" in find(run, PARENT, distilled(**few))["collapsed"].remedy
    all_used = replace(run, windows={"train_available": 4096})
    assert "--set max_epochs=6`" in find(all_used, PARENT, distilled(**few))["collapsed"].remedy


@given(st.lists(st.floats(0, 1), min_size=2, max_size=6), st.integers(10, 10_000))
def test_noise_shrinks_with_windows_and_grows_with_runs(shares: list[float], n: int):
    noise = sampling_noise(shares, n)
    assert noise >= 0
    assert sampling_noise(shares, 4 * n) == pytest.approx(noise / 2)
    assert sampling_noise([*shares, *shares], n) >= noise


def test_noise_of_two_is_two_standard_errors_of_a_difference():
    assert sampling_noise([0.3, 0.5], 100) == pytest.approx(1.959964 * math.sqrt(2 * 0.4 * 0.6 / 100))


def swings(rows: list[tuple[float, float]]) -> FailureSign | None:
    return setting_swings("soft", "curriculum_alpha", "alpha", rows, 1000)


def test_alpha_swings_only_beyond_the_noise():
    """1000 windows, p = 0.05, three runs: z at 0.05 / 6 is 2.394, so the noise is 2.394 * 0.00975 = 0.0233."""
    steady = [(0.1, 0.04), (1.0, 0.05), (10.0, 0.06)]
    assert swings(steady) is None
    assert swings(steady[:1]) is None
    sign = swings([(0.1, 0.03), (1.0, 0.05), (10.0, 0.07)])
    assert sign is not None
    assert (sign.code, "above 0.0233" in sign.threshold) == ("alpha_swings", True)
    assert "0.0300 at alpha 0.1 to 0.0700 at alpha 10, each over 1000 windows" in sign.seen
    assert "--set curriculum_alpha=10" in sign.remedy


def test_the_first_epochs_are_compared_per_token_and_per_title():
    """Distilled 1.0 nats per token and 6 per title; true 2.0 and 20."""
    losses, reason = compare_first_epochs(soft_run((1.0, 1.0, 0.1)), sft_run(0.1, 0.2))
    assert reason == ""
    assert [(loss.unit, loss.distilled, loss.real) for loss in losses] == [
        ("nats per token", 1.0, 2.0),
        ("nats per title", 6.0, 20.0),
    ]
    assert [loss.ratio for loss in losses] == [0.5, 0.3]


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


def test_a_diagnosis_survives_json():
    run = soft_run(*((ratio, ratio, 0.1) for ratio in (1.0, 0.99, 0.98, 0.97, 0.96)))
    catalog = Catalog.from_items([Item("a", "Doom", "action"), Item("b", "Myst", "puzzle")])
    described = describe_distilled(["Doom", "Doom", "Myst"], ["Doom", "Myst", "Doom"], catalog)
    diagnosis = explain_soft(run, parent=sft_run(0.3, 0.2), distilled=described)
    assert diagnosis.distilled == described
    assert {"tau_stuck", "distance_stuck"} <= {sign.code for sign in diagnosis.signs}
    assert Diagnosis.from_json(json.loads(json.dumps(diagnosis.to_json(), allow_nan=False))) == diagnosis


def test_other_validation_windows_are_not_compared_and_a_line_says_so():
    diagnosis = explain_soft(
        soft_run((1.0, 1.0, 0.1), (0.8, 0.5, 0.1)), parent=sft_run(0.9, seed=7), distilled=distilled()
    )
    assert any("validated on other windows" in text for text in diagnosis.unknown)
    assert all(sign.code != "below_sft" for sign in diagnosis.signs)
