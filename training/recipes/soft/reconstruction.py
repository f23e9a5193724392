"""The diagnosis of an adapter that stored none, made of what is still in its workspace.

An adapter of an earlier version, or one that came from elsewhere: its parent may be trained anew by now, and the
distilled titles may be another teacher's. What is gone is named, with the command that brings it back.
"""

from __future__ import annotations

from index.artifact import MANIFEST
from index.catalog.catalog import read_catalog
from index.errors import SoftrecError
from index.workspace import Workspace
from training.adapter import Adapter, read_adapter
from training.data.dataset import load_split
from training.recipes.soft.distillation import read_distilled
from training.report.diagnosis import Diagnosis, diagnose
from training.report.distilled_signs import DistilledSigns, describe_distilled
from training.report.finished_run import FinishedRun, count_windows, read_run
from training.settings import restore_settings


def reconstruct(workspace: Workspace, adapter: Adapter) -> Diagnosis:
    """Diagnose a published run from its folder, its parent's and the distilled titles, as far as they are there.

    Raises:
        CorruptArtifactError: the adapter keeps no figures per epoch.
    """
    unknown: list[str] = []
    run = read_run(adapter, windows=_count_windows(workspace, adapter, unknown))
    parent = _find_parent(workspace, run, adapter, unknown)
    distilled = _describe(workspace, run, adapter, unknown) if adapter.facts.parents else None
    return diagnose(run, parent=parent, distilled=distilled, unknown=unknown)


def _count_windows(workspace: Workspace, adapter: Adapter, unknown: list[str]) -> dict[str, int]:
    try:
        _, split = load_split(workspace, restore_settings(adapter.facts.settings))
    except SoftrecError as error:
        unknown.append(f"how many windows it had: {error}")
        return {}
    if split.training_data != adapter.facts.training_data:
        unknown.append("how many windows it had: the log or its split has changed since it was trained")
        return {}
    return count_windows(split)


def _find_parent(workspace: Workspace, run: FinishedRun, adapter: Adapter, unknown: list[str]) -> FinishedRun | None:
    for wanted in adapter.facts.parents[:1]:
        path = workspace.adapter_dir(wanted.partition("@")[0])
        try:
            found = read_adapter(path) if (path / MANIFEST).is_file() else None
            if found is not None and found.adapter_id == wanted:
                return read_run(found, windows=run.windows)
            there = "is gone" if found is None else f"was replaced by {found.adapter_id}"
        except SoftrecError as error:
            there = f"cannot be read ({error})"
        unknown.append(f"how it compares with SFT: its parent {wanted} {there}; train SOFT anew: {run.command()}")
    return None


def _describe(workspace: Workspace, run: FinishedRun, adapter: Adapter, unknown: list[str]) -> DistilledSigns | None:
    what, again = "what the distilled titles are like", f"train SOFT anew: {run.command()}"
    try:
        catalog, stored = read_catalog(workspace.catalog_path), read_distilled(workspace.distilled_path)
    except SoftrecError as error:
        unknown.append(f"{what}: {error}")
        return None
    if (teacher := stored.provenance.get("teacher")) not in adapter.facts.parents:
        unknown.append(f"{what}: {workspace.distilled_path.name} is {teacher}'s, not its parent's; {again}")
        return None
    if catalog.digest != adapter.facts.catalog_digest:
        unknown.append(f"{what}: the catalog has changed since; {again}")
        return None
    return describe_distilled(stored.titles, stored.truths, catalog)
