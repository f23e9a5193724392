"""The log-probability of every title of the catalog after a prompt, exactly.

A title that is scored alone costs its own tokens and its prompt's. Here the prompt is read once and every node of the
title trie once, all in one forward (`training.model.trie_attention`), so titles share what they begin with. The head is
asked at inner nodes only, and an end token is never read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from index.titles.trie import TitleTrie
from training.generation.tree_attention import TokenTrees

_NODES = 2048  # inner nodes in one forward, whose activations a CPU's caches hold; the trie is taken in pieces
_LOGITS = {"cpu": 1 << 20, "cuda": 1 << 26}  # logits in memory at once: on a CPU as many as its caches hold


@dataclass(frozen=True)
class _Piece:
    """Some titles of a trie with the nodes above them. The root has position 0, inner node i position i + 1.

    Attributes:
        tokens: int64 [N], the inner nodes' tokens, level by level.
        ancestors: see `training.model.trie_attention.TrieTokens`.
        parents: int64 [M], position above each node, ascending; all M nodes count, titles' ends too, level by level.
        labels: int64 [M], the token of each.
        above: int64 [M], the node above each as one of the M; -1 below the root.
        levels: the M nodes level by level.
        ends: int64 [titles], the node of the M at which each title ends, in the order of `TitleTrie.rows`.
    """

    tokens: Tensor
    ancestors: tuple[Tensor, ...]
    parents: Tensor
    labels: Tensor
    above: Tensor
    levels: tuple[range, ...]
    ends: Tensor


class TitleScorer:
    """Scores all titles of a trie after prompts.

    Args:
        model: a causal language model from `training.model.language_model.load_base`, with or without LoRA, in eval
        mode. trie: the catalog's titles.
    """

    def __init__(self, model: Any, trie: TitleTrie) -> None:
        self._model, self._trie = model, trie
        self._device = next(model.parameters()).device

    def score(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        batch_size: int = 4,
    ) -> Iterator[NDArray[np.float32]]:
        """Score every title after each prompt, in order.

        Args:
            prompts: token ids, of any lengths from 1.
            batch_size: prompts read at once.

        Yields:
            float32 [len(trie.rows)]: summed natural log-probability of the title of `trie.rows[i]`, end token included.

        Raises:
            TrainingError: the model's attention cannot keep titles apart.
        """
        pieces = tuple(_cut(self._trie, self._device))
        deepest = max(len(piece.levels) for piece in pieces)
        for begin in range(0, len(prompts), batch_size):
            batch = prompts[begin : begin + batch_size]
            with torch.inference_mode():
                trees = TokenTrees(self._model, batch, most_tokens=deepest)
                first = trees.read_prompts()[:, 0]  # [P, V]
                scores = torch.cat([_score_piece(trees, first, piece) for piece in pieces], dim=1)
            yield from scores.cpu().numpy()


def _score_piece(trees: TokenTrees, first: Tensor, piece: _Piece) -> Tensor:
    """float32 [P, titles]; `first` are the logits after the prompts."""
    states = trees.read_trie(piece.tokens, piece.ancestors) if len(piece.tokens) else first.new_empty(len(first), 0, 1)
    log_probs = [_edges(first[:, None], piece, 0)]
    step = max(1, _LOGITS.get(first.device.type, 1 << 24) // first.numel())
    for begin in range(0, states.shape[1], step):
        log_probs.append(_edges(trees.head(states[:, begin : begin + step]), piece, begin + 1))
    totals = torch.cat(log_probs, dim=1)  # [P, M], of each token after those above it
    for level in piece.levels[1:]:
        at = slice(level.start, level.stop)
        totals[:, at] += totals[:, piece.above[at]]
    return totals[:, piece.ends]


def _edges(logits: Tensor, piece: _Piece, begin: int) -> Tensor:
    """Log-probabilities of the children of the positions begin, begin + 1, ...: logits [P, n, V] -> [P, m]."""
    bounds = torch.tensor([begin, begin + logits.shape[1]], device=logits.device)
    low, high = torch.searchsorted(piece.parents, bounds).tolist()
    at = piece.parents[low:high] - begin
    return logits[:, at, piece.labels[low:high]] - logits.logsumexp(dim=2)[:, at]


def _cut(trie: TitleTrie, device: torch.device) -> Iterator[_Piece]:
    """Divide the titles so that no piece has more than about `_NODES` inner nodes."""
    nodes = np.arange(1, len(trie))
    inner = nodes[~trie.is_title(nodes)]
    began = np.cumsum(np.bincount(trie.begin[inner], minlength=len(trie.rows)))  # inner nodes up to each title
    cuts = np.flatnonzero(np.diff(began // _NODES)) + 1
    bounds, parents = [0, *cuts.tolist(), len(trie.rows)], trie.parents()
    for begin, end in pairwise(bounds):
        yield _piece(trie, parents, range(begin, end), device)


def _piece(trie: TitleTrie, parents: NDArray[np.int32], leaves: range, device: torch.device) -> _Piece:
    nodes = np.flatnonzero((trie.begin < leaves.stop) & (trie.end > leaves.start))[1:]  # the root is everyone's
    position_of = np.zeros(len(trie), dtype=np.int64)  # inner nodes from 1, the root 0
    inner = nodes[~trie.is_title(nodes)]
    position_of[inner] = np.arange(1, len(inner) + 1)
    number_of = np.full(len(trie), -1, dtype=np.int64)
    number_of[nodes] = np.arange(len(nodes))

    levels, ancestors = [], []
    begin, chain = 0, np.empty((1, 0), dtype=np.int64)  # chain: [positions of a level, depth], here of the root alone
    first_position = 0
    while begin < len(nodes):
        above = position_of[parents[nodes[begin:]]] - first_position
        end = begin + int(np.searchsorted(above, len(chain)))
        levels.append(range(begin, end))
        level = nodes[begin:end]
        is_inner = ~trie.is_title(level)
        first_position += len(chain)
        own = position_of[level[is_inner]]
        chain = np.concatenate([chain[above[: end - begin][is_inner]], own[:, None] - 1], axis=1)
        if len(chain):
            ancestors.append(torch.from_numpy(chain).to(device))
        begin = end

    titles = nodes[trie.is_title(nodes)]
    titles = titles[np.argsort(trie.begin[titles], kind="stable")]
    first, last = np.maximum(trie.begin[titles], leaves.start), np.minimum(trie.end[titles], leaves.stop)
    ends = np.repeat(number_of[titles], last - first)
    return _Piece(
        tokens=_tensor(trie.tokens[inner], device),
        ancestors=tuple(ancestors),
        parents=_tensor(position_of[parents[nodes]], device),
        labels=_tensor(trie.tokens[nodes], device),
        above=_tensor(number_of[parents[nodes]], device),
        levels=tuple(levels),
        ends=_tensor(ends, device),
    )


def _tensor(values: NDArray[Any], device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.int64)).to(device)
