"""A dry run of a real shop: what it counts, and that it leaves everything as it was."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.cli import app
from index.workspace import Workspace
from tests.notes import Notes
from tests.shop import SETTINGS
from training.data.dataset import load_dataset
from training.parallel.processes import Processes
from training.preflight.dry_run import DryRun, dry_run
from training.progress import Silence
from training.recipes.method import Method
from training.recipes.methods import SFT, SOFT
from training.settings import TrainSettings

TINY = replace(SETTINGS, train_windows=24, validation_windows=6, decode_batch_size=4)


def look(shop: Workspace, method: Method, settings: TrainSettings) -> DryRun:
    return dry_run(shop, method, settings, Processes(), Silence(), on_data=lambda data: None)


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    return {str(path): (path.stat().st_size, path.stat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


def test_sft_is_counted_as_it_would_be_trained(based_shop: Workspace):
    found = look(based_shop, SFT, TINY)
    assert found.data.windows["training"] == 24 - found.data.left_out.total
    assert found.updates.updates_per_epoch == math.ceil(found.data.windows["training"] / TINY.batch_size)
    assert [(part.what, part.rounds, part.count) for part in found.parts] == [
        ("updates", TINY.max_epochs, found.updates.updates_per_epoch),
        ("validation", TINY.max_epochs, 6),
    ]
    assert found.updates.typical.tokens <= found.updates.longest.tokens
    assert min(part.seconds for part in found.parts) > 0
    assert len(found.data.samples) == 3
    for sample in found.data.samples:
        [title] = sample.completions
        assert "".join(title.tokens) == title.text
        assert title.text.endswith('"<|end|>')


def test_items_that_do_not_fit_are_counted(based_shop: Workspace):
    """The stand-in's prompt without titles takes three tokens: begin, head, tail. Beside them there is room for 20."""
    roomy = look(based_shop, SFT, TINY)
    assert (roomy.data.shortened_prompts, roomy.data.dropped_items) == (0, 0)
    tight = look(based_shop, SFT, replace(TINY, max_prompt_tokens=23))
    assert 0 < tight.data.shortened_prompts <= tight.data.dropped_items
    assert tight.data.lengths[0].longest <= 23


def test_soft_without_distilled_titles_says_what_stands_in_for_them(based_shop: Workspace):
    found = look(based_shop, SOFT, replace(TINY, distance_every=2))
    assert any("the true ones stand in" in note for note in found.notes)
    per_epoch = found.updates.updates_per_epoch
    assert [(part.what, part.rounds, part.count) for part in found.parts][2:] == [
        ("d_t", TINY.max_epochs * math.ceil(per_epoch / 2), TINY.distance_samples),
        ("distillation", 1, found.data.windows["training"]),
    ]


def test_soft_shows_the_distilled_titles_that_are_there(trained_shop: Workspace):
    found = look(trained_shop, SOFT, replace(SETTINGS, decode_batch_size=4))
    assert [part.what for part in found.parts] == ["updates", "validation", "d_t"]
    assert [title.name for title in found.data.samples[0].completions] == ["distilled title", "true title"]


def test_the_command_shows_it_and_changes_nothing(trained_shop: Workspace, tmp_path: Path):
    before = contents(trained_shop.root)
    report = tmp_path / "dry-run.json"
    sets = [f"--set={name}={getattr(TINY, name)}" for name in ("train_windows", "batch_size", "micro_batch_size")]
    arguments = ["train", "sft", str(trained_shop.root), "--dry-run", "--json", str(report), *sets]
    result = CliRunner().invoke(app, [*arguments, "--set=decode_batch_size=4"])
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("sample 1 of 3: user ")
    assert "in all, for 3 epochs" in result.stdout
    assert json.loads(report.read_text())["method"] == "sft"
    assert contents(trained_shop.root) == before


def test_what_is_left_out_is_counted_and_said(based_shop: Workspace):
    """With the median title's length as the limit, the longer half of the targets goes."""
    whole = load_dataset(based_shop, TINY, Silence())
    lengths = sorted(len(whole.renderer.title_ids(title)) for title in whole.titles(whole.split.train))
    median = lengths[len(lengths) // 2]
    notes = Notes()
    halved = load_dataset(based_shop, replace(TINY, max_title_tokens=median), notes)
    longer = sum(length > median for length in lengths)
    assert (whole.left_out.total, halved.left_out.total) == (0, longer)
    assert len(halved.split.train) == len(lengths) - longer
    assert notes.said == [
        f"{longer} training windows left out: their title is longer than {median} tokens (max_title_tokens)"
    ]


@pytest.mark.parametrize("method", ["sft", "soft"])
def test_a_dry_run_makes_no_base(method, tmp_path: Path):
    from tests.shop import import_demo_shop

    workspace = import_demo_shop(tmp_path / "shop", users=40)
    before = contents(workspace.root)
    result = CliRunner().invoke(app, ["train", method, str(workspace.root), "--dry-run"])
    assert result.exit_code == 2
    assert "softrec base" in result.stderr
    assert contents(workspace.root) == before


def test_what_is_learned_is_said_before_the_base_is_even_loaded(based_shop: Workspace, monkeypatch):
    """A base of billions of parameters takes minutes on a CPU; nobody should wait for the first line."""
    seen: list[object] = []

    def load_base(*_: object, **__: object) -> None:
        raise RuntimeError(f"loaded after {len(seen)} summaries")

    monkeypatch.setattr("training.preflight.dry_run.load_base", load_base)
    with pytest.raises(RuntimeError, match="loaded after 1 summaries"):
        dry_run(based_shop, SFT, TINY, Processes(), Silence(), on_data=seen.append)


def test_a_slow_base_is_timed_on_few_titles_and_the_notes_say_so(based_shop: Workspace, monkeypatch):
    monkeypatch.setattr("training.preflight.cost.TITLES_S", 0.0)
    found = look(based_shop, SFT, TINY)
    assert any("greedy titles: 1 at once were timed, not 4" in note for note in found.notes)
