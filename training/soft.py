"""SOFT: from the model's own easy titles to the true ones, at the pace at which it learns (arXiv:2505.20771)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
from torch import Tensor

from index.encoder import TitleEncoder
from index.grounding import Grounder
from index.last_token_encoder import LastTokenEncoder
from index.workspace import Workspace
from training.adapter import Adapter, read_adapter
from training.batches import Batch
from training.curriculum import curriculum_weight
from training.dataset import Dataset, check_trained_on, load_dataset
from training.distillation import describe_distilled, distill, find_distilled
from training.fit import Epoch, fit, make_accelerator
from training.judge import write_titles
from training.language_model import add_lora, completion_log_probs, load_base
from training.losses import curriculum_loss, summed_nll
from training.progress import Progress
from training.publishing import publish_adapter
from training.settings import TrainSettings
from training.sft import sft_loss, validation_hr10
from training.windows import Window

DISTILLED, REAL = 0, 1  # completion slots of a sample
STUCK = 0.95  # d_t / d_0 beyond which the curriculum does not move: one of the paper's failure signs


def soft_loss(model: Any, batch: Batch, tokens: Sequence[int], *, tau: float) -> tuple[Tensor, dict[str, float]]:
    """tau * L_SD + (1 - tau) * L_SFT, each a mean over its tokens (SOFT, equation 4). One forward for both titles."""
    log_probs = completion_log_probs(model, batch)
    distilled, real = (summed_nll(log_probs, batch.slot, slot) / tokens[slot] for slot in (DISTILLED, REAL))
    loss = curriculum_loss(distilled, real, tau=tau)
    figures = {"loss": loss, "loss_distilled": distilled, "loss_real": real}
    return loss, {name: float(value.detach()) for name, value in figures.items()}


def train_soft(
    workspace: Workspace,
    settings: TrainSettings,
    grounder: Grounder,
    progress: Progress,
    *,
    name: str = "soft",
    teacher: str = "sft",
) -> Adapter:
    """Train and publish a SOFT adapter: a fresh LoRA on the base, not the SFT adapter continued.

    The distilled titles are read from the workspace when they fit, and made otherwise.

    Args:
        grounder: of the shop's index; validation HR@10 is measured with it.
        teacher: name of the SFT adapter that writes the distilled titles.

    Raises:
        MissingArtifactError: the teacher, the base, the catalog or the log is missing.
    """
    dataset = load_dataset(workspace, settings, progress)
    sft = read_adapter(workspace.adapter_dir(teacher))
    check_trained_on(sft, dataset)
    distilled = find_distilled(workspace, sft, dataset, settings)
    if distilled is None:
        progress.note(f"no distilled titles of {sft.adapter_id} for these windows yet: distilling")
        distilled = distill(workspace, settings, progress, teacher=teacher)

    windows = dataset.split.train
    truths = dataset.titles(windows)
    signs = describe_distilled(distilled.titles, truths, dataset)
    progress.note("  ".join(f"{name} {value:.3f}" for name, value in signs.items()))

    accelerator = make_accelerator(settings)
    model = add_lora(load_base(dataset.base.path, precision=settings.precision, device=accelerator.device), settings)
    both = dataset.samples(windows, distilled.titles, truths)
    only_distilled = dataset.samples(windows, distilled.titles)
    only_real = dataset.samples(windows, truths)
    probe = DistanceProbe(dataset, settings, LastTokenEncoder(dataset.base.path, device=str(accelerator.device)))
    initial_distance = probe.distance(model, progress)

    def plan_epoch(epoch: int) -> Epoch:
        distance = initial_distance if epoch == 1 else probe.distance(model, progress)
        tau = curriculum_weight(distance, initial_distance, curriculum_alpha=settings.curriculum_alpha)
        if epoch > 1 and distance > STUCK * initial_distance:
            progress.note(
                f"d_t is {distance / initial_distance:.2f} of d_0: it does not fall, so the true titles hardly count "
                f"(tau {tau:.2f}); compare the adapter with sft before you serve it"
            )
        figures = {"d_t": distance, "d_ratio": distance / initial_distance, "tau": tau}
        if tau == 1.0:  # the real titles weigh nothing: they are not computed
            return Epoch(only_distilled, sft_loss, figures)
        if tau == 0.0:
            return Epoch(only_real, sft_loss, figures)
        return Epoch(both, partial(soft_loss, tau=tau), figures)

    result = fit(
        accelerator,
        model,
        settings,
        plan_epoch=plan_epoch,
        validate=lambda: validation_hr10(model, dataset, settings, grounder, progress),
        progress=progress,
    )
    return publish_adapter(
        workspace,
        name,
        model,
        dataset,
        settings,
        result,
        method="soft",
        parents=[sft.adapter_id],
        metrics=signs | {"d_0": initial_distance},
    )


class DistanceProbe:
    """Measures d_t: how far, on average, the model's titles lie from the true ones.

    The mean L2 distance between the embeddings of the generated and of the true title over M training windows (SOFT,
    section 3.2), the title written with `settings.beams` beams, the embedding that of the frozen base LLM's last token.

    Args:
        encoder: the frozen base's last-token encoder.
    """

    def __init__(self, dataset: Dataset, settings: TrainSettings, encoder: TitleEncoder) -> None:
        draw = np.random.default_rng(settings.seed)
        n = min(settings.distance_samples, len(dataset.split.train))
        chosen = np.sort(draw.choice(len(dataset.split.train), n, replace=False))
        self.windows: list[Window] = [dataset.split.train[at] for at in chosen]
        self.dataset, self.settings, self.encoder = dataset, settings, encoder
        self.true_vectors = encoder.encode(dataset.titles(self.windows))

    def distance(self, model: Any, progress: Progress) -> float:
        """d_t of the model as it stands."""
        written = write_titles(
            model, self.dataset, self.windows, self.settings, decoding="beam", progress=progress, title="measure d_t"
        )
        vectors = self.encoder.encode([title for title, _ in written])
        return float(np.linalg.norm(vectors - self.true_vectors, axis=1).mean())
