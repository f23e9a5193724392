"""What a command's words mean in a shop: which adapters, which settings. Light: reads manifests, no weights."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from clients.errors import RefusedError
from index.artifact import MANIFEST
from index.workspace import Workspace
from training.adapter import read_adapter
from training.recipes.methods import method_names, settings_of
from training.settings import S, TrainSettings, resolve_settings

BASE, POPULARITY = "base", "popularity"  # what may stand where an adapter is named


def settings_for(
    kind: type[S],
    workspace: Workspace,
    preset: str | None,
    assignments: Sequence[str],
    *,
    base_model: str | None = None,
) -> S:
    """Resolve a method's settings; without a preset, from the one that suits the base."""
    named = workspace.settings.base_model if base_model is None else base_model
    return resolve_settings(kind, preset or ("paper" if named else "tiny"), assignments)


def settings_to_measure(workspace: Workspace, names: Sequence[str], assignments: Sequence[str]) -> TrainSettings:
    """Return the settings that the first of the named adapters was trained with, changed by `--set`.

    So an evaluation uses the windows, the split and the prompt of the training. Where no adapter is named: the preset.
    """
    for name in names:
        if name not in (BASE, POPULARITY):
            return settings_of(read_adapter(workspace.adapter_dir(name)), assignments)
    return settings_for(TrainSettings, workspace, None, assignments)


def published_names(workspace: Workspace) -> list[str]:
    """Names of the shop's finished adapters, sorted."""
    folders = sorted(path.parent.name for path in workspace.adapters_dir.glob("*/" + MANIFEST))
    return [name for name in folders if not name.startswith(".")]


def adapters_named(workspace: Workspace, names: Sequence[str]) -> list[str]:
    """Return the names without popularity, which every evaluation measures.

    Raises:
        RefusedError: there is no such adapter and no method makes it; names those there are.
    """
    there = published_names(workspace)
    for name in names:
        known = [*there, BASE, POPULARITY]
        if name in known or name in method_names():  # a method's adapter that is missing names its own command
            continue
        near = difflib.get_close_matches(name, [*known, *method_names()], n=1)
        guess = f"did you mean {near[0]}? " if near else ""
        listed = f"adapters there: {', '.join(there) or 'none'}; also base and {POPULARITY}"
        raise RefusedError(f"no adapter {name!r} in {workspace.root}", remedy=guess + listed)
    return [name for name in names if name != POPULARITY]
