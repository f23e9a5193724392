"""A look at a run before it begins: what it would learn from, and what it would take. Nothing is written."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from index.workspace import Workspace
from training.data.dataset import Dataset, load_dataset
from training.data.windows import Window
from training.errors import TrainingError
from training.generation.title_writer import TitleWriter, WriterMode, open_writer
from training.model.batches import check_samples
from training.model.language_model import add_lora, load_base
from training.parallel.processes import Processes
from training.preflight.cost import Part, TitleTime, UpdateCost, measure_titles, measure_updates, peak_memory_bytes
from training.preflight.data_summary import DataSummary, summarise_data
from training.progress import Progress
from training.recipes.method import Method, Preview
from training.settings import TrainSettings

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

    method: str
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
    workspace: Workspace,
    method: Method,
    settings: TrainSettings,
    processes: Processes,
    progress: Progress,
    *,
    on_data: Callable[[DataSummary], None],
) -> DryRun:
    """Load what a run loads, do a few of its updates and write a few of its titles, and throw all of it away.

    Args:
        on_data: gets what the run would learn from as soon as that is known, before anything slow.

    Raises:
        MissingArtifactError: no catalog, log or base yet; nothing is made for a dry run.
        TrainingError: whatever would stop the run before its first update; or several processes were launched.
    """
    if processes.count > 1:
        raise TrainingError(
            f"a dry run is one process's, {processes.count} were launched", remedy="start it without torchrun"
        )
    dataset = load_dataset(workspace, settings, progress)
    preview = method.preview(workspace, dataset, settings)
    check_samples(preview.samples)
    data = summarise_data(dataset, preview.samples, preview.completions, dataset.left_out)
    on_data(data)
    base = load_base(
        dataset.base.path,
        precision=settings.precision,
        quantization=settings.quantization,
        device=processes.device,
    )
    model = add_lora(base, settings)
    updates = measure_updates(processes, model, preview.scorer, preview.samples, settings, preview.plan, progress)
    with open_writer(dataset, settings, processes, progress) as writer:
        parts, notes = _parts(model, writer, dataset, settings, updates, preview)
    return DryRun(
        method=method.name,
        device=processes.device.type,
        max_epochs=settings.max_epochs,
        data=data,
        updates=updates,
        parts=parts,
        peak_memory_bytes=peak_memory_bytes(processes.device),
        notes=(UNTRAINED, *notes, *preview.notes),
    )


def _parts(
    model: Any, writer: TitleWriter, dataset: Dataset, settings: TrainSettings, updates: UpdateCost, preview: Preview
) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    """The parts of the run's time, and notes on how the titles were timed."""
    epochs, validation = settings.max_epochs, dataset.split.validation
    times: dict[WriterMode, TitleTime] = {}

    def seconds_per_title(windows: Sequence[Window], decoding: WriterMode) -> float:
        if decoding not in times:
            times[decoding] = measure_titles(
                lambda n: writer.write(model, windows[:n], decoding=decoding, step=f"measure {decoding} titles"),
                len(windows),
                settings.decode_batch_size,
            )
        return times[decoding].seconds

    parts = [
        Part("updates", epochs, updates.updates_per_epoch, "update", updates.typical.seconds),
        Part("validation", epochs, len(validation), "title", seconds_per_title(validation, "greedy")),
    ]
    for work in preview.title_work:
        seconds = seconds_per_title(dataset.split.train, work.decoding)
        parts.append(Part(work.what, work.rounds(updates.updates_per_epoch), work.count, "title", seconds))
    notes = [
        f"{decoding} titles: {time.written} at once were timed, not {settings.decode_batch_size}, for they are slow "
        "here; more at once take less time each"
        for decoding, time in times.items()
        if time.written < min(settings.decode_batch_size, len(validation))
    ]
    return tuple(parts), tuple(notes)
