"""One training run: what every recipe needs, opened once; then fitted, published and cleared away."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
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
from training.loop.trackers import open_trackers
from training.measure.validation import Validation
from training.model.language_model import CompletionScorer, add_lora, load_base
from training.parallel.processes import Processes
from training.progress import Progress
from training.report.diagnosis import Diagnosis, diagnose
from training.report.distilled_signs import DistilledSigns
from training.report.finished_run import FinishedRun, count_windows, for_shop, read_rows, read_run
from training.settings import TrainSettings


@dataclass(frozen=True)
class TrainingRun:
    """What a recipe is made of.

    Attributes:
        model: the base with a fresh LoRA.
        validation: measures the model as it stands.
        index_encoder: fingerprint of the index's encoder.
    """

    workspace: Workspace
    settings: TrainSettings
    progress: Progress
    processes: Processes
    dataset: Dataset
    model: Any
    writer: TitleWriter
    validation: Validation
    index_encoder: str

    def train(
        self,
        recipe: Recipe,
        name: str,
        *,
        method: str,
        parent: Adapter | None = None,
        distilled: DistilledSigns | None = None,
        decisive: Mapping[str, str] | None = None,
    ) -> Adapter:
        """Fit the model by the recipe and publish it; a run of the same adapter that was killed goes on.

        Args:
            name: of the adapter.
            parent: the adapter that it was made with.
            distilled: what the parent's titles, which it learned, are like.
            decisive: what decides the numbers, beside data, base and settings (see `training.loop.fit.fit`).

        Raises:
            DivergedError, StoppedError, OSError: see `training.loop.fit.fit`; nothing is published.
        """
        folder = RunFolder(self.workspace.run_dir(check_adapter_name(name)))
        made_with = {"method": method, "parent": parent.adapter_id if parent else "", **(decisive or {})}
        trackers = open_trackers(
            self.settings.report_to, self.workspace.reports_dir / "trackers", name, self.settings.to_json()
        )
        with closing(trackers):
            result = fit(
                self.processes,
                CompletionScorer(self.model),
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
            diagnosis = self._diagnose(name, method, result, folder, parent, distilled)
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
                diagnosis=diagnosis,
                log=folder.metrics_path,
            )
            folder.remove()
            return adapter

        return self.processes.on_main(publish)

    def _diagnose(
        self,
        name: str,
        method: str,
        result: FitResult,
        folder: RunFolder,
        parent: Adapter | None,
        distilled: DistilledSigns | None,
    ) -> Diagnosis:
        log = read_rows(folder.metrics_path, remedy="train again")
        windows = count_windows(self.dataset.split)
        run = FinishedRun(name, method, self.settings.to_json(), result.history, log, windows)
        diagnosis = diagnose(run, parent=read_run(parent) if parent else None, distilled=distilled)
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
    workspace: Workspace, settings: TrainSettings, grounder: Grounder, progress: Progress
) -> Iterator[TrainingRun]:
    """Load data and base, put a fresh LoRA on it, and open what writes titles.

    Args:
        grounder: of the shop's index; validation HR@10 is measured with it.

    Raises:
        MissingArtifactError: no catalog, log or base yet.
    """
    processes = Processes()
    dataset = load_dataset(workspace, settings, progress)
    base = load_base(
        dataset.base.path,
        precision=settings.precision,
        quantization=settings.quantization,
        device=processes.device,
    )
    model = add_lora(base, settings)
    with open_writer(dataset, settings, processes, progress) as writer:
        yield TrainingRun(
            workspace=workspace,
            settings=settings,
            progress=progress,
            processes=processes,
            dataset=dataset,
            model=model,
            writer=writer,
            validation=Validation(dataset, settings, processes, writer, grounder),
            index_encoder=grounder.encoder.fingerprint,
        )
