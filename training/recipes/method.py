"""What a training method is to the rest: a name, settings, a way to train, a way to look ahead, things to vary.

Light: a method imports torch when it is used, not when it is listed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from training.settings import TrainSettings

if TYPE_CHECKING:
    from index.workspace import Workspace
    from training.adapter import Adapter
    from training.data.dataset import Dataset
    from training.generation.title_writer import WriterMode
    from training.loop.fit import Plan
    from training.loop.run import TrainingRun
    from training.model.batches import Sample

TRUE_TITLE = "true title"


@dataclass(frozen=True)
class TitleWork:
    """Titles that a run writes beside validation, for the estimate of its time.

    Attributes:
        what: "d_t", "distillation", ...
        rounds: how often, given the updates per epoch.
        count: titles per round.
    """

    what: str
    decoding: WriterMode
    rounds: Callable[[int], int]
    count: int


@dataclass(frozen=True)
class Preview:
    """What a method would learn from the training windows, before anything is trained.

    Attributes:
        samples: one per training window, in the windows' order.
        completions: what each completion of a sample is called, in the order of its slots.
        plan: the dearest update: every completion that may be learned is in it.
        scorer: makes of the model the module that `plan.loss` calls (see `training.loop.fit.Recipe`).
        title_work: what is written beside validation.
        notes: what stands in for something, or is odd.
    """

    samples: Sequence[Sample]
    completions: tuple[str, ...]
    plan: Plan
    scorer: Callable[[Any], Any]
    title_work: tuple[TitleWork, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sweep:
    """The one number that `softrec sweep` varies.

    Attributes:
        setting: its name among the method's settings.
        label: its short name, part of the adapters' names.
        values: what is tried by default; all positive.
    """

    setting: str
    label: str
    values: tuple[float, ...]


@dataclass(frozen=True)
class Part:
    """The method with one of its parts changed: what `softrec ablate` compares with the whole.

    Attributes:
        name: as a person gives it.
        meaning: the same in words.
        changes: the settings in which it differs.
    """

    name: str
    meaning: str
    changes: Mapping[str, Any]


@dataclass(frozen=True)
class Method:
    """A training method.

    Attributes:
        name: of the method, and of the adapter that it makes by default.
        summary: one line for help and docs.
        train: trains and publishes an adapter of the given name.
        preview: says what it would learn; makes nothing.
        settings: the class of its settings: the common ones and its own.
        teacher: the method whose adapter it is made with, and which is trained first.
        sweep: what `softrec sweep` varies; None: nothing.
        ablations: what `softrec ablate` changes, given the updates per epoch (the names do not depend on it).
        check_variants: refuses (SettingError) settings under which sweep and ablations mean nothing.
        last_figures: figures of the last epoch that a table of its variants shows.
    """

    name: str
    summary: str
    train: Callable[[TrainingRun, str], Adapter]
    preview: Callable[[Workspace, Dataset, Any], Preview]
    settings: type[TrainSettings] = TrainSettings
    teacher: str | None = None
    sweep: Sweep | None = None
    ablations: Callable[[int], tuple[Part, ...]] | None = None
    check_variants: Callable[[Any], None] = lambda settings: None
    last_figures: tuple[str, ...] = ()
