from __future__ import annotations

import numpy as np
import pytest

from training.errors import TrainingError
from training.measure.comparison import compare_evaluations
from training.measure.evaluation import Evaluation
from training.measure.metrics import UserBootstrap, metric_table


def evaluation(method: str, positions: list[int], users: tuple[str, ...] | None = None) -> Evaluation:
    users = users or tuple(str(at) for at in range(len(positions)))
    array = np.array(positions, dtype=np.int64)
    return Evaluation(method, "", "greedy", "l2", array, metric_table(array, UserBootstrap(users)), users, 1.0)


def test_a_method_against_itself_is_undecided_with_no_difference():
    a = evaluation("sft", [0, 3, -1, 12] * 10)
    for row in compare_evaluations(a, a):
        assert (row.difference.mean, row.difference.low, row.difference.high) == (0.0, 0.0, 0.0)
        assert (row.wins, row.losses, row.verdict) == (0, 0, "undecided")


def test_the_better_one_is_named_and_the_difference_is_paired():
    """b finds all 40 targets first, a every fourth: HR@1 1.0 against 0.25, 30 wins, no loss."""
    a, b = evaluation("sft", [0, -1, -1, -1] * 10), evaluation("soft", [0] * 40)
    row = compare_evaluations(a, b)[0]
    assert (row.metric, row.a, row.b, row.difference.mean) == ("HR@1", 0.25, 1.0, 0.75)
    assert (row.wins, row.losses, row.verdict) == (30, 0, "b better")
    assert compare_evaluations(b, a)[0].verdict == "a better"


def test_one_window_among_many_decides_nothing():
    a, b = evaluation("sft", [-1] * 50), evaluation("soft", [0] + [-1] * 49)
    assert compare_evaluations(a, b)[0].verdict == "undecided"


def test_different_windows_are_refused():
    with pytest.raises(TrainingError, match="different windows"):
        compare_evaluations(evaluation("a", [0, 1]), evaluation("b", [0, 1], ("x", "y")))
