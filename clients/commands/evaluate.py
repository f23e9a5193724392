"""`softrec evaluate`: HR and NDCG over the full catalog, beside popularity."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from clients.choices import adapters_named, published_names, settings_to_measure
from clients.commands.index import open_index
from clients.errors import RefusedError
from clients.progress import open_progress
from clients.tables import write_json
from clients.views.evaluations import show_evaluations
from index.errors import MissingArtifactError
from index.ranking.ranking_spec import RANKINGS
from index.workspace import Workspace
from training.generation.decoding import OFFLINE_MODES, OfflineMode
from training.measure.evaluation import Evaluation, Mode, evaluate_adapters
from training.recipes.methods import method_names

T = TypeVar("T", bound=str)


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
    chosen = adapters_named(workspace, names) if names else published_names(workspace)
    if not chosen and not names:
        raise MissingArtifactError(
            "adapter", workspace.adapters_dir, command=f"softrec train {method_names()[-1]} {root}"
        )
    progress = open_progress()
    grounder = open_index(workspace, progress).grounder
    settings = settings_to_measure(workspace, chosen, assignments)
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
            raise RefusedError(f"no {what} {name!r}", remedy=f"choose from {', '.join(map(str, known))}")
        chosen.append(known[[str(one) for one in known].index(name)])
    return chosen
