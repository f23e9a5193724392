"""`softrec evaluate`: HR and NDCG over the full catalog, beside popularity."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar, get_args

from clients.commands.index import open_index
from clients.commands.train import Method, settings_of
from clients.errors import RefusedError
from clients.progress import open_progress
from clients.tables import say, show_table, write_json
from index.artifact import MANIFEST
from index.errors import MissingArtifactError
from index.ranking.ranking_spec import RANKINGS
from index.workspace import Workspace
from training.adapter import read_adapters
from training.generation.decoding import OFFLINE_MODES, OfflineMode
from training.measure.evaluation import POPULARITY, Evaluation, Mode, evaluate_adapters

T = TypeVar("T", bound=str)

SHOWN = ("HR@1", "HR@5", "HR@10", "HR@20", "HR@50", "NDCG@5", "NDCG@10", "NDCG@50")


def evaluate_shop(
    root: Path,
    names: Sequence[str] = (),
    *,
    decoding: str = "",
    ranking: str = "",
    assignments: Sequence[str] = (),
    json_path: Path | None = None,
) -> list[Evaluation]:
    """Measure adapters on the shop's test windows and print the table; all of it goes to `reports/evaluation.json`.

    Args:
        root: the workspace.
        names: adapters ("base" is the bare base model); none named: all there are. Popularity is always there.
        decoding, ranking: comma-separated modes, see `parse_modes`.
        assignments: `key=value` changes to the settings of the first adapter.
        json_path: where the table goes as JSON too.

    Raises:
        MissingArtifactError: a named adapter, or any at all, is not trained yet.
        RefusedError: a name or a mode leads nowhere.
    """
    modes = parse_modes(decoding, ranking)
    workspace = Workspace.open(root)
    chosen = adapters_named(workspace, names) if names else list(read_adapters(workspace.adapters_dir))
    if not chosen and not names:
        raise MissingArtifactError("adapter", workspace.adapters_dir, command=f"softrec train soft {root}")
    progress = open_progress()
    grounder = open_index(workspace, progress).grounder
    settings = settings_of(workspace, chosen, assignments)
    evaluations = evaluate_adapters(workspace, chosen, settings, grounder, progress, modes=modes, with_served=True)
    content = [evaluation.to_json() for evaluation in evaluations]
    show_evaluations(content)
    write_json(workspace.reports_dir / "evaluation.json", content)
    write_json(json_path, content)
    return evaluations


def parse_modes(decoding: str, ranking: str) -> list[Mode]:
    """Pair decodings with rankings.

    Args:
        decoding: comma-separated; empty: greedy for l2, the constrained beam for the other rankings.
        ranking: comma-separated; empty: all.

    Returns:
        Every decoding with every ranking.

    Raises:
        RefusedError: one of them does not exist.

    Example:
        >>> parse_modes("", "l2,likelihood"), parse_modes("beam", "l2")
        ([(None, 'l2'), (None, 'likelihood')], [('beam', 'l2')])
    """
    decodings: list[OfflineMode | None] = [*_choices(decoding, OFFLINE_MODES, "decoding")] or [None]
    rankings = _choices(ranking, RANKINGS, "ranking") or list(RANKINGS)
    return [(mode, rank) for mode in decodings for rank in rankings]


def _choices(text: str, known: Sequence[T], what: str) -> list[T]:
    chosen = []
    for name in filter(None, (part.strip() for part in text.split(","))):
        if name not in known:
            raise RefusedError(f"no {what} {name!r}", remedy=f"choose of {', '.join(map(str, known))}")
        chosen.append(known[[str(one) for one in known].index(name)])
    return chosen


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
                "served": "yes" if evaluation["served"] else "",
            }
            for evaluation in evaluations
        ],
        title=f"Full catalog, {evaluations[0]['windows']} test windows of {evaluations[0]['users']} users",
    )
    for row in evaluations:
        if row["ranking"].startswith("l2") and "lost_in_grounding" in row:
            say(
                f"{row['method']} {row['decoding']} l2: 1 - HR@10 = {row['lost_in_generation']:.4f} lost in generation "
                f"(the model's own ranking misses it too) + {row['lost_in_grounding']:.4f} in grounding one title"
            )
