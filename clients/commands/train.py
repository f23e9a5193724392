"""`softrec train`: an adapter, and whatever has to be there before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clients.choices import settings_for
from clients.commands.base import ensure_base
from clients.commands.index import open_index
from clients.progress import open_progress
from clients.tables import say
from clients.views.run import draw_run
from index.errors import MismatchError, MissingArtifactError
from index.ranking.grounding import Grounder
from index.workspace import Workspace
from training.adapter import Adapter, read_adapter
from training.base_model import locate_base
from training.data.dataset import Dataset, check_trained_on, load_dataset
from training.loop.trackers import parse_trackers
from training.parallel.processes import Processes
from training.progress import Progress, Silence
from training.recipes.method import Method
from training.recipes.methods import find_method, train
from training.report.diagnosis import read_diagnosis
from training.settings import TrainSettings


def train_adapter(
    root: Path,
    name: str,
    *,
    base_model: str | None = None,
    preset: str | None = None,
    assignments: Sequence[str] = (),
) -> Adapter:
    """Train and publish an adapter; make what is missing first: base, index, the teacher's adapter.

    Args:
        root: the workspace.
        name: of the method and the adapter.
        base_model: a hub name or folder; written into softrec.toml, so that all later steps use it.
        preset: None takes "tiny" for the stand-in base and "paper" for a named one.
        assignments: `key=value` changes to the preset.
    """
    workspace = Workspace.open(root)
    method = find_method(name)
    settings = settings_for(method.settings, workspace, preset, assignments, base_model=base_model)
    parse_trackers(settings.report_to)  # a wrong name should not cost the base first
    processes = Processes()
    progress = open_progress() if processes.is_main else Silence()
    if base_model is not None:
        with processes.accelerator.main_process_first():
            workspace = _use_base(workspace, base_model, progress)
    grounder, dataset = prepare(workspace, method, settings, processes, progress)
    return _train(workspace, method, settings, dataset, grounder, progress)


def prepare(
    workspace: Workspace, method: Method, settings: TrainSettings, processes: Processes, progress: Progress
) -> tuple[Grounder, Dataset]:
    """Make what the method requires and the shop lacks: base, index, the teacher's adapter.

    Returns:
        The index's grounder, and the data as these settings see them.
    """
    with processes.accelerator.main_process_first():  # the others find what it made
        ensure_base(workspace, settings, progress)
        grounder = open_index(workspace, progress).grounder
    dataset = load_dataset(workspace, settings, progress)
    if method.teacher is not None:
        ensure_adapter(workspace, find_method(method.teacher), settings, dataset, grounder, progress)
    return grounder, dataset


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
    workspace: Workspace,
    method: Method,
    settings: TrainSettings,
    dataset: Dataset,
    grounder: Grounder,
    progress: Progress,
) -> Adapter:
    """Return the method's adapter if it fits base, catalog, prompt, split and its own parents; else train it.

    Its teacher's must be there.
    """
    try:
        adapter = read_adapter(workspace.adapter_dir(method.name))
        check_trained_on(adapter, dataset)
        for parent in adapter.facts.parents:
            found = read_adapter(workspace.adapter_dir(parent.partition("@")[0])).adapter_id
            if found != parent:
                raise MismatchError(
                    f"{adapter.adapter_id}: made with", expected=parent, found=found, remedy="train again"
                )
        return adapter
    except (MissingArtifactError, MismatchError) as error:
        progress.note(f"training {method.name}: {error}")
    return _train(workspace, method, settings, dataset, grounder, progress)


def _train(
    workspace: Workspace,
    method: Method,
    settings: TrainSettings,
    dataset: Dataset,
    grounder: Grounder,
    progress: Progress,
) -> Adapter:
    adapter = train(method, workspace, settings, grounder, progress, dataset=dataset)
    if Processes().is_main:
        hr10 = adapter.facts.metrics["validation_hr10"]
        say(f"adapter: {adapter.adapter_id} in {adapter.path}, validation HR@10 {hr10:.4f}")
        draw_run(workspace, adapter, read_diagnosis(adapter))
    return adapter
