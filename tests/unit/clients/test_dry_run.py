"""How a dry run is shown."""

from __future__ import annotations

import re

import pytest

from clients.views.dry_run import show_costs, show_data
from training.data.window_filter import LeftOut
from training.preflight.cost import Part, UpdateCost, UpdateTime
from training.preflight.data_summary import Bin, DataSummary, Lengths, RenderedCompletion, RenderedSample
from training.preflight.dry_run import DryRun


def show(run: DryRun) -> None:
    show_data(run.data)
    show_costs(run)


RUN = DryRun(
    method="sft",
    device="cpu",
    max_epochs=3,
    data=DataSummary(
        windows={"training": 4090, "validation": 512, "test": 1000},
        available_windows={"training": 79239, "validation": 512, "test": 1000},
        left_out=LeftOut(too_long=5, garbled=1),
        shortened_prompts=37,
        dropped_items=52,
        lengths=(Lengths("prompt", 60, 83, 98, 139, (Bin(60, 99, 4000), Bin(100, 139, 90))),),
        samples=(
            RenderedSample(
                user_id="[ann]",
                prompt='<|begin|>Below is ...\n### Response:\n"',
                prompt_tokens=83,
                items=9,
                dropped_items=1,
                completions=(RenderedCompletion("true title", 'Heat"<|end|>', ("He", "at", '"', "<|end|>")),),
            ),
        ),
    ),
    updates=UpdateCost(78848, 1407104, 128, UpdateTime(32, 2879, 0.31), UpdateTime(32, 3568, 0.4)),
    parts=(Part("updates", 3, 128, "update", 0.31), Part("distillation", 1, 4090, "title", 0.0081)),
    peak_memory_bytes=3 << 29,
    notes=("the true titles stand in",),
)


def test_the_loss_mask_is_readable_without_colours(capsys):
    show(RUN)
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert shown.startswith(
        "sample 1 of 1: user [ann], 9 items, 1 dropped\n"
        "prompt, 83 tokens, no loss:\n"
        "    <|begin|>Below is ...\n"
        "    ### Response:\n"
        '    "\n'
        "true title, 4 tokens, loss on each:\n"
        '    >>>Heat"<|end|><<<\n'
        '    [He][at]["][<|end|>]\n'
    )


def test_a_terminal_gets_the_same_text_with_the_prompt_dimmed(capsys, monkeypatch):
    show(RUN)
    plain = capsys.readouterr().out
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm-256color"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    show(RUN)
    coloured = capsys.readouterr().out
    assert "\x1b[2m    <|begin|>Below is" in coloured
    assert '\x1b[1;32m    >>>Heat"<|end|><<<' in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == plain


def test_lengths_are_bars_of_their_share(capsys):
    """90 of the 4,000 of the longest bar: 40 x 90 / 4,000 letters, rounded up to 1."""
    show(RUN)
    lines = capsys.readouterr().out.splitlines()
    begin = lines.index("prompt tokens: shortest 60, median 83, 95 % at most 98, longest 139")
    assert lines[begin + 1 : begin + 3] == [
        "     60 -  99    4,000  " + "█" * 40,
        "    100 - 139       90  █",
    ]


@pytest.mark.parametrize(
    "line",
    [
        "training windows: 4,090 of 79,239",
        "validation windows: 512",
        "training windows left out: 6 (title too long 5, title that the tokenizer cannot spell 1, "
        "history that does not fit 0)",
        "prompts that lose whole items to max_prompt_tokens: 37, 52 items in all",
        "trainable parameters: 78,848 of 1,407,104 (5.60%)",
        "typical update: 32 windows, 2,879 tokens, 310 ms",
        "updates: 3 x 128 updates x 310 ms = 1 min 59 s",
        "distillation: 4,090 titles x 8.1 ms = 33.1 s",
        "in all, for 3 epochs: 2 min 32 s on cpu",
        "memory at its peak: 1.50 GiB resident in this process",
        "note: the true titles stand in",
    ],
)
def test_counts_and_costs_are_said_with_their_arithmetic(line, capsys):
    """3 x 128 x 0.31 s = 119.04 s; 4,090 x 0.0081 s = 33.13 s; both 152.17 s. 3 x 2 ** 29 bytes are 1.5 GiB."""
    show(RUN)
    assert line in capsys.readouterr().out.splitlines()


def test_as_json_it_carries_the_sums():
    content = RUN.to_json()
    assert content["total_seconds"] == pytest.approx(152.169)
    assert [part["total_seconds"] for part in content["parts"]] == pytest.approx([119.04, 33.129])
    assert content["data"]["left_out"] == {"too_long": 5, "garbled": 1, "without_history": 0}
