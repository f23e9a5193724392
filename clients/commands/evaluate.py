"""`softrec evaluate`: HR and NDCG over the full catalog, beside popularity."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from clients.commands.index import open_index
from clients.commands.train import Method, settings_of
from clients.errors import RefusedError
from clients.progress import open_progress
from clients.tables import show_table, write_json
from index.artifact import MANIFEST
from index.errors import MissingArtifactError
from index.workspace import Workspace
from training.adapter import DecodingMode, read_adapters
from training.evaluation import POPULARITY, Evaluation, evaluate_adapters

SHOWN = ("HR@1", "HR@5", "HR@10", "HR@20", "HR@50", "NDCG@5", "NDCG@10", "NDCG@50")


def evaluate_shop(
    root: Path,
    names: Sequence[str] = (),
    *,
    decoding: DecodingMode | None = None,
    assignments: Sequence[str] = (),
    json_path: Path | None = None,
) -> list[Evaluation]:
    """Measure adapters on the shop's test windows and print the table; all of it goes to `reports/evaluation.json`.

    Args:
        root: the workspace.
        names: adapters ("base" is the bare base model); none named: all there are. Popularity is always there.
        decoding: how titles are written; None: as each adapter's manifest says.
        assignments: `key=value` changes to the settings of the first adapter.
        json_path: where the table goes as JSON too.

    Raises:
        MissingArtifactError: a named adapter, or any at all, is not trained yet.
        RefusedError: a name leads nowhere.
    """
    workspace = Workspace.open(root)
    chosen = adapters_named(workspace, names) if names else list(read_adapters(workspace.adapters_dir))
    if not chosen and not names:
        raise MissingArtifactError("adapter", workspace.adapters_dir, command=f"softrec train soft {root}")
    progress = open_progress()
    grounder = open_index(workspace, progress).grounder
    settings = settings_of(workspace, chosen, assignments)
    evaluations = evaluate_adapters(workspace, chosen, settings, grounder, progress, decoding=decoding)
    content = [evaluation.to_json() for evaluation in evaluations]
    show_evaluations(content)
    write_json(workspace.reports_dir / "evaluation.json", content)
    write_json(json_path, content)
    return evaluations


def adapters_named(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """Return the names without popularity, which every evaluation measures.

    Raises:
        RefusedError: there is no such adapter and no recipe makes it; names those there are.
    """
    folders = sorted(path.parent.name for path in workspace.adapters_dir.glob("*/" + MANIFEST))
    there = [name for name in folders if not name.startswith(".")]
    for name in names:
        known = [*there, "base", POPULARITY]
        if name in known or name in get_args(Method):  # a recipe's adapter that is missing names its own command
            continue
        near = difflib.get_close_matches(name, [*known, *get_args(Method)], n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        listed = f"adapters there: {', '.join(there) or 'none'}; also base and {POPULARITY}"
        raise RefusedError(f"no adapter {name!r} in {workspace.root}", remedy=guess + listed)
    return [name for name in names if name != POPULARITY]


def show_evaluations(evaluations: Sequence[Mapping[str, Any]]) -> None:
    """Print what `Evaluation.to_json` gives, one line per method; all intervals but HR@10's are in the JSON alone."""
    show_table(
        [
            {
                **{name: evaluation[name] for name in ("method", "decoding", "ranking", *SHOWN)},
                "HR@10 95 %": f"{evaluation['HR@10_low']:.3f} to {evaluation['HR@10_high']:.3f}",
            }
            for evaluation in evaluations
        ],
        title=f"Full catalog, {evaluations[0]['windows']} test windows of {evaluations[0]['users']} users",
    )
