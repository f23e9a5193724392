"""One training run: opens every recipe's inputs once, then fits, publishes and removes the run's folder."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from typing import Any

from index.ranking.grounding import Grounder
from index.workspace import Workspace
from training.adapter import Adapter, check_adapter_name
from training.data.dataset import Dataset, load_dataset, windows_digest
from training.generation.title_writer import TitleWriter, open_writer
from training.loop.fit import FitResult, Recipe, fit
from training.loop.publishing import publish_adapter
from training.loop.run_folder import RunFolder
from training.loop.trackers import Trackers, open_trackers
from training.measure.validation import Validation
from training.model.language_model import add_lora, load_base, read_lora
from training.parallel.processes import Processes
from training.progress import Progress
from training.report.diagnosis import Diagnosis
from training.report.finished_run import FinishedRun, count_windows, for_shop, read_rows
from training.settings import TrainSettings

Explain = Callable[[FinishedRun], Diagnosis]


@dataclass(frozen=True)
class TrainingRun:
    """What a recipe is made of.

    Attributes:
        base: without an adapter, until `model` is first read.
        validation: measures the model as it stands.
        index_encoder: fingerprint of the index's encoder.
    """

    workspace: Workspace
    settings: TrainSettings
    progress: Progress
    processes: Processes
    dataset: Dataset
    base: Any
    writer: TitleWriter
    validation: Validation
    index_encoder: str

    @cached_property
    def model(self) -> Any:
        """The base with a fresh LoRA."""
        return add_lora(self.base, self.settings)

    @contextmanager
    def published(self, adapter: Adapter) -> Iterator[Any]:
        """Put a published adapter on the base while the context is open; only before `model` is first read."""
        model = read_lora(self.base, adapter.path)
        try:
            yield model
        finally:
            model.unload()

    def train(
        self,
        recipe: Recipe,
        name: str,
        *,
        method: str,
        explain: Explain,
        parent: Adapter | None = None,
        decisive: Mapping[str, str] | None = None,
    ) -> Adapter:
        """Fit the model by the recipe and publish it; a run of the same adapter that was killed goes on.

        Args:
            name: of the adapter.
            explain: makes the method's diagnosis of the finished run.
            parent: the adapter that it was made with.
            decisive: what decides the numbers, beside data, base and settings (see `training.loop.fit.fit`).

        Raises:
            TrainingError: another process is at this run.
            DivergedError, StoppedError, OSError: see `training.loop.fit.fit`; nothing is published.
        """
        folder = RunFolder(self.workspace.run_dir(check_adapter_name(name)))
        made_with = {"method": method, "parent": parent.adapter_id if parent else "", **(decisive or {})}
        with ExitStack() as stack:
            self.processes.on_main(lambda: stack.enter_context(folder.lock()))
            with closing(self._open_trackers(name)) as trackers:
                result = fit(
                    self.processes,
                    recipe.scorer(self.model),
                    recipe,
                    self.settings,
                    folder=folder,
                    identity=self._identity() | made_with,
                    trackers=trackers,
                    progress=self.progress,
                )
            chosen, trials = self.validation.choose_mode(self.model, self.workspace.index_dir, self.progress)
            self.progress.note(
                f"mode: {chosen.name}, validation HR@10 {chosen.hr10:.4f}; tried: "
                + ", ".join(f"{trial.name} {trial.hr10:.4f}" for trial in trials)
            )

            def publish() -> Adapter:
                adapter = publish_adapter(
                    self.workspace,
                    name,
                    self.model,
                    self.dataset,
                    self.settings,
                    result,
                    method=method,
                    mode=chosen,
                    trials=trials,
                    calibration=self.validation.calibrate(),
                    index_encoder=self.index_encoder,
                    parents=[parent.adapter_id] if parent else [],
                    diagnosis=self._diagnose(name, method, explain, result, folder),
                    log=folder.metrics_path,
                )
                folder.remove()
                return adapter

            return self.processes.on_main(publish)

    def _open_trackers(self, name: str) -> Trackers:
        settings = self.settings
        return open_trackers(settings.report_to, self.workspace.reports_dir / "trackers", name, settings.to_json())

    def _diagnose(self, name: str, method: str, explain: Explain, result: FitResult, folder: RunFolder) -> Diagnosis:
        run = FinishedRun(
            name,
            method,
            self.settings.to_json(),
            result.history,
            read_rows(folder.metrics_path, remedy="train again"),
            count_windows(self.dataset.split),
            self.settings.changed,
        )
        diagnosis = explain(run)
        for sign in diagnosis.signs:
            remedy = for_shop(sign.remedy, shlex.quote(str(self.workspace.root)))
            self.progress.note(f"{sign.level}: {sign.code}: {sign.seen}; {remedy}")
        return diagnosis

    def _identity(self) -> dict[str, str]:
        dataset = self.dataset
        return {
            "base": dataset.base.digest,
            "prompt": dataset.renderer.template.digest,
            "catalog": dataset.catalog.digest,
            "training windows": windows_digest(dataset.split.train),
            "validation windows": windows_digest(dataset.split.validation),
            "index encoder": self.index_encoder,
            "softrec": version("softrec"),
            "torch": version("torch"),
        }


@contextmanager
def open_run(
    workspace: Workspace,
    settings: TrainSettings,
    grounder: Grounder,
    progress: Progress,
    *,
    dataset: Dataset | None = None,
) -> Iterator[TrainingRun]:
    """Load the base, and the data if they are not loaded yet, and open what writes titles.

    Args:
        grounder: of the shop's index; validation HR@10 is measured with it.
        dataset: of these settings.

    Raises:
        MissingArtifactError: no catalog, log or base yet.
    """
    processes = Processes()
    dataset = dataset or load_dataset(workspace, settings, progress)
    base = load_base(
        dataset.base.path,
        precision=settings.precision,
        quantization=settings.quantization,
        device=processes.device,
    )
    with open_writer(dataset, settings, processes, progress) as writer:
        yield TrainingRun(
            workspace=workspace,
            settings=settings,
            progress=progress,
            processes=processes,
            dataset=dataset,
            base=base,
            writer=writer,
            validation=Validation(dataset, settings, processes, writer, grounder),
            index_encoder=grounder.encoder.fingerprint,
        )
