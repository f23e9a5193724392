"""From histories to the titles that a model writes: every decoding mode behind one interface, for offline use.

    greedy              one title, the most probable token at each step
    beam                one title, the best of a free beam search: the paper's
    sample_n            n titles drawn at temperature 1, most probable first
    constrained_beam    the most probable titles of the catalog, as far as a beam finds them
    exact               the most probable titles of the catalog, provably: the oracle

What is served is decoded in `serving.engine.decoding`; the scores of both are the model's own summed log-probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np

from index.ranking.ranking import POOL, Written
from index.titles.trie import TitleTrie
from training.adapter import DecodingMode
from training.data.dataset import Dataset
from training.data.windows import Window
from training.generation.sampling import sample
from training.generation.title_writer import TitleWriter
from training.generation.titles import TitleList, write_best_titles, write_titles
from training.parallel.processes import Processes
from training.progress import Progress
from training.settings import TrainSettings

OfflineMode = DecodingMode | Literal["beam", "sample_n", "exact"]
OFFLINE_MODES: tuple[OfflineMode, ...] = ("greedy", "beam", "sample_n", "constrained_beam", "exact")

LISTED = POOL  # titles of the catalog that are kept per prompt: what a fusion looks at, here as in serving


class Decoder:
    """Lets a model write titles for windows, divided among the processes of the run.

    Args:
        trie: of the dataset's catalog.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: TrainSettings,
        trie: TitleTrie,
        processes: Processes,
        progress: Progress,
    ) -> None:
        self._dataset, self._settings, self._trie = dataset, settings, trie
        self._processes, self._progress = processes, progress
        self._writer = TitleWriter(dataset, settings, processes, progress)

    def decode(
        self, model: Any, windows: Sequence[Window], mode: OfflineMode, *, width: int, step: str
    ) -> list[Written]:
        """Write titles for every window.

        Args:
            model: a causal language model, with or without LoRA; left in eval mode.
            width: beams of "constrained_beam", samples of "sample_n"; the other modes have their own.
            step: what progress calls it.

        Returns:
            What was written for each window, in order, on every process.
        """
        if mode in ("greedy", "beam"):
            written = self._writer.write(model, windows, decoding=mode, step=step)
            return [Written((text,), (generation.log_prob,)) for text, generation in written]
        model.eval()
        mine = self._processes.share(windows)
        prompts = self._dataset.prompts(mine)
        with self._progress.step(step, len(mine)) as advance:
            if mode == "sample_n":
                renderer = self._dataset.renderer
                drawn = sample(
                    model,
                    prompts,
                    n=width,
                    max_new_tokens=renderer.max_new_tokens,
                    end_id=renderer.end_id,
                    seed=self._settings.seed,
                    batch_size=self._settings.decode_batch_size,
                    advance=advance,
                )
                return self._processes.gather(
                    [
                        distinct_titles([(renderer.parse(one.ids), one.log_prob) for one in generations])
                        for generations in drawn
                    ]
                )
            if mode == "exact":
                lists = write_best_titles(model, prompts, self._trie, k=LISTED, advance=advance)
            else:
                lists = write_titles(model, prompts, self._trie, width=width, k=LISTED, advance=advance)
        return self._processes.gather([self._of_catalog(titles) for titles in lists])

    def _of_catalog(self, titles: TitleList) -> Written:
        rows = titles.rows.tolist()
        texts = tuple(self._dataset.catalog.titles[row] for row in rows)
        return Written(texts, tuple(titles.log_probs.tolist()), tuple(rows))


def distinct_titles(drawn: Sequence[tuple[str, float]]) -> Written:
    """List texts with their log-probabilities, each once and the most probable first; at least one is needed.

    One that was spelled in several ways counts as the likeliest of them. Blank texts are left out, as in serving,
    unless there is nothing else: where serving turns to popularity, an evaluation needs what was written.
    """
    best: dict[str, float] = {}
    for text, log_prob in drawn:
        best[text] = max(log_prob, best.get(text, -np.inf))
    texts = sorted((text for text in best if text.strip()), key=lambda text: -best[text]) or [
        max(best, key=lambda text: best[text])
    ]
    return Written(tuple(texts), tuple(best[text] for text in texts))
