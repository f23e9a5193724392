"""What can be said of a picture without looking at it: that it is one, of what size, and that it is always the same."""

from __future__ import annotations

import struct
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.finished_runs import sft_run, soft_run
from training.report.curves import DARK, draw_curves, smooth
from training.report.finished_run import FinishedRun

SOFT = soft_run((1.0, 1.0, 0.1), (0.9, 0.8, 0.3), (0.8, 0.0, 0.2))
SFT = sft_run(0.1, 0.2)
WITHOUT_VALIDATION_LOSS = [
    {name: value for name, value in row.items() if name != "validation_loss"} for row in SOFT.history
]


def size(png: bytes) -> tuple[int, int]:
    """Width and height, from the file's first chunk."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    return struct.unpack(">II", png[16:24])


@pytest.mark.parametrize(
    "run",
    [
        pytest.param(SOFT, id="soft: 4 panels"),
        pytest.param(SFT, id="sft: 3"),
        pytest.param(replace(SOFT, history=WITHOUT_VALIDATION_LOSS), id="without validation loss: 3"),
        pytest.param(replace(SFT, windows={}), id="windows unknown"),
        pytest.param(sft_run(0.0), id="one epoch, no hit"),
    ],
)
def test_a_run_of_any_kind_is_drawn_in_two_rows(run: FinishedRun):
    assert size(draw_curves(run)) == (1100, 682)


def test_one_row_where_there_is_nothing_for_another():
    run = FinishedRun("sft", "sft", {}, [{"epoch": 1, "loss_real": 1.0, "validation_hr10": 0.1}])
    assert size(draw_curves(run)) == (1100, 341)


def test_the_same_run_gives_the_same_bytes_and_dark_is_another_picture():
    assert draw_curves(SOFT) == draw_curves(SOFT)
    assert draw_curves(SOFT) != draw_curves(SOFT, DARK)


@given(st.lists(st.integers(-100, 100), min_size=1, max_size=200))
def test_smoothing_is_the_mean_of_the_neighbours(values: list[int]):
    """The slow version, value by value: as many to the left as to the right, as far as there are any."""
    half = max(2, len(values) // 40)
    slow = [np.mean(values[max(0, at - half) : at + half + 1]) for at in range(len(values))]
    assert smooth(np.array(values, dtype=np.float64)) == pytest.approx(slow)


def test_nothing_global_is_touched():
    """pyplot keeps figures and picks a window system; importing this module does not even import matplotlib."""
    code = (
        "import sys\nfrom tests.finished_runs import sft_run\nfrom training.report.curves import draw_curves\n"
        "assert 'matplotlib' not in sys.modules\ndraw_curves(sft_run(0.1))\n"
        "print('matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False False"
