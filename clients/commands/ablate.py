"""`softrec ablate`: a method beside itself without its parts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.choices import published_names, settings_for, settings_to_measure
from clients.commands.train import prepare
from clients.progress import open_progress
from clients.tables import say, show_table, write_json
from clients.views.evaluations import show_evaluations
from clients.views.outcomes import show_outcomes
from index.workspace import Workspace
from training.measure.comparison import Comparison, compare_evaluations
from training.measure.evaluation import PAPERS, Evaluation, evaluate_adapters
from training.parallel.processes import Processes
from training.progress import Progress, Silence
from training.recipes.method import Method
from training.recipes.methods import method_to_vary
from training.recipes.variant_runs import Outcome, check_names_free, train_variants
from training.recipes.variants import Variant, ablation_variants, parse_ablations, whole_method
from training.settings import TrainSettings

SHOWN = ("HR@10", "NDCG@10")


def ablate_method(
    root: Path,
    only: str = "",
    *,
    name: str = "",
    preset: str | None = None,
    assignments: Sequence[str] = (),
    json_path: Path | None = None,
) -> list[Outcome]:
    """Train the whole method and its ablations, measure all on the test windows, and print what each part brings.

    First whatever is missing is made: base, index, the teacher's adapter. The method's own adapter is read, never
    replaced: the whole method is `<name>-full`. All tables also go to `reports/ablation.json`.

    Args:
        root: the workspace.
        only: comma-separated names of ablations; empty: all of them.
        name: of the method; empty: the last that has ablations.
        preset: None takes the settings of the shop's adapter of that name; where there is none, "tiny" for the stand-in
            base and "paper" for a named one.
        assignments: `key=value` changes to them.
        json_path: where the tables go as JSON too.

    Raises:
        SettingError: a method, a name or a setting is wrong; nothing was trained.
        TrainingError: one of the adapters' names is taken by another method's.
    """
    workspace = Workspace.open(root)
    method = method_to_vary("ablations", name)
    names, whole = parse_ablations(method, only), whole_method(method)
    settings = _choose_settings(workspace, method, preset, assignments)
    method.check_variants(settings)
    named = ablation_variants(method, names)
    check_names_free(workspace, method, [whole.name, *(variant.name for variant in named)])
    processes = Processes()
    progress = open_progress() if processes.is_main else Silence()
    grounder, dataset = prepare(workspace, method, settings, processes, progress)
    updates = math.ceil(len(dataset.split.train) / settings.batch_size)
    variants = [whole, *_without_idle(ablation_variants(method, names, updates), settings, progress)]
    outcomes = train_variants(workspace, method, variants, settings, dataset, grounder, progress)
    adapters = [*filter(None, [method.teacher]), *(variant.name for variant in variants)]
    evaluations = evaluate_adapters(workspace, adapters, settings, grounder, progress, dataset=dataset, modes=PAPERS)
    if processes.is_main:
        content = _show(whole, outcomes, evaluations)
        write_json(workspace.reports_dir / "ablation.json", content)
        write_json(json_path, content)
    return outcomes


def _choose_settings(
    workspace: Workspace, method: Method, preset: str | None, assignments: Sequence[str]
) -> TrainSettings:
    if preset is None and method.name in published_names(workspace):
        return settings_to_measure(workspace, [method.name], assignments)
    return settings_for(method.settings, workspace, preset, assignments)


def _without_idle(variants: Sequence[Variant], settings: TrainSettings, progress: Progress) -> list[Variant]:
    """The ablations, without those that the settings already are."""
    for variant in variants:
        if variant.settings(settings) == settings:
            progress.note(f"{variant.name} is left out: under these settings it is the whole method")
    return [variant for variant in variants if variant.settings(settings) != settings]


def _show(whole: Variant, outcomes: Sequence[Outcome], evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Print the tables; return them for the report."""
    show_outcomes(outcomes, title=f"As trained: validation, {outcomes[0].validation_windows} windows")
    show_evaluations([evaluation.to_json() for evaluation in evaluations])
    by_method = {evaluation.method: evaluation for evaluation in evaluations}
    full = by_method.pop(whole.name)
    differences = {method: compare_evaluations(full, evaluation) for method, evaluation in by_method.items()}
    _show_differences(whole, differences)
    return {
        "variants": [outcome.to_json() for outcome in outcomes],
        "evaluations": [evaluation.to_json() for evaluation in evaluations],
        "minus_full": {method: [row.to_json() for row in rows] for method, rows in differences.items()},
    }


def _show_differences(whole: Variant, differences: Mapping[str, Sequence[Comparison]]) -> None:
    show_table(
        [
            {
                "method": method,
                "metric": row.metric,
                "difference": f"{row.difference.mean:+.4f}",
                "95 %": f"{row.difference.low:+.4f} to {row.difference.high:+.4f}",
                "wins": row.wins,
                "losses": row.losses,
                "verdict": {"a better": "worse", "b better": "better"}.get(row.verdict, row.verdict),
            }
            for method, rows in differences.items()
            for row in rows
            if row.metric in SHOWN
        ],
        title=f"Minus {whole.name}, same test windows",
    )
    say("an interval that holds 0 decides nothing; of 20 that compare equals, one leaves it out by chance")
