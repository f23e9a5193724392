"""Variants of a method, trained one after another, and what came of each.

Every variant is an adapter of its own. One that is already published as it would be trained now is not trained again,
and one that was killed goes on; so a sweep that was cut short is finished by the same call.
"""

from __future__ import annotations

import gc
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

import torch

from index.artifact import read_manifest, write_artifact
from index.errors import ArtifactError, MismatchError, MissingArtifactError
from index.ranking.grounding import Grounder
from index.workspace import Workspace
from training.adapter import ADAPTER_KIND, Adapter, check_adapter_name, read_adapter
from training.data.dataset import Dataset, check_trained_on
from training.errors import TrainingError
from training.parallel.processes import Processes
from training.progress import Progress
from training.recipes.method import Method
from training.recipes.methods import train
from training.recipes.variants import Variant
from training.report.failure_signs import sampling_noise
from training.report.finished_run import read_run
from training.settings import IDLE, TrainSettings

# neither the weights nor the validation figures of an adapter depend on these
_IDLE = IDLE | {"test_windows"}


@dataclass(frozen=True)
class Outcome:
    """A variant, trained.

    Attributes:
        epoch: the published one, of `epochs`, both counted from 1.
        validation_hr10: of the published epoch, a share of `validation_windows`.
        validation_loss: of the published epoch, nats per token of the true titles.
        figures: of the last epoch, those that the method shows (`Method.last_figures`).
    """

    variant: Variant
    adapter: Adapter
    epoch: int
    epochs: int
    validation_hr10: float
    validation_loss: float
    validation_windows: int
    figures: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """A flat object for `--json`."""
        return {
            "name": self.variant.name,
            "meaning": self.variant.meaning,
            "adapter_id": self.adapter.adapter_id,
            "changes": dict(self.variant.changes),
            "epoch": self.epoch,
            "epochs": self.epochs,
            "validation_hr10": self.validation_hr10,
            "validation_loss": self.validation_loss,
            "validation_windows": self.validation_windows,
            **self.figures,
        }


@dataclass(frozen=True)
class Spread:
    """How far the validation HR@10 of several runs lie apart, and how far chance alone drives them.

    Attributes:
        width: largest minus smallest.
        standard_error: of one such share: sqrt(p (1 - p) / windows), p being the mean of the shares.
        by_chance: what equally good runs stay within in 19 of 20 cases (`failure_signs.sampling_noise`).
    """

    width: float
    standard_error: float
    by_chance: float
    windows: int


def check_names_free(workspace: Workspace, method: Method, names: Sequence[str]) -> None:
    """Refuse to write over an adapter that another method made, or that cannot be read.

    Raises:
        TrainingError: naming the adapter and what it is.
    """
    for name in names:
        adapter = _find_adapter(workspace, name)
        if adapter is not None and adapter.facts.method != method.name:
            raise TrainingError(
                f"{adapter.path} holds an adapter of method {adapter.facts.method}, which {method.name} would replace",
                remedy="rename or remove it",
            )


def train_variants(
    workspace: Workspace,
    method: Method,
    variants: Sequence[Variant],
    settings: TrainSettings,
    dataset: Dataset,
    grounder: Grounder,
    progress: Progress,
) -> list[Outcome]:
    """Train and publish every variant that is not there yet; at most one model is in memory.

    The method's own adapter serves as a variant, under a second name, where it was trained as the variant would be.

    Args:
        settings: what the variants have in common.
        dataset: of these settings.
        grounder: of the shop's index; validation HR@10 is measured with it.

    Returns:
        One outcome per variant, in their order.

    Raises:
        SoftrecError: what `training.recipes.methods.train` raises. The variants before it stay published; the same
            call goes on.
    """
    parents = (read_adapter(workspace.adapter_dir(method.teacher)).adapter_id,) if method.teacher else ()
    encoder = grounder.encoder.fingerprint
    outcomes = []
    for at, variant in enumerate(variants, start=1):
        progress.note(f"{variant.name} ({at} of {len(variants)}): {variant.meaning}")
        own = variant.settings(settings)
        adapter = _find_trained(workspace, method, variant.name, own, dataset, parents, encoder, progress)
        if adapter is None:
            adapter = train(method, workspace, own, grounder, progress, name=variant.name, dataset=dataset)
            _free_memory()
        outcomes.append(_measure(method, variant, adapter, len(dataset.split.validation)))
    return outcomes


def best_outcome(outcomes: Sequence[Outcome], setting: str) -> Outcome:
    """Return the one with the highest validation HR@10; on equal values the lower loss, then the smaller setting."""
    return min(
        outcomes,
        key=lambda outcome: (-outcome.validation_hr10, outcome.validation_loss, outcome.variant.changes[setting]),
    )


def measure_spread(outcomes: Sequence[Outcome]) -> Spread:
    """Compare how far the outcomes lie apart with what chance alone gives; at least two of them."""
    shares, windows = [outcome.validation_hr10 for outcome in outcomes], outcomes[0].validation_windows
    p = mean(shares)
    return Spread(
        width=max(shares) - min(shares),
        standard_error=math.sqrt(p * (1 - p) / windows),
        by_chance=sampling_noise(shares, windows),
        windows=windows,
    )


def publish_as(workspace: Workspace, adapter: Adapter, name: str) -> Adapter:
    """Publish an adapter under a second name, byte by byte: its digest stays the same.

    What had that name is replaced whole (see `index.artifact.write_artifact`).

    Raises:
        CorruptArtifactError: a byte of the adapter changed since it was published.
    """
    target = workspace.adapter_dir(check_adapter_name(name))

    def copy() -> Adapter:
        manifest = read_manifest(
            adapter.path, kind=ADAPTER_KIND, command=f"softrec train {adapter.facts.method} {workspace.root}"
        )
        with write_artifact(target, kind=ADAPTER_KIND) as draft:
            for file in manifest.files:
                (draft.path / file).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(adapter.path / file, draft.path / file)
            draft.body.update(manifest.body)
        return read_adapter(target)

    return Processes().on_main(copy)


def _find_trained(
    workspace: Workspace,
    method: Method,
    name: str,
    settings: TrainSettings,
    dataset: Dataset,
    parents: tuple[str, ...],
    encoder: str,
    progress: Progress,
) -> Adapter | None:
    """Return the adapter of that name if training it now would give it again; the method's own may stand in for it."""
    found, own = _find_adapter(workspace, name), _find_adapter(workspace, method.name)
    reason = "" if found is None else _misfit(found, settings, dataset, parents, encoder)
    if found is not None and not reason:
        progress.note(f"{found.adapter_id} was trained so before: it is not trained again")
        return found
    if found is not None:
        progress.note(f"{found.adapter_id} is replaced: {reason}")
    if own is not None and not _misfit(own, settings, dataset, parents, encoder):
        progress.note(f"{own.adapter_id} was trained so: {name} is a copy of it")
        return publish_as(workspace, own, name)
    return None


def _find_adapter(workspace: Workspace, name: str) -> Adapter | None:
    path = workspace.adapter_dir(name)
    try:
        return read_adapter(path)
    except MissingArtifactError:
        return None
    except ArtifactError as error:  # its remedy trains the method's own adapter
        raise TrainingError(
            str(error).removesuffix(f"; {error.remedy}"), remedy=f"remove {path} and run this again"
        ) from error


def _misfit(adapter: Adapter, settings: TrainSettings, dataset: Dataset, parents: tuple[str, ...], encoder: str) -> str:
    """Say in what an adapter differs from one that would be trained now; nothing where it does not."""
    current, stored = settings.to_json(), adapter.facts.settings
    names = [name for name in current | dict(stored) if name not in _IDLE]
    if changed := [name for name in names if name not in stored or stored[name] != current.get(name)]:
        return f"it was trained with another {', '.join(changed)}"
    if adapter.facts.index_encoder != encoder:
        return "its epoch was chosen with another encoder of the index"
    if adapter.facts.parents != parents:
        made, now = (", ".join(names) or "no adapter" for names in (adapter.facts.parents, parents))
        return f"it was made with {made}, not with {now}"
    try:
        check_trained_on(adapter, dataset)
    except MismatchError as error:
        return str(error).removesuffix(f"; {error.remedy}")
    return ""


def _measure(method: Method, variant: Variant, adapter: Adapter, validation_windows: int) -> Outcome:
    run = read_run(adapter)
    last = run.history[-1]
    return Outcome(
        variant=variant,
        adapter=adapter,
        epoch=run.best_epoch,
        epochs=len(run.history),
        validation_hr10=float(run.best["validation_hr10"]),
        validation_loss=float(run.best["validation_loss"]),
        validation_windows=validation_windows,
        figures={name: float(last[name]) for name in method.last_figures},
    )


def _free_memory() -> None:
    """Let go of what a finished run may have left: cycles (hooks, DDP), and memory that torch holds for itself."""
    gc.collect()
    torch.cuda.empty_cache()  # nothing where there is no GPU
