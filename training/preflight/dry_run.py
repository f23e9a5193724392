"""A look at a run before it begins: what it would learn from, and what it would take. Nothing is written."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any, Literal

from index.errors import MissingArtifactError
from index.workspace import Workspace
from training.data.dataset import Dataset, load_dataset, windows_digest
from training.data.windows import Window
from training.errors import TrainingError
from training.generation.title_writer import TitleWriter, WriterMode, open_writer
from training.loop.update import Loss
from training.model.batches import Sample, check_samples
from training.model.language_model import add_lora, load_base
from training.parallel.processes import Processes
from training.preflight.cost import Part, UpdateCost, measure_updates, peak_memory_bytes, seconds_per_title
from training.preflight.data_summary import DataSummary, summarise_data
from training.progress import Progress, Silence
from training.recipes.sft import sft_loss
from training.recipes.soft.distillation import check_distilled, read_distilled
from training.recipes.soft.soft import soft_loss
from training.settings import TrainSettings

Method = Literal["sft", "soft"]

TRUE = "true title"
UNTRAINED = "titles are written by the bare base, which may not close them: a trained model is faster"


@dataclass(frozen=True)
class DryRun:
    """What a run would learn from and take.

    Attributes:
        device: where it was measured: "cpu", "cuda".
        max_epochs: at most so many; early stopping may end the run sooner.
        parts: of the run's time. Grounding the validation titles and publishing are not among them.
        peak_memory_bytes: see `training.preflight.cost.peak_memory_bytes`; loading, updates and writing titles are in
            it, the index and its encoder are not.
        notes: what the figures leave out or stand in for.
    """

    method: Method
    device: str
    max_epochs: int
    data: DataSummary
    updates: UpdateCost
    parts: tuple[Part, ...]
    peak_memory_bytes: int
    notes: tuple[str, ...]

    @property
    def total_seconds(self) -> float:
        return sum(part.total_seconds for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        parts = [asdict(part) | {"total_seconds": part.total_seconds} for part in self.parts]
        return asdict(self) | {"parts": parts, "total_seconds": self.total_seconds}


def dry_run(
    workspace: Workspace, method: Method, settings: TrainSettings, processes: Processes, progress: Progress
) -> DryRun:
    """Load what a run loads, do a few of its updates and write a few of its titles, and throw all of it away.

    Raises:
        MissingArtifactError: no catalog, log or base yet; nothing is made for a dry run.
        TrainingError: whatever would stop the run before its first update; or several processes were launched.
    """
    if processes.count > 1:
        raise TrainingError(
            f"a dry run is one process's, {processes.count} were launched", remedy="start it without torchrun"
        )
    dataset = load_dataset(workspace, settings, progress)
    lesson = _sft_lesson(dataset) if method == "sft" else _soft_lesson(workspace, dataset)
    check_samples(lesson.samples)
    base = load_base(
        dataset.base.path,
        precision=settings.precision,
        quantization=settings.quantization,
        device=processes.device,
    )
    model = add_lora(base, settings)
    with progress.step("measure updates", None):
        updates = measure_updates(
            processes, model, lesson.samples, settings, lesson.loss, tuple(range(len(lesson.titles)))
        )
    with progress.step("measure titles", None), open_writer(dataset, settings, processes, Silence()) as writer:
        parts = _parts(model, writer, dataset, settings, updates, lesson)
    return DryRun(
        method=method,
        device=processes.device.type,
        max_epochs=settings.max_epochs,
        data=summarise_data(dataset, lesson.samples, lesson.titles, dataset.left_out),
        updates=updates,
        parts=parts,
        peak_memory_bytes=peak_memory_bytes(processes.device),
        notes=(UNTRAINED, *lesson.notes),
    )


@dataclass(frozen=True)
class _Lesson:
    """What a method learns from the training windows.

    Attributes:
        titles: what each completion of a sample is called, in the order of its slots.
        measures_distance: whether d_t is measured.
        is_distilled: whether the titles that the method needs distilled are there.
    """

    samples: Sequence[Sample]
    titles: tuple[str, ...]
    loss: Loss
    measures_distance: bool = False
    is_distilled: bool = True
    notes: tuple[str, ...] = ()


def _sft_lesson(dataset: Dataset) -> _Lesson:
    windows = dataset.split.train
    return _Lesson(dataset.samples(windows, dataset.titles(windows)), (TRUE,), sft_loss)


def _soft_lesson(workspace: Workspace, dataset: Dataset) -> _Lesson:
    windows = dataset.split.train
    truths = dataset.titles(windows)
    notes = ["updates are measured with both titles; while tau is 1 or 0 one is enough, and they are faster"]
    distilled = _find_titles(workspace, windows)
    name = "distilled title" if distilled else "distilled title (not made yet; the true one instead)"
    if distilled is None:
        notes.append("no distilled titles for these windows yet: the true ones stand in for them")
    elif empty := check_distilled(distilled, windows, workspace.distilled_path):
        notes.append(f"{empty} of {len(distilled)} distilled titles are empty")
    return _Lesson(
        dataset.samples(windows, distilled or truths, truths),
        (name, TRUE),
        partial(soft_loss, tau=0.5),
        measures_distance=True,
        is_distilled=distilled is not None,
        notes=tuple(notes),
    )


def _find_titles(workspace: Workspace, windows: Sequence[Window]) -> tuple[str, ...] | None:
    """The distilled titles, if they are of these windows."""
    try:
        stored = read_distilled(workspace.distilled_path)
    except MissingArtifactError:
        return None
    return stored.titles if stored.provenance.get("windows") == windows_digest(windows) else None


def _parts(
    model: Any,
    writer: TitleWriter,
    dataset: Dataset,
    settings: TrainSettings,
    updates: UpdateCost,
    lesson: _Lesson,
) -> tuple[Part, ...]:
    epochs, train, validation = settings.max_epochs, dataset.split.train, dataset.split.validation

    def per_title(windows: Sequence[Window], decoding: WriterMode) -> float:
        return seconds_per_title(
            lambda n: writer.write(model, windows[:n], decoding=decoding, step=""),
            len(windows),
            settings.decode_batch_size,
        )

    parts = [
        Part("updates", epochs, updates.updates_per_epoch, "update", updates.typical.seconds),
        Part("validation", epochs, len(validation), "title", per_title(validation, "greedy")),
    ]
    if lesson.measures_distance:
        beams = per_title(train, "beam")
        every = settings.distance_every
        times = epochs * (-(-updates.updates_per_epoch // every) if every else 1)
        parts.append(Part("d_t", times, min(settings.distance_samples, len(train)), "title", beams))
        if not lesson.is_distilled:
            parts.append(Part("distillation", 1, len(train), "title", beams))
    return tuple(parts)
