"""`softrec ablate`: SOFT beside SOFT without its parts, and beside fixed schedules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clients.commands.evaluate import show_evaluations
from clients.commands.sweep import show_outcomes
from clients.commands.train import prepare, settings_for, settings_of
from clients.progress import open_progress
from clients.tables import say, show_table, write_json
from index.artifact import MANIFEST
from index.workspace import Workspace
from training.measure.comparison import Comparison, compare_evaluations
from training.measure.evaluation import PAPERS, Evaluation, evaluate_adapters
from training.parallel.processes import Processes
from training.progress import Progress, Silence
from training.recipes.soft.variant_runs import SOFT, Outcome, check_names_free, train_variants, updates_per_epoch
from training.recipes.soft.variants import FULL, Variant, ablation_variants, check_adaptive, parse_ablations
from training.settings import TrainSettings

SHOWN = ("HR@10", "NDCG@10")


def ablate_soft(
    root: Path,
    only: str = "",
    *,
    preset: str | None = None,
    assignments: Sequence[str] = (),
    json_path: Path | None = None,
) -> list[Outcome]:
    """Train the full SOFT and its ablations, measure all on the test windows, and print what each part brings.

    First whatever is missing: base, index, SFT adapter, distilled titles. `adapters/soft` is read, never replaced: the
    full SOFT is `soft-full`. All tables also go to `reports/ablation.json`.

    Args:
        root: the workspace.
        only: comma-separated names of ablations; empty: all of them.
        preset: None takes the settings of the shop's `soft`; where there is none, "tiny" for the stand-in base and
            "paper" for a named one.
        assignments: `key=value` changes to them.
        json_path: where the tables go as JSON too.

    Raises:
        SettingError: a name or a setting cannot be; nothing was trained.
        TrainingError: one of the adapters' names is taken by another method's.
    """
    workspace = Workspace.open(root)
    names = parse_ablations(only)
    settings = _choose_settings(workspace, preset, assignments)
    check_adaptive(settings)
    check_names_free(workspace, [FULL.name, *(ablation_variants(1)[name].name for name in names)])
    processes = Processes()
    progress = open_progress() if processes.is_main else Silence()
    grounder = prepare(workspace, "soft", settings, processes, progress)
    variants = [FULL, *_choose_variants(names, settings, updates_per_epoch(workspace, settings), progress)]
    outcomes = train_variants(workspace, variants, settings, grounder, progress)
    methods = ["sft", *(variant.name for variant in variants)]
    evaluations = evaluate_adapters(workspace, methods, settings, grounder, progress, modes=PAPERS)
    if processes.is_main:
        content = _show(outcomes, evaluations)
        write_json(workspace.reports_dir / "ablation.json", content)
        write_json(json_path, content)
    return outcomes


def _choose_settings(workspace: Workspace, preset: str | None, assignments: Sequence[str]) -> TrainSettings:
    if preset is None and (workspace.adapter_dir(SOFT) / MANIFEST).is_file():
        return settings_of(workspace, [SOFT], assignments)
    return settings_for(workspace, preset, assignments)


def _choose_variants(names: Sequence[str], settings: TrainSettings, updates: int, progress: Progress) -> list[Variant]:
    """The named ablations, without those that the settings already are."""
    known, chosen = ablation_variants(updates), []
    for name in names:
        if known[name].settings(settings) == settings:
            progress.note(f"{name} is left out: under these settings it is the full SOFT")
        else:
            chosen.append(known[name])
    return chosen


def _show(outcomes: Sequence[Outcome], evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """Print the tables; return them for the report."""
    show_outcomes(outcomes, title=f"As trained: validation, {outcomes[0].validation_windows} windows")
    show_evaluations([evaluation.to_json() for evaluation in evaluations])
    by_method = {evaluation.method: evaluation for evaluation in evaluations}
    full = by_method.pop(FULL.name)
    differences = {method: compare_evaluations(full, evaluation) for method, evaluation in by_method.items()}
    _show_differences(differences)
    return {
        "variants": [outcome.to_json() for outcome in outcomes],
        "evaluations": [evaluation.to_json() for evaluation in evaluations],
        "minus_full": {method: [row.to_json() for row in rows] for method, rows in differences.items()},
    }


def _show_differences(differences: Mapping[str, Sequence[Comparison]]) -> None:
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
        title=f"Minus {FULL.name}, same test windows",
    )
    say("an interval that holds 0 decides nothing; of 20 that compare equals, one leaves it out by chance")
