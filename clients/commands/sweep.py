"""`softrec sweep`: a method over several values of one setting; the best by validation gets the method's name."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from clients.choices import settings_for
from clients.commands.train import prepare
from clients.errors import RefusedError
from clients.progress import open_progress
from clients.tables import say, write_json
from clients.views.outcomes import show_outcomes
from clients.views.run import show_sign
from index.workspace import Workspace
from training.parallel.processes import Processes
from training.progress import Silence
from training.recipes.method import Method
from training.recipes.methods import method_to_vary
from training.recipes.variant_runs import (
    Outcome,
    best_outcome,
    check_names_free,
    measure_spread,
    publish_as,
    train_variants,
)
from training.recipes.variants import parse_values, sweep_variants
from training.report.failure_signs import setting_swings


def sweep_method(
    root: Path,
    values: str = "",
    *,
    name: str = "",
    preset: str | None = None,
    assignments: Sequence[str] = (),
    json_path: Path | None = None,
) -> list[Outcome]:
    """Train one adapter per value of the method's swept setting, publish the best by validation HR@10, print them all.

    The best gets the method's own name too. First whatever is missing is made: base, index, the teacher's adapter. The
    table also goes to `reports/sweep.json`.

    Args:
        root: the workspace.
        values: comma-separated; empty: the method's own.
        name: of the method; empty: the last that has something to sweep.
        preset: None takes "tiny" for the stand-in base and "paper" for a named one.
        assignments: `key=value` changes to the preset.
        json_path: where the table goes as JSON too.

    Raises:
        SettingError: a method, a value or a setting is wrong; nothing was trained.
        RefusedError: the swept setting is among the assignments.
        TrainingError: one of the adapters' names is taken by another method's.
    """
    workspace = Workspace.open(root)
    method = method_to_vary("sweep", name)
    assert method.sweep is not None
    setting = method.sweep.setting
    variants = sweep_variants(method, parse_values(method, values))
    if any(text.partition("=")[0].strip() == setting for text in assignments):
        raise RefusedError(f"{setting} is what a sweep tries out", remedy="list its values in --values")
    settings = settings_for(method.settings, workspace, preset, assignments)
    method.check_variants(settings)
    check_names_free(workspace, method, [*(variant.name for variant in variants), method.name])
    processes = Processes()
    progress = open_progress() if processes.is_main else Silence()
    grounder, dataset = prepare(workspace, method, settings, processes, progress)
    outcomes = train_variants(workspace, method, variants, settings, dataset, grounder, progress)
    best = best_outcome(outcomes, setting)
    published = publish_as(workspace, best.adapter, method.name)
    if processes.is_main:
        shop = shlex.quote(str(root))
        show_outcomes(outcomes, title=f"Validation, {best.validation_windows} windows")
        content = {
            "variants": [outcome.to_json() for outcome in outcomes],
            "best": best.variant.name,
            "published": published.adapter_id,
            **_show_spread(method, outcomes, shop),
        }
        say(f"adapter: {published.adapter_id} in {published.path}, a copy of {best.variant.name}")
        _say_what_counts(method, len(outcomes), shop)
        write_json(workspace.reports_dir / "sweep.json", content)
        write_json(json_path, content)
    return outcomes


def _show_spread(method: Method, outcomes: Sequence[Outcome], shop: str) -> dict[str, Any]:
    """Print how much the setting matters beside what chance gives; return it for the report. One run has no spread."""
    if len(outcomes) < 2:
        return {"spread": None, "swings": None}
    spread = measure_spread(outcomes)
    say(
        f"spread of HR@10 (largest - smallest): {spread.width:.4f}. The standard error of one such share of "
        f"{spread.windows} windows is {spread.standard_error:.4f}; {len(outcomes)} equally good runs stay within "
        f"{spread.by_chance:.4f} of each other in 19 of 20 cases"
    )
    if not any(outcome.validation_hr10 for outcome in outcomes):
        say("no run had a hit, so this says nothing: the lower loss decided; train longer, or validate on more windows")
        return {"spread": asdict(spread), "swings": None}
    assert method.sweep is not None
    setting, label = method.sweep.setting, method.sweep.label
    rows = [(float(outcome.variant.changes[setting]), outcome.validation_hr10) for outcome in outcomes]
    swings = setting_swings(method.name, setting, label, rows, spread.windows)
    if swings is None:
        say(f"so the choice among these values of {label} may be chance")
    else:
        show_sign(swings, shop)
    return {"spread": asdict(spread), "swings": None if swings is None else asdict(swings)}


def _say_what_counts(method: Method, n: int, shop: str) -> None:
    if n > 1:
        say(f"the best of {n} looks better than it is, since it was chosen by these very figures")
    names = " ".join(filter(None, (method.teacher, method.name)))
    compare = f", `softrec compare {shop} {names}`" if method.teacher else ""
    say(f"what counts is the test windows: `softrec evaluate {shop} {names}`{compare}")
