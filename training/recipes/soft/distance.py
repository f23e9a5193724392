"""d_t: how far the titles that a model writes lie from the true ones; the number that drives SOFT's curriculum."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from index.search.encoder import open_encoder
from training.data.windows import Window
from training.loop.run import TrainingRun
from training.recipes.soft.settings import SoftSettings


class DistanceProbe:
    """Measures d_t on always the same M training windows.

    The mean L2 distance between the embeddings of the generated and of the true title (SOFT, section 3.2), the title
    written with `settings.beams` beams. By default the embedding is that of the frozen base LLM's last token.
    """

    def __init__(self, run: TrainingRun, settings: SoftSettings) -> None:
        train = run.dataset.split.train
        n = min(settings.distance_samples, len(train))
        chosen = np.sort(np.random.default_rng(settings.seed).choice(len(train), n, replace=False))
        self.windows: list[Window] = [train[at] for at in chosen]
        self._run = run
        if run.processes.is_main:  # which measures for all
            self._encoder = open_encoder(
                settings.distance_encoder, base_dir=run.dataset.base.path, device=str(run.processes.device)
            )
            self._true_vectors = self._encoder.encode(run.dataset.titles(self.windows))

    def distance(self) -> float:
        """d_t of the model as it stands."""
        written = self._run.writer.write(self._run.model, self.windows, decoding="beam", step="measure d_t")
        titles = [title for title, _ in written]
        return self._run.processes.on_main(lambda: self._mean_distance(titles))

    def _mean_distance(self, titles: Sequence[str]) -> float:
        return float(np.linalg.norm(self._encoder.encode(titles) - self._true_vectors, axis=1).mean())
