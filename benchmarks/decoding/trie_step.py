"""What the trie costs in a decoding step: the tokens that a batch of beams may take, and binding its logits to them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence

import numpy as np
import torch

from index.titles.filtered_trie import AllowedTitles, FilteredTrie
from index.titles.trie import ROOT, TitleTrie
from serving.engine.title_mask import PLACE, SEGMENTS, TitleMask

STEPS = 8  # of each search that is played


def synthetic_trie(titles: int, vocabulary: int, *, seed: int = 0) -> TitleTrie:
    """A trie of made-up titles: 3 to 13 tokens, some far more frequent than others, and the end token 0."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 14, titles)
    tokens = draw.zipf(1.3, (titles, 13)) % (vocabulary - 1) + 1
    sequences = sorted({(*map(int, row[:length]), 0) for row, length in zip(tokens, lengths, strict=True)})
    return TitleTrie.build(sequences, range(len(sequences)))


def seconds_per_step(trie: TitleTrie, beams: int, vocabulary: int, *, repeats: int, seed: int = 0) -> float:
    """Mean seconds that a step of `beams` beams takes longer because it is bound to the trie.

    Searches are played by drawing titles: each begins with one row at the root, goes on with all beams, and follows
    each down its title. The log-softmax is subtracted: every step that reports log-probabilities does it.
    """
    draw = np.random.default_rng(seed)
    logits = torch.randn(beams, vocabulary)
    titles = AllowedTitles((FilteredTrie(trie),))
    extra: list[float] = []
    for _ in range(repeats):
        mask = TitleMask(open_trie=lambda folder: trie)
        written: list[list[int]] = [[] for _ in range(beams)]
        paths = [_path(trie, int(place)) for place in draw.integers(0, len(trie.rows), beams)]
        _begin(mask, 0, titles.start, written[0])
        taken = [_seconds_bound(mask, logits[:1])]
        for row, path in enumerate(paths):
            _begin(mask, row, titles.follow(titles.start, path[0]), written[row])
        for step in range(1, STEPS):
            taken.append(_seconds_bound(mask, logits))
            for row, path in enumerate(paths):
                written[row] += path[step : step + 1]
        extra.append(statistics.mean(taken))
    return statistics.median(extra)


def _begin(mask: TitleMask, row: int, place: Sequence[int], written: list[int]) -> None:
    mask.add(row, {"titles": {SEGMENTS: [("", None, [])], PLACE: list(place)}}, written)


def _seconds_bound(mask: TitleMask, logits: torch.Tensor) -> float:
    start = time.perf_counter()
    mask.apply(logits)
    bound = time.perf_counter()
    logits.log_softmax(-1, dtype=torch.float32)
    return (bound - start) - (time.perf_counter() - bound)


def _path(trie: TitleTrie, place: int) -> list[int]:
    """Tokens of the title at a place of the trie's order."""
    path, node = [], ROOT
    while trie.first_child[node] < trie.first_child[node + 1]:
        children = np.arange(trie.first_child[node], trie.first_child[node + 1])
        node = int(children[np.searchsorted(trie.end[children], place, side="right")])
        path.append(int(trie.tokens[node]))
    return path
