"""Scoring every title of the catalog: each trie node once, against each title with a full prompt of its own; and the
fifty most probable alone, proven by branch and bound."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

import numpy as np
import torch

from benchmarks.training.clock import seconds
from index.titles.trie_store import open_trie
from index.workspace import Workspace
from training.adapter import read_adapter
from training.data.dataset import load_dataset
from training.generation.title_scorer import TitleScorer
from training.generation.titles import write_best_titles
from training.loop.publishing import summed_log_probs
from training.model.batches import Sample
from training.model.language_model import load_base, read_merged
from training.progress import Silence
from training.recipes.methods import settings_of

_AT_ONCE = 64  # titles in one forward of the plain way: samples one after the other, no padding


def measure_scorer(workspace: Workspace, adapter_name: str, *, prompts: int, threads: int = 1) -> dict[str, float]:
    """Score the catalog both ways, in turns; the prompts are read alone, one by one.

    Returns:
        scorer_speedup, the ratio of medians; exact50_speedup, likewise of the fifty best alone; scorer_difference, the
        largest difference of a title's log-probability between the ways.
    """
    torch.set_num_threads(threads)
    adapter = read_adapter(workspace.adapter_dir(adapter_name))
    dataset = load_dataset(workspace, settings_of(adapter), Silence())
    model = read_merged(load_base(dataset.base.path, precision="fp32"), adapter.path)
    trie = open_trie(workspace.index_dir, dataset.catalog, dataset.renderer)
    titles = [dataset.catalog.titles[row] for row in trie.rows]
    scorer = TitleScorer(model, trie)
    windows = dataset.split.test
    chosen = dataset.prompts([windows[at * len(windows) // prompts] for at in range(prompts)])
    list(scorer.score(chosen[:1]))  # warm up
    ours, plain, best, difference = [], [], [], 0.0
    for prompt in chosen:
        started = seconds()
        [scores] = scorer.score([prompt])
        ours.append(seconds() - started)
        started = seconds()
        alone = _score_alone(model, [Sample(prompt, (dataset.renderer.completion_ids(title),)) for title in titles])
        plain.append(seconds() - started)
        started = seconds()
        [found] = write_best_titles(model, [prompt], trie, k=50)
        best.append(seconds() - started)
        apart = np.abs(found.log_probs - np.sort(alone)[::-1][: len(found.rows)]).max()
        difference = max(difference, float(np.abs(scores - alone).max()), float(apart))
    speedup = statistics.median(plain) / statistics.median(ours)
    print(
        f"\n{len(titles)} titles of {len(trie)} trie nodes after prompts of {min(map(len, chosen))} to "
        f"{max(map(len, chosen))} tokens, {threads} thread: exact scorer {statistics.median(ours):.2f} s a prompt, "
        f"the fifty best alone {statistics.median(best):.3f} s, every title with its own prompt "
        f"{statistics.median(plain):.2f} s; largest difference {difference:.1e} nats"
    )
    return {
        "scorer_speedup": speedup,
        "exact50_speedup": statistics.median(plain) / statistics.median(best),
        "scorer_difference": difference,
    }


def _score_alone(model: torch.nn.Module, samples: Sequence[Sample]) -> np.ndarray:
    parts = [summed_log_probs(model, samples[at : at + _AT_ONCE]) for at in range(0, len(samples), _AT_ONCE)]
    return np.concatenate(parts)
