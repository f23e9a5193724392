"""`softrec train`: an adapter, and whatever has to be there before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from clients.commands.base import ensure_base
from clients.commands.diagnose import draw_run
from clients.commands.index import open_index
from clients.progress import open_progress
from clients.tables import say
from index.errors import MismatchError, MissingArtifactError
from index.ranking.grounding import Grounder
from index.workspace import Workspace
from training.adapter import Adapter, read_adapter
from training.base_model import locate_base
from training.data.dataset import check_trained_on, load_dataset
from training.loop.trackers import parse_trackers
from training.parallel.processes import Processes
from training.progress import Progress, Silence
from training.recipes.sft import train_sft
from training.recipes.soft.soft import train_soft
from training.report.diagnosis import read_diagnosis
from training.settings import TrainSettings, resolve_settings, restore_settings

Method = Literal["sft", "soft"]


def train_adapter(
    root: Path,
    method: Method,
    *,
    base_model: str | None = None,
    preset: str | None = None,
    assignments: Sequence[str] = (),
) -> Adapter:
    """Train and publish an adapter; first whatever it needs and does not find: base, index, for SOFT the SFT adapter.

    Args:
        root: the workspace.
        method: names the recipe and the adapter.
        base_model: a hub name or folder; written into softrec.toml, so that all later steps use it.
        preset: None takes "tiny" for the stand-in base and "paper" for a named one.
        assignments: `key=value` changes to the preset.
    """
    workspace = Workspace.open(root)
    settings = settings_for(workspace, preset, assignments, base_model=base_model)
    parse_trackers(settings.report_to)  # a wrong name should not cost the base first
    processes = Processes()
    progress = open_progress() if processes.is_main else Silence()
    if base_model is not None:
        with processes.accelerator.main_process_first():
            workspace = _use_base(workspace, base_model, progress)
    grounder = prepare(workspace, method, settings, processes, progress)
    return _train(workspace, method, settings, grounder, progress)


def prepare(
    workspace: Workspace, method: Method, settings: TrainSettings, processes: Processes, progress: Progress
) -> Grounder:
    """Make what the method needs and the shop lacks: base, index, for SOFT the SFT adapter. Returns the grounder."""
    with processes.accelerator.main_process_first():  # the others find what it made
        ensure_base(workspace, settings, progress)
        grounder = open_index(workspace, progress).grounder
    if method == "soft":
        ensure_adapter(workspace, "sft", settings, grounder, progress)
    return grounder


def _use_base(workspace: Workspace, base_model: str, progress: Progress) -> Workspace:
    """Find the named base, then write it into softrec.toml; a name that leads nowhere changes nothing."""
    if Path(base_model).is_dir():
        base_model = str(Path(base_model).resolve())  # later commands may run elsewhere
    else:
        progress.note(f"base model {base_model}: from the hub's cache, or fetched into it now")
    named = Workspace(workspace.root, replace(workspace.settings, base_model=base_model))
    changed = replace(named.settings, base_model=locate_base(named).setting)
    workspace.write_settings(changed)
    return Workspace(workspace.root, changed)


def ensure_adapter(
    workspace: Workspace, method: Method, settings: TrainSettings, grounder: Grounder, progress: Progress
) -> Adapter:
    """Return the adapter if it fits base, catalog, prompt, split and (SOFT) its SFT adapter; else train it."""
    try:
        adapter = read_adapter(workspace.adapter_dir(method))
        check_trained_on(adapter, load_dataset(workspace, settings, progress))
        for parent in adapter.facts.parents:
            found = read_adapter(workspace.adapter_dir(parent.partition("@")[0])).adapter_id
            if found != parent:
                raise MismatchError(
                    f"{adapter.adapter_id}: made with", expected=parent, found=found, remedy="train again"
                )
        return adapter
    except (MissingArtifactError, MismatchError) as error:
        progress.note(f"training {method}: {error}")
    return _train(workspace, method, settings, grounder, progress)


def settings_of(workspace: Workspace, names: Sequence[str], assignments: Sequence[str]) -> TrainSettings:
    """Return the settings that the first of the named adapters was trained with, changed by `--set`.

    So an evaluation uses the windows, the split and the prompt of the training. Where no adapter is named: the preset.
    """
    for name in names:
        if name not in ("base", "popularity"):
            return restore_settings(read_adapter(workspace.adapter_dir(name)).facts.settings, assignments)
    return settings_for(workspace, None, assignments)


def settings_for(
    workspace: Workspace, preset: str | None, assignments: Sequence[str], *, base_model: str | None = None
) -> TrainSettings:
    """Resolve training settings; without a preset, the one that suits the base."""
    named = workspace.settings.base_model if base_model is None else base_model
    return resolve_settings(preset or ("paper" if named else "tiny"), assignments)


def _train(
    workspace: Workspace, method: Method, settings: TrainSettings, grounder: Grounder, progress: Progress
) -> Adapter:
    recipe = train_sft if method == "sft" else train_soft
    adapter = recipe(workspace, settings, grounder, progress)
    hr10 = adapter.facts.metrics.get("validation_hr10")
    measured = "" if hr10 is None else f", validation HR@10 {hr10:.4f}"
    if Processes().is_main:
        say(f"adapter: {adapter.adapter_id} in {adapter.path}{measured}")
        if (diagnosis := read_diagnosis(adapter)) is not None:
            draw_run(workspace, adapter, diagnosis)
    return adapter
