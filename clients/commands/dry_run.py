"""`softrec train METHOD SHOP --dry-run`: what a run would learn from and take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clients.choices import settings_for
from clients.progress import open_progress
from clients.tables import write_json
from clients.views.dry_run import show_costs, show_data
from index.workspace import Workspace
from training.parallel.processes import Processes
from training.preflight.dry_run import DryRun, dry_run
from training.progress import Silence
from training.recipes.methods import find_method


def look_ahead(
    root: Path,
    name: str,
    *,
    base_model: str | None = None,
    preset: str | None = None,
    assignments: Sequence[str] = (),
    json_path: Path | None = None,
) -> DryRun:
    """Print what `clients.commands.train.train_adapter` would learn from and take; the workspace stays as it is.

    What it would learn from is printed first, before anything slow.

    Args:
        name, base_model, preset, assignments: see `train_adapter`.
        json_path: where the same goes as JSON.

    Raises:
        MissingArtifactError: the base is not there yet, or the catalog or the log.
        TrainingError: whatever would stop the run before its first update.
    """
    workspace = Workspace.open(root)
    method = find_method(name)
    settings = settings_for(method.settings, workspace, preset, assignments, base_model=base_model)
    if base_model is not None:
        workspace = Workspace(workspace.root, replace(workspace.settings, base_model=base_model))
    processes = Processes()
    progress = open_progress() if processes.is_main else Silence()
    found = dry_run(workspace, method, settings, processes, progress, on_data=show_data)
    show_costs(found)
    write_json(json_path, found.to_json())
    return found
