"""SFT: learn the true next title."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from index.grounding import Grounder
from index.workspace import Workspace
from training.adapter import Adapter
from training.batches import Batch
from training.dataset import Dataset, load_dataset
from training.fit import Epoch, fit, make_accelerator
from training.judge import judge, write_titles
from training.language_model import add_lora, completion_log_probs, load_base
from training.losses import summed_nll
from training.metrics import hits
from training.progress import Progress
from training.publishing import publish_adapter
from training.settings import TrainSettings


def sft_loss(model: Any, batch: Batch, tokens: Sequence[int]) -> tuple[Tensor, dict[str, float]]:
    """Mean negative log-likelihood per token of the response, its end token included (SOFT, equation 2)."""
    loss = summed_nll(completion_log_probs(model, batch), batch.slot, 0) / tokens[0]
    return loss, {"loss": float(loss.detach())}


def train_sft(
    workspace: Workspace, settings: TrainSettings, grounder: Grounder, progress: Progress, *, name: str = "sft"
) -> Adapter:
    """Train and publish an SFT adapter.

    Args:
        grounder: of the shop's index; validation HR@10 is measured with it.

    Raises:
        MissingArtifactError: no catalog, log or base yet.
        DivergedError: the loss stopped being a number.
    """
    dataset = load_dataset(workspace, settings, progress)
    accelerator = make_accelerator(settings)
    base = load_base(dataset.base.path, precision=settings.precision, device=accelerator.device)
    model = add_lora(base, settings)
    samples = dataset.samples(dataset.split.train, dataset.titles(dataset.split.train))
    result = fit(
        accelerator,
        model,
        settings,
        plan_epoch=lambda epoch: Epoch(samples, sft_loss, {}),
        validate=lambda: validation_hr10(model, dataset, settings, grounder, progress),
        progress=progress,
    )
    return publish_adapter(workspace, name, model, dataset, settings, result, method="sft")


def validation_hr10(
    model: Any, dataset: Dataset, settings: TrainSettings, grounder: Grounder, progress: Progress
) -> float:
    """HR@10 of the model as it stands, on the validation windows."""
    windows = dataset.split.validation
    written = write_titles(model, dataset, windows, settings, decoding="greedy", progress=progress, title="validate")
    verdict = judge([title for title, _ in written], [window.target for window in windows], grounder)
    return float(hits(verdict.positions, 10).mean())
