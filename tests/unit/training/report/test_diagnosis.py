from __future__ import annotations

from tests.finished_runs import sft_run
from training.report.diagnosis import Diagnosis, diagnose
from training.report.failure_signs import FailureSign

WARNING = FailureSign("code", "warning", "seen", "threshold", "remedy")


def test_a_run_without_signs_of_its_own_gets_the_part_that_applies_to_all():
    diagnosis = diagnose(sft_run(0.1, 0.2))
    assert (diagnosis.distilled, diagnosis.losses, diagnosis.distances) == (None, (), ())
    assert [sign.code for sign in diagnosis.signs] == ["still_improving"]
    assert Diagnosis.from_json(diagnosis.to_json()) == diagnosis


def test_notes_come_after_a_methods_warnings():
    assert [sign.level for sign in diagnose(sft_run(0.1, 0.2), signs=[WARNING]).signs] == ["warning", "note"]
