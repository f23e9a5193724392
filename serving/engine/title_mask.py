"""Logits processor: turns a batch's logits into log-probabilities and, for constrained requests, masks every token that
cannot continue a catalog title.

Log-probabilities leave the greedy choice as it was, and an engine that reports its processed logits (vLLM's
`logprobs_mode="processed_logits"`) reports log-probabilities. Tokens that are not masked keep the model's own
log-probability; nothing is renormalised. A constrained request writes on inside the catalog without asking the server.

A request says what it may write in `extra_args["titles"]`:

    {"tries": [[folder of a trie, file of a filter or None, [excluded nodes]], ...], "position": [node per trie]}
    {"forced": [token ids]}    exactly these, one after the other
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from index.titles.filtered_trie import AllowedTitles, FilteredTrie, TriePosition
from index.titles.trie import TitleFilter, TitleTrie
from index.titles.trie_store import map_trie

ARGUMENT = "titles"  # in a request's extra_args
TRIES, POSITION, FORCED = "tries", "position", "forced"

# Caches; each entry can be read again. A growing catalog has a trie for every doubling of its added titles
_MOST_TRIES = 64  # mapped, not read
_MOST_FILTER_BYTES = 256 << 20  # 64 filters of a million titles

_LOG = logging.getLogger(__name__)

_T = TypeVar("_T")


class _Guide(Protocol):
    """Which tokens a request may write next."""

    def follow(self, token: int) -> None: ...

    def next_tokens(self) -> NDArray[np.int32]:
        """Ascending; empty where anything may follow."""


@dataclass
class _InTitles:
    titles: AllowedTitles
    position: TriePosition

    def follow(self, token: int) -> None:
        try:
            self.position = self.titles.follow(self.position, token)
        except KeyError:
            if not self.titles.is_title(self.position):  # vLLM may have scheduled one step too many
                raise

    def next_tokens(self) -> NDArray[np.int32]:
        return self.titles.next_tokens(self.position)


@dataclass
class _Forced:
    """One continuation, token by token."""

    ids: Sequence[int]
    at: int = 0

    def follow(self, token: int) -> None:
        self.at += 1

    def next_tokens(self) -> NDArray[np.int32]:
        return np.array(self.ids[self.at : self.at + 1], dtype=np.int32)


@dataclass
class _Row:
    guide: _Guide
    written: Sequence[int]  # the engine's own list, which grows
    followed: int = 0  # how many of these tokens the guide has seen


class TitleMask:
    """The constrained requests of a batch, by their row."""

    def __init__(self) -> None:
        self._rows: dict[int, _Row] = {}
        self._tries: OrderedDict[str, TitleTrie] = OrderedDict()
        self._filters: OrderedDict[str, NDArray[np.int32]] = OrderedDict()  # counts of `TitleFilter`: 4 bytes per title

    def remove(self, row: int) -> None:
        self._rows.pop(row, None)

    def add(self, row: int, extra_args: Mapping[str, Any] | None, written: Sequence[int]) -> None:
        """Take a request's row; the engine appends to `written`, the tokens written so far."""
        self.remove(row)
        asked = (extra_args or {}).get(ARGUMENT)
        if asked is None:
            return
        try:
            guide = self._guide(asked)
        except (OSError, ValueError) as error:  # a lost or damaged file; raising here would end the engine
            _LOG.error("a request's titles cannot be read; it runs unconstrained, and the server refuses it: %s", error)
            return
        self._rows[row] = _Row(guide, written)

    def move(self, source: int, target: int, *, swap: bool) -> None:
        moved, replaced = self._rows.pop(source, None), self._rows.pop(target, None)
        if moved is not None:
            self._rows[target] = moved
        if swap and replaced is not None:
            self._rows[source] = replaced

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Turn logits [rows, vocabulary] into log-probabilities, minus infinity for masked tokens."""
        log_probs = logits.log_softmax(-1, dtype=torch.float32)
        rows, allowed = self.allowed_tokens()
        if not len(rows):
            return log_probs
        n_rows, vocabulary = log_probs.shape
        offsets = np.repeat(rows * vocabulary, [len(tokens) for tokens in allowed]) + np.concatenate(allowed)
        kept = torch.from_numpy(offsets).to(logits.device, non_blocking=True)
        masked = torch.full_like(log_probs, -torch.inf)  # cheaper than overwriting rows of log_probs
        masked.view(-1)[kept] = log_probs.view(-1)[kept]
        if len(rows) < n_rows:
            free = torch.from_numpy(np.setdiff1d(np.arange(n_rows), rows)).to(logits.device, non_blocking=True)
            masked[free] = log_probs[free]
        return masked

    def allowed_tokens(self) -> tuple[NDArray[np.int64], list[NDArray[np.int32]]]:
        """Follow the written tokens; return the constrained rows, int64 [n], with the allowed next tokens of each."""
        rows: list[int] = []
        allowed: list[NDArray[np.int32]] = []
        for number, row in list(self._rows.items()):
            try:
                for token in row.written[row.followed :]:
                    row.guide.follow(token)
            except KeyError as error:
                _LOG.error("a request left its titles; it runs unconstrained, and the server refuses it: %s", error)
                del self._rows[number]
                continue
            row.followed = len(row.written)
            tokens = row.guide.next_tokens()
            if len(tokens):
                rows.append(number)
                allowed.append(tokens)
        return np.array(rows, dtype=np.int64), allowed

    def _guide(self, asked: Mapping[str, Any]) -> _Guide:
        if FORCED in asked:
            return _Forced(asked[FORCED])
        titles = AllowedTitles(tuple(self._filtered(*trie) for trie in asked[TRIES]))
        return _InTitles(titles, tuple(asked[POSITION]))

    def _filtered(self, folder: str, filter_file: str | None, excluded: Sequence[int]) -> FilteredTrie:
        trie = _kept(self._tries, folder, map_trie, lambda tries: len(tries) > _MOST_TRIES)
        title_filter = None
        if filter_file is not None:
            title_filter = TitleFilter(trie, _kept(self._filters, filter_file, _read_counts, _are_too_large))
        return FilteredTrie(trie, title_filter, np.array(excluded, dtype=np.int64))


def _kept(
    store: OrderedDict[str, _T], path: str, read: Callable[[Path], _T], is_full: Callable[[Collection[_T]], bool]
) -> _T:
    """Return a cached value, or read it; then evict entries of deleted files, and the least recently used."""
    if path not in store:
        for gone in [kept for kept in store if not Path(kept).exists()]:
            del store[gone]
        store[path] = read(Path(path))
        while len(store) > 1 and is_full(store.values()):
            store.popitem(last=False)
    store.move_to_end(path)
    return store[path]


def _read_counts(path: Path) -> NDArray[np.int32]:
    counts: NDArray[np.int32] = np.load(path, allow_pickle=False)
    return counts


def _are_too_large(filters: Collection[NDArray[np.int32]]) -> bool:
    return sum(counts.nbytes for counts in filters) > _MOST_FILTER_BYTES
