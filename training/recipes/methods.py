"""The training methods. All other code asks this list. Light: no torch until one trains."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from training.errors import SettingError
from training.recipes.method import Method
from training.recipes.sft.method import SFT
from training.recipes.soft.method import SOFT
from training.settings import TrainSettings, restore_settings

if TYPE_CHECKING:
    from index.ranking.grounding import Grounder
    from index.workspace import Workspace
    from training.adapter import Adapter
    from training.data.dataset import Dataset
    from training.progress import Progress

# A method comes after its teacher. The last one that a shop has answers by default.
METHODS: tuple[Method, ...] = (SFT, SOFT)


def method_names() -> tuple[str, ...]:
    """Their names, in the list's order."""
    return tuple(method.name for method in METHODS)


def find_method(name: str) -> Method:
    """Return the method of that name.

    Raises:
        SettingError: there is none; names the nearest, or all.
    """
    for method in METHODS:
        if method.name == name:
            return method
    near = difflib.get_close_matches(name, method_names(), n=1)
    hint = f"did you mean {near[0]}?" if near else f"choose one of {', '.join(method_names())}"
    raise SettingError(f"unknown method {name!r}", remedy=hint)


def method_to_vary(what: str, name: str = "") -> Method:
    """Return a method with something to sweep or ablate: the named one, else the last that has it.

    Args:
        what: "sweep" or "ablations", the method's attribute.

    Raises:
        SettingError: the named method has nothing of the kind.
    """
    able = [method for method in METHODS if getattr(method, what) is not None]
    if not name:
        return able[-1]
    method = find_method(name)
    if method not in able:
        raise SettingError(f"{name} has no {what}", remedy=f"choose one of {', '.join(method.name for method in able)}")
    return method


def settings_of(adapter: Adapter, assignments: Sequence[str] = ()) -> TrainSettings:
    """The settings that an adapter was trained with, changed by `--set`.

    Raises:
        SettingError: its method or its settings are not of this version, or an assignment is wrong.
    """
    return restore_settings(find_method(adapter.facts.method).settings, adapter.facts.settings, assignments)


def main_adapter(names: Collection[str]) -> str:
    """The adapter that answers where none is named: the last method's among these, else the last by name.

    Args:
        names: of adapters; none: the last method's, which is then missing.
    """
    methods = method_names()
    return next((name for name in reversed(methods) if name in names), max(names, default=methods[-1]))


def train(
    method: Method,
    workspace: Workspace,
    settings: TrainSettings,
    grounder: Grounder,
    progress: Progress,
    *,
    name: str = "",
    dataset: Dataset | None = None,
) -> Adapter:
    """Train and publish an adapter.

    Args:
        settings: those of another method are taken over as far as they are common.
        grounder: of the shop's index; validation HR@10 is measured with it.
        name: of the adapter; empty: the method's.
        dataset: of these settings, where it is loaded already.

    Raises:
        MissingArtifactError: the teacher's adapter, the base, the catalog or the log is missing.
        DivergedError: the loss is not a finite number.
        StoppedError: a signal came; the same call goes on.
    """
    from training.adapter import read_adapter
    from training.loop.run import open_run

    if method.teacher is not None:  # before anything heavy is loaded
        read_adapter(workspace.adapter_dir(method.teacher))
    own = method.settings.taken_from(settings)
    with open_run(workspace, own, grounder, progress, dataset=dataset) as run:
        return method.train(run, name or method.name)
