"""Beam search among the titles that exist: every step is constrained to the children in the title trie.

The counterpart of `training.generation.beam`, with the catalog in place of the end token: it gives many titles per
prompt, all different, all in the catalog, with the model's own log-probabilities. Nothing is divided by a length; D3
(arXiv:2406.14900) shows why: it favours titles whose tokens are forced.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.titles.beam import TitleBeams, TokenIds, count_observed
from index.titles.filtered_trie import AllowedTitles, FilteredTrie, TriePosition
from index.titles.trie import ROOT, TitleTrie
from training.generation.title_scorer import TitleScorer
from training.generation.tree_attention import TokenTrees

_ROUNDING = {torch.float32: 1e-3}  # nats per title between two ways to batch; measured: 3e-5
_ROUNDING_HALF = 0.2  # in bf16 or fp16
_MOST_BEAMS = 1024  # followed at once for a proof: their attention grows with the square


@dataclass(frozen=True)
class TitleList:
    """Catalog rows that a model may write after a prompt, the most probable first.

    Attributes:
        rows: int64 [n], distinct.
        log_probs: float32 [n], summed natural log-probability of each title, its end token included.
        is_proven: no title of the catalog that is missing is more probable than the last one here.
    """

    rows: NDArray[np.int64]
    log_probs: NDArray[np.float32]
    is_proven: bool


def write_titles(
    model: Any,
    prompts: Sequence[Sequence[int]],
    trie: TitleTrie,
    *,
    width: int,
    k: int,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda n: None,
) -> list[TitleList]:
    """Find the k most probable titles of the catalog after every prompt, by the beam search that is served.

    Args:
        model: a causal language model from `training.model.language_model.load_base`, in eval mode.
        prompts: token ids, of any lengths from 1.
        trie: of the catalog's titles.
        width: beams of each length.
        k: titles per prompt; fewer where the beams found fewer.
        batch_size: prompts decoded at once; sorted by length.
        advance: called with the number of prompts that were done.

    Returns:
        One list per prompt, in order.

    Raises:
        TrainingError: the model's attention cannot keep beams apart.
    """
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    results: dict[int, TitleList] = {}
    titles, most_tokens = AllowedTitles((FilteredTrie(trie),)), _most_tokens(trie, width)
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            trees = TokenTrees(model, [prompts[at] for at in chosen], most_tokens=most_tokens)
            searches = [_PromptSearch(titles, width, k) for _ in chosen]
            _run(trees, searches, titles)
            results |= {at: search.result() for at, search in zip(chosen, searches, strict=True)}
            advance(len(chosen))
    return [results[at] for at in range(len(prompts))]


def write_best_titles(
    model: Any,
    prompts: Sequence[Sequence[int]],
    trie: TitleTrie,
    *,
    k: int,
    width: int | None = None,
    batch_size: int = 4,
    advance: Callable[[int], None] = lambda n: None,
) -> list[TitleList]:
    """Find the k most probable titles of the catalog after every prompt, provably: branch and bound.

    A narrow beam goes first. Its k-th title bounds what can matter: probabilities only fall along a title, so a
    beginning that is less probable than that leads nowhere. Then every other beginning is followed. At each depth there
    are at most 1 / p of probability p or more, so the work depends on how sure the model is and hardly on the size of
    the catalog. Where that is too unsure, and more beginnings matter than can be followed at once, or where the beam
    gives no bound, every title is scored (`training.generation.title_scorer`).

    Args:
        width: of the beam that goes first; it decides the time, never the result. None takes 2 k, so that it mostly
            finds k titles and the bound is close.

    Returns:
        One list per prompt, in order, all of them proven; k titles each, or all there are. Arguments and errors are
        otherwise those of `write_titles`.
    """
    k = min(k, len(trie.rows))
    lists = write_titles(model, prompts, trie, width=width or 2 * k, k=k, batch_size=8 * batch_size)
    slack = _ROUNDING.get(next(model.parameters()).dtype, _ROUNDING_HALF)
    titles, most_tokens = AllowedTitles((FilteredTrie(trie),)), _most_tokens(trie, _MOST_BEAMS)
    bounded = [at for at, found in enumerate(lists) if not found.is_proven and len(found.rows) == k]
    bounded.sort(key=lambda at: len(prompts[at]))
    with torch.inference_mode():
        for begin in range(0, len(bounded), batch_size):
            chosen = bounded[begin : begin + batch_size]
            trees = TokenTrees(model, [prompts[at] for at in chosen], most_tokens=most_tokens)
            # a little less than the k-th title: another batch rounds otherwise
            bounds = [float(lists[at].log_probs[-1]) - slack for at in chosen]
            searches = [_PromptSearch(titles, _MOST_BEAMS, k, bound) for bound in bounds]
            _run(trees, searches, titles)
            for at, search in zip(chosen, searches, strict=True):
                lists[at] = search.result()
            advance(len(chosen))
    unsure = [at for at, found in enumerate(lists) if not found.is_proven]
    scores = TitleScorer(model, trie).score([prompts[at] for at in unsure])
    for at, every in zip(unsure, scores, strict=True):
        lists[at] = _best_of_all(trie, every, k)
    advance(len(prompts) - len(bounded))
    return lists


def _best_of_all(trie: TitleTrie, scores: NDArray[np.float32], k: int) -> TitleList:
    """The k best of all titles' scores [len(trie.rows)]."""
    best = np.lexsort((trie.rows, -scores))[:k]
    return TitleList(trie.rows[best].astype(np.int64), scores[best], is_proven=True)


class _PromptSearch:
    """One prompt's search, and which node of its tree each prefix is."""

    def __init__(self, titles: AllowedTitles, width: int, k: int, above: float = -np.inf) -> None:
        self.beams = TitleBeams(titles, width=width, k=k, above=above)
        self.k, self.observed = k, count_observed(width)
        self._nodes: dict[TokenIds, int] = {(): 0}

    def parent(self, prefix: TokenIds) -> int:
        return self._nodes[prefix[:-1]]

    def number(self, prefix: TokenIds, node: int) -> None:
        self._nodes[prefix] = node

    def result(self) -> TitleList:
        found = self.beams.result()
        listed = [(row, title.log_prob) for title in found.titles for row in title.rows][: self.k]
        rows, log_probs = np.array([row for row, _ in listed]), np.array([log_prob for _, log_prob in listed])
        return TitleList(rows.astype(np.int64), log_probs.astype(np.float32), found.is_proven)


def _run(trees: TokenTrees, searches: Sequence[_PromptSearch], titles: AllowedTitles) -> None:
    """Search for the prompts of a batch: every step reads all their frontiers in one forward."""
    running = list(searches)
    frontiers = [list(search.beams.frontier.items()) for search in running]
    if not all(frontiers):  # the tries are the same for all: nothing can be written
        return
    logits = trees.read_prompts()
    while True:
        _observe(running, frontiers, titles, logits)
        for search in running:
            search.beams.advance()
        frontiers = [list(search.beams.frontier.items()) for search in running]
        runs_on = np.array([bool(frontier) for frontier in frontiers])
        if not runs_on.any():
            return
        if not runs_on.all():
            trees.keep(torch.from_numpy(runs_on).to(trees.device))
            running = [search for search, frontier in zip(running, frontiers, strict=True) if frontier]
            frontiers = [frontier for frontier in frontiers if frontier]
        prefixes = [[prefix for prefix, _ in frontier] for frontier in frontiers]
        tokens = _pad([[prefix[-1] for prefix in own] for own in prefixes])
        parents = _pad(
            [[search.parent(prefix) for prefix in own] for search, own in zip(running, prefixes, strict=True)]
        )
        logits = trees.grow(tokens.to(trees.device), parents.to(trees.device))
        for search, own in zip(running, prefixes, strict=True):
            for at, prefix in enumerate(own):
                search.number(prefix, trees.newest + at)


def _observe(
    running: Sequence[_PromptSearch],
    frontiers: Sequence[Sequence[tuple[TokenIds, TriePosition]]],
    titles: AllowedTitles,
    logits: Tensor,
) -> None:
    """Tell every search the log-probabilities after its frontier; logits [P, K, V], in the frontier's order."""
    allowed = [[titles.next_tokens(position) for _, position in frontier] for frontier in frontiers]
    counts = [[len(tokens) for tokens in own] for own in allowed]
    branches = logits.shape[1]
    rows = np.concatenate([row * branches + np.repeat(np.arange(len(own)), own) for row, own in enumerate(counts)])
    at = torch.from_numpy(rows).to(logits.device)
    tokens = np.concatenate([tokens for own in allowed for tokens in own])
    flat = logits.flatten(0, 1)  # [P * K, V]
    log_probs = flat[at, torch.from_numpy(tokens).to(flat.device)] - flat.logsumexp(dim=1)[at]
    parts = np.split(log_probs.cpu().numpy(), np.cumsum([count for own in counts for count in own])[:-1])
    observed = iter(parts)
    for search, frontier, own in zip(running, frontiers, allowed, strict=True):
        for (prefix, _), following in zip(frontier, own, strict=True):
            values = next(observed)
            if len(values) > search.observed:
                most = np.argpartition(-values, search.observed - 1)[: search.observed]
                following, values = following[most], values[most]
            search.beams.observe(prefix, following, values)


def _pad(rows: Sequence[Sequence[int]]) -> Tensor:
    """Rows of different lengths as one int64 tensor. Filled up with 0: token 0 after the prompt, which nobody reads."""
    longest = max(map(len, rows))
    return torch.tensor([[*row, *[0] * (longest - len(row))] for row in rows])


def _most_tokens(trie: TitleTrie, width: int) -> int:
    """Tokens that a search may add to a prompt: its beams of every length and where each continues greedily."""
    depth = _depth(trie)
    return min(width * depth * depth, len(trie))


def _depth(trie: TitleTrie) -> int:
    """Tokens of the longest title."""
    level, depth = np.array([ROOT]), 0
    while len(level):
        _, level = trie.children(level)
        depth += bool(len(level))
    return depth
