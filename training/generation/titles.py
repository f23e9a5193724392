"""Beam search among the titles that exist: every step is confined to the children in the title trie.

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
    renormalise: bool = False,
    batch_size: int = 32,
    advance: Callable[[int], None] = lambda n: None,
) -> list[TitleList]:
    """Find the k most probable titles of the catalog after every prompt, by a beam of `width` unfinished titles.

    A title that ends leaves the beam, and a prompt is done when no running one can still beat its k-th ended.

    Args:
        model: a causal language model from `training.model.language_model.load_base`, in eval mode.
        prompts: token ids, of any lengths from 1.
        trie: of the catalog's titles.
        width: unfinished titles kept per step.
        k: titles per prompt; fewer where fewer ended in a beam.
        renormalise: score a token by its probability among those that the trie allows, so that a forced one costs
            nothing. The default is the model's own probability; which ranks better was no more than noise
            (`benchmarks.decoding.quality`).
        batch_size: prompts decoded at once; sorted by length.
        advance: told how many prompts were done.

    Returns:
        One list per prompt, in order.

    Raises:
        TrainingError: the model's attention cannot keep beams apart.
    """
    order = sorted(range(len(prompts)), key=lambda at: len(prompts[at]))
    results: dict[int, TitleList] = {}
    most_tokens = min(width * _depth(trie), len(trie))
    with torch.inference_mode():
        for begin in range(0, len(order), batch_size):
            chosen = order[begin : begin + batch_size]
            trees = TokenTrees(model, [prompts[at] for at in chosen], most_tokens=most_tokens)
            searches = [_PromptSearch(trie, width, k) for _ in chosen]
            _run(trees, searches, trie, renormalise)
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
            finds k titles and the bound is close: with 50 titles, 60 ms a prompt on ml-100k against 100 with k and 140
            with 4 k.

    Returns:
        One list per prompt, in order, all of them proven; k titles each, or all there are. Arguments and errors are
        otherwise those of `write_titles`.
    """
    k = min(k, len(trie.rows))
    lists = write_titles(model, prompts, trie, width=width or 2 * k, k=k, batch_size=8 * batch_size)
    slack = _ROUNDING.get(next(model.parameters()).dtype, _ROUNDING_HALF)
    most_tokens = min(_MOST_BEAMS * _depth(trie), len(trie))
    bounded = [at for at, found in enumerate(lists) if not found.is_proven and len(found.rows) == k]
    bounded.sort(key=lambda at: len(prompts[at]))
    with torch.inference_mode():
        for begin in range(0, len(bounded), batch_size):
            chosen = bounded[begin : begin + batch_size]
            trees = TokenTrees(model, [prompts[at] for at in chosen], most_tokens=most_tokens)
            # a little less than the k-th title: another batch rounds otherwise
            bounds = [float(lists[at].log_probs[-1]) - slack for at in chosen]
            searches = [_PromptSearch(trie, _MOST_BEAMS, k, above=bound) for bound in bounds]
            _run(trees, searches, trie, renormalise=False)
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


@dataclass(frozen=True)
class _Candidates:
    """Continuations of the beams of a batch by one token, beam by beam.

    Attributes:
        beams: int64 [m], ascending: which beam of the batch, prompt * K + beam.
        nodes: int64 [m], where in the trie they lead.
        log_probs: float32 [m].
    """

    beams: NDArray[np.int64]
    nodes: NDArray[np.int64]
    log_probs: NDArray[np.float32]

    def __getitem__(self, which: Any) -> _Candidates:
        return _Candidates(self.beams[which], self.nodes[which], self.log_probs[which])


class _PromptSearch:
    """One prompt's ended titles, and what becomes of the candidates of a step.

    Args:
        above: a beam with less than this log-probability cannot matter.
    """

    def __init__(self, trie: TitleTrie, width: int, k: int, *, above: float = -np.inf) -> None:
        self._trie, self._width, self._k, self._above = trie, width, min(k, len(trie.rows)), above
        self._rows = np.empty(0, dtype=np.int64)
        self._log_probs = np.empty(0, dtype=np.float32)
        self._dropped = -np.inf  # the most probable beam that had no place

    def step(self, candidates: _Candidates) -> _Candidates:
        """Keep the titles that end and return the best of the others that can still matter, best first."""
        ends = self._trie.is_title(candidates.nodes)
        if ends.any():
            self._end(candidates[ends])
        running = candidates[~ends & (candidates.log_probs > max(self._worst, self._above))]
        order = np.argsort(-running.log_probs, kind="stable")
        if len(order) > self._width:
            self._dropped = max(self._dropped, float(running.log_probs[order[self._width]]))
        return running[order[: self._width]]

    def result(self) -> TitleList:
        last = float(self._log_probs[-1]) if len(self._rows) == self._k else -np.inf
        return TitleList(self._rows, self._log_probs, is_proven=self._dropped <= last)

    @property
    def _worst(self) -> float:
        """What a beam must be above to matter."""
        return float(self._log_probs[-1]) if len(self._rows) == self._k else -np.inf

    def _end(self, titles: _Candidates) -> None:
        counts = self._trie.end[titles.nodes] - self._trie.begin[titles.nodes]  # rows whose titles have these tokens
        rows = np.concatenate([self._rows, *map(self._trie.rows_below, titles.nodes.tolist())])
        log_probs = np.concatenate([self._log_probs, np.repeat(titles.log_probs, counts)])
        best = np.lexsort((rows, -log_probs))[: self._k]
        self._rows, self._log_probs = rows[best].astype(np.int64), log_probs[best]


def _run(trees: TokenTrees, searches: Sequence[_PromptSearch], trie: TitleTrie, renormalise: bool) -> None:
    """Search for the prompts of a batch, in step, until the last is done."""
    prompts = len(searches)
    places = np.arange(prompts)
    nodes = np.full((prompts, 1), ROOT)  # [P, K]
    log_probs = np.zeros((prompts, 1), dtype=np.float32)  # [P, K], -inf: a beam that only fills a place
    logits = trees.read_prompts()
    while True:
        candidates = _continue(trie, nodes, log_probs, logits, renormalise)
        bounds = np.searchsorted(candidates.beams, np.arange(len(places) + 1) * nodes.shape[1])
        chosen = [
            searches[int(place)].step(candidates[begin:end])
            for place, begin, end in zip(places, bounds[:-1], bounds[1:], strict=True)
        ]
        runs_on = np.array([len(beams.nodes) > 0 for beams in chosen])
        if not runs_on.any():
            return
        if not runs_on.all():
            trees.keep(torch.from_numpy(runs_on).to(trees.device))
        parents = _pad([beams.beams % nodes.shape[1] for beams in chosen], 0)[runs_on]
        nodes = _pad([beams.nodes for beams in chosen], ROOT)[runs_on]
        log_probs = _pad([beams.log_probs for beams in chosen], -np.inf)[runs_on]
        places = places[runs_on]
        tokens = np.maximum(trie.tokens[nodes], 0)  # a filled place's beam reads something, and nobody asks it
        logits = trees.grow(_tensor(tokens, trees.device), _tensor(parents, trees.device))


def _continue(
    trie: TitleTrie, nodes: NDArray[np.int64], log_probs: NDArray[np.float32], logits: Tensor, renormalise: bool
) -> _Candidates:
    """All continuations that the trie allows: nodes and log_probs [P, K], logits [P, K, V]."""
    live = np.flatnonzero(log_probs.ravel() > -np.inf)
    owners, children = trie.children(nodes.ravel()[live])
    beams = live[owners]
    flat = logits.flatten(0, 1)  # [P * K, V]
    at, tokens = _tensor(beams, flat.device), _tensor(trie.tokens[children], flat.device)
    steps = (flat[at, tokens] - flat.logsumexp(dim=1)[at]).cpu().numpy()
    if renormalise:
        begins = np.flatnonzero(np.diff(owners, prepend=-1))
        steps = steps - np.logaddexp.reduceat(steps, begins)[owners]
    return _Candidates(beams, children, (log_probs.ravel()[beams] + steps).astype(np.float32))


def _pad(parts: Sequence[NDArray[Any]], value: float) -> NDArray[Any]:
    """Rows of different lengths as one array, filled up with a value."""
    rows = np.full((len(parts), max(map(len, parts))), value, dtype=parts[0].dtype)
    for row, part in zip(rows, parts, strict=True):
        row[: len(part)] = part
    return rows


def _depth(trie: TitleTrie) -> int:
    """Tokens of the longest title."""
    level, depth = np.array([ROOT]), 0
    while len(level):
        _, level = trie.children(level)
        depth += bool(len(level))
    return depth


def _tensor(values: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)
