"""`softrec sweep`: SOFT over several alphas; the best by validation becomes `soft`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clients.commands.diagnose import show_sign
from clients.commands.train import prepare, settings_for
from clients.errors import RefusedError
from clients.progress import open_progress
from clients.tables import say, show_table, write_json
from index.workspace import Workspace
from training.adapter import GoldenPrompt
from training.parallel.processes import Processes
from training.progress import Silence
from training.recipes.soft.variant_runs import (
    SOFT,
    Outcome,
    best_outcome,
    check_names_free,
    measure_spread,
    publish_as,
    train_variants,
)
from training.recipes.soft.variants import alpha_variants, check_adaptive, parse_alphas
from training.report.failure_signs import alpha_swings


def sweep_alphas(
    root: Path,
    alphas: str,
    *,
    preset: str | None = None,
    assignments: Sequence[str] = (),
    json_path: Path | None = None,
) -> list[Outcome]:
    """Train one SOFT adapter per alpha, publish the best by validation HR@10 as `soft` too, and print them all.

    First whatever is missing: base, index, SFT adapter, distilled titles. The table also goes to `reports/sweep.json`.

    Args:
        root: the workspace.
        alphas: comma-separated.
        preset: None takes "tiny" for the stand-in base and "paper" for a named one.
        assignments: `key=value` changes to the preset.
        json_path: where the table goes as JSON too.

    Raises:
        SettingError: an alpha or a setting cannot be; nothing was trained.
        RefusedError: `curriculum_alpha` is among the assignments.
        TrainingError: one of the adapters' names is taken by another method's.
    """
    workspace = Workspace.open(root)
    variants = alpha_variants(parse_alphas(alphas))
    if any(text.partition("=")[0].strip() == "curriculum_alpha" for text in assignments):
        raise RefusedError("curriculum_alpha is what a sweep tries out", remedy="list its values in --alphas")
    settings = settings_for(workspace, preset, assignments)
    check_adaptive(settings)
    check_names_free(workspace, [*(variant.name for variant in variants), SOFT])
    processes = Processes()
    progress = open_progress() if processes.is_main else Silence()
    grounder = prepare(workspace, "soft", settings, processes, progress)
    outcomes = train_variants(workspace, variants, settings, grounder, progress)
    best = best_outcome(outcomes)
    published = publish_as(workspace, best.adapter, SOFT)
    if processes.is_main:
        show_outcomes(outcomes, title=f"Validation, {best.validation_windows} windows")
        content = {
            "variants": [outcome.to_json() for outcome in outcomes],
            "best": best.variant.name,
            "published": published.adapter_id,
            **_show_spread(outcomes, shlex.quote(str(root))),
        }
        say(f"adapter: {published.adapter_id} in {published.path}, a copy of {best.variant.name}")
        _say_what_counts(len(outcomes), shlex.quote(str(root)))
        write_json(workspace.reports_dir / "sweep.json", content)
        write_json(json_path, content)
    return outcomes


def show_outcomes(outcomes: Sequence[Outcome], *, title: str) -> None:
    """Print one line per variant."""
    show_table(
        [
            {
                "variant": outcome.variant.meaning,
                "adapter": outcome.adapter.adapter_id,
                "HR@10": outcome.validation_hr10,
                "loss": outcome.validation_loss,
                "published epoch": f"{outcome.epoch} of {outcome.epochs}",
                "last tau": outcome.tau,
                "last d_t/d_0": outcome.d_ratio,
            }
            for outcome in outcomes
        ],
        title=title,
    )
    say("HR@10 and loss (nats per token of the true titles) are the published epoch's; tau and d_t as last measured")
    for alike in _find_alike(outcomes):
        say(f"{', '.join(alike)}: the same weights, since they learned alike up to the published epoch")


def _find_alike(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """Names of the variants that give their golden prompts the same log-probabilities, to the last bit."""
    by_golden: dict[tuple[GoldenPrompt, ...], list[str]] = {}
    for outcome in outcomes:
        by_golden.setdefault(outcome.adapter.golden, []).append(outcome.variant.name)
    return [names for names in by_golden.values() if len(names) > 1]


def _show_spread(outcomes: Sequence[Outcome], shop: str) -> dict[str, Any]:
    """Print how much alpha matters beside what chance gives; return it for the report. One run has no spread."""
    if len(outcomes) < 2:
        return {"spread": None, "alpha_swings": None}
    spread = measure_spread(outcomes)
    say(
        f"spread of HR@10 (largest - smallest): {spread.width:.4f}. The standard error of one such share of "
        f"{spread.windows} windows is {spread.standard_error:.4f}; {len(outcomes)} equally good runs stay within "
        f"{spread.by_chance:.4f} of each other in 19 of 20 cases"
    )
    if not any(outcome.validation_hr10 for outcome in outcomes):
        say("no run had a hit, so this says nothing: the lower loss decided; train longer, or validate on more windows")
        return {"spread": asdict(spread), "alpha_swings": None}
    swings = alpha_swings([(outcome.curriculum_alpha, outcome.validation_hr10) for outcome in outcomes], spread.windows)
    if swings is None:
        say("so the choice among these alphas may be chance")
    else:
        show_sign(swings, shop)
    return {"spread": asdict(spread), "alpha_swings": None if swings is None else asdict(swings)}


def _say_what_counts(n: int, shop: str) -> None:
    if n > 1:
        say(f"the best of {n} looks better than it is, since it was chosen by these very figures")
    say(f"what counts is the test windows: `softrec evaluate {shop} sft soft`, `softrec compare {shop} sft soft`")
