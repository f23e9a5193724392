"""`softrec compare`: an offline A/B of two methods on the same test windows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clients.choices import adapters_named, settings_to_measure
from clients.commands.index import open_index
from clients.errors import RefusedError
from clients.pages.report import write_report
from clients.progress import open_progress
from clients.tables import say, show_table, write_json
from index.workspace import Workspace
from training.measure.comparison import Comparison, compare_evaluations
from training.measure.evaluation import evaluate_adapters


def compare_adapters(
    root: Path, first: str, second: str, *, assignments: Sequence[str] = (), json_path: Path | None = None
) -> list[Comparison]:
    """Measure both on the shop's test windows and print the differences, second minus first, with paired intervals.

    The table also goes to `reports/compare-<first>-<second>.json`, and with a chart to `.html` beside it.

    Args:
        root: the workspace.
        first: an adapter, "base" (the bare base model) or "popularity".
        second: likewise.
        assignments: `key=value` changes to the settings of the first adapter.
        json_path: where the table goes as JSON too.

    Raises:
        RefusedError: both are the same, or a name leads nowhere.
        MissingArtifactError: a named adapter is not trained yet.
    """
    workspace = Workspace.open(root)
    if first == second:
        raise RefusedError(f"{first} does not differ from itself", remedy="name two different adapters")
    progress = open_progress()
    names = adapters_named(workspace, (first, second))
    settings = settings_to_measure(workspace, names, assignments)
    grounder = open_index(workspace, progress).grounder
    evaluations = evaluate_adapters(workspace, names, settings, grounder, progress)
    by_method = {evaluation.method: evaluation for evaluation in evaluations}
    comparisons = compare_evaluations(by_method[first], by_method[second])
    report_path = workspace.reports_dir / f"compare-{first}-{second}.html"
    write_report(report_path, comparisons, by_method[first], by_method[second])
    content = [comparison.to_json() | {"a_method": first, "b_method": second} for comparison in comparisons]
    write_json(workspace.reports_dir / f"compare-{first}-{second}.json", content)
    write_json(json_path, content)
    _show(comparisons, first, second)
    for method in (by_method[first], by_method[second]):
        if method.decoding:
            say(f"{method.method} as it is served: {method.decoding}, ranked by {method.ranking}")
    say(f"report: {report_path}")
    return comparisons


def _show(comparisons: Sequence[Comparison], first: str, second: str) -> None:
    show_table(
        [
            {
                "metric": comparison.metric,
                first: comparison.a,
                second: comparison.b,
                "difference": f"{comparison.difference.mean:+.4f}",
                "95 %": f"{comparison.difference.low:+.4f} to {comparison.difference.high:+.4f}",
                "wins": comparison.wins,
                "losses": comparison.losses,
                "verdict": comparison.named_verdict(first, second),
            }
            for comparison in comparisons
        ],
        title=f"{second} minus {first}, same test windows",
    )
    say("an interval that holds 0 decides nothing; it resamples users, whose windows stay together")
