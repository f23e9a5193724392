"""The titles that a search may write: one or several filtered tries without the exclusions of a request.

A catalog that changes has one large trie and a small one for what was added since. Their rows are disjoint, but their
titles may begin with the same tokens, so a *position* in the allowed titles is one node per trie. Two things remove
titles. A filter that many requests share (a category, availability) is a `TitleFilter`: counts over all titles. A
request's own exclusions (what its user has seen) are few: they are the nodes below which they leave nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.titles.trie import ROOT, TitleFilter, TitleTrie

TriePosition = tuple[int, ...]  # one node per trie

_NOWHERE = -1  # in a trie that holds no title of this beginning


def _nothing() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class FilteredTrie:
    """A trie without the titles that a request must not get.

    Attributes:
        title_filter: which titles pass; None lets all pass.
        excluded_nodes: int64, ascending: nodes below which exclusions leave nothing, beside those that the filter
            removes.
    """

    trie: TitleTrie
    title_filter: TitleFilter | None = None
    excluded_nodes: NDArray[np.int64] = field(default_factory=_nothing)

    def next_tokens(self, node: int) -> NDArray[np.int32]:
        """Return the tokens that may follow a node, ascending; not a copy where nothing is removed."""
        first, after, excluded = self._children(node)
        tokens: NDArray[np.int32] = self.trie.tokens[first:after]
        if self.title_filter is None and not excluded.size:
            return tokens
        return tokens[self._is_allowed(first, after, excluded)]

    def count_next(self, node: int) -> int:
        """Return how many tokens may follow a node."""
        first, after, excluded = self._children(node)
        if self.title_filter is None:
            return after - first - len(excluded)
        return int(np.count_nonzero(self._is_allowed(first, after, excluded)))

    def child(self, node: int, token: int) -> int:
        """Return the node that a token leads to, or -1 where it may not follow."""
        trie = self.trie
        first, after = int(trie.first_child[node]), int(trie.first_child[node + 1])
        child = first if after - first == 1 else first + int(trie.tokens[first:after].searchsorted(token))
        if child >= after or trie.tokens[child] != token or self.excludes(child):
            return _NOWHERE
        if self.title_filter is not None and not self.title_filter.leads(child):
            return _NOWHERE
        return child

    def excludes(self, node: int) -> bool:
        """Whether a node is one of `excluded_nodes`."""
        if not self.excluded_nodes.size:
            return False
        at = int(self.excluded_nodes.searchsorted(node))
        return at < len(self.excluded_nodes) and int(self.excluded_nodes[at]) == node

    def _children(self, node: int) -> tuple[int, int, NDArray[np.int64]]:
        """The node's children are first .. after; the third value lists the excluded ones among them."""
        first, after = int(self.trie.first_child[node]), int(self.trie.first_child[node + 1])
        if not self.excluded_nodes.size:
            return first, after, self.excluded_nodes
        begin, end = self.excluded_nodes.searchsorted((first, after))
        return first, after, self.excluded_nodes[begin:end]

    def _is_allowed(self, first: int, after: int, excluded: NDArray[np.int64]) -> NDArray[np.bool_]:
        passes = (
            np.ones(after - first, np.bool_) if self.title_filter is None else self.title_filter(slice(first, after))
        )
        passes[excluded - first] = False
        return passes

    def children(self, node: int, tokens: NDArray[np.int32]) -> NDArray[np.int64]:
        """Return the nodes that some tokens lead to, int64 [n], -1 where one may not follow."""
        first, after, excluded = self._children(node)
        allowed = self.trie.tokens[first:after]
        if not len(allowed):
            return np.full(len(tokens), _NOWHERE)
        nodes = first + allowed.searchsorted(tokens).astype(np.int64)
        nodes[allowed.take(nodes - first, mode="clip") != tokens] = _NOWHERE
        if self.title_filter is not None:
            nodes[~self.title_filter(nodes)] = _NOWHERE  # of -1 it says anything
        if excluded.size:
            nodes[np.isin(nodes, excluded)] = _NOWHERE
        return nodes


@dataclass(frozen=True)
class TitleOrder:
    """Which title of a trie each catalog row is. Made once per trie with `of`; 8 bytes per title."""

    trie: TitleTrie
    _titles_by_row: NDArray[np.int64]
    _levels: NDArray[np.int64]  # first node of each level, and the number of nodes

    @classmethod
    def of(cls, trie: TitleTrie) -> TitleOrder:
        levels = [0]
        while levels[-1] < len(trie):
            levels.append(int(trie.first_child[levels[-1]]))
        return cls(trie, np.argsort(trie.rows, kind="stable"), np.array(levels, dtype=np.int64))

    def excluded_nodes(self, rows: Collection[int], title_filter: TitleFilter | None = None) -> NDArray[np.int64]:
        """Return, ascending, the topmost nodes below which nothing is left once these rows are excluded.

        Takes a few array look-ups per level of the trie, however large it is.

        Args:
            rows: catalog rows; those that the trie does not hold do not matter.
        """
        trie, order = self.trie, self._titles_by_row
        distinct = np.unique(np.fromiter(rows, np.int64, len(rows)))
        at = np.minimum(np.searchsorted(trie.rows, distinct, sorter=order), len(order) - 1)
        titles = np.sort(order[at[trie.rows[order[at]] == distinct]])
        if title_filter is not None:
            titles = titles[title_filter.passes(titles)]
        excluded, emptied = titles, [_nothing()]
        for first, after in itertools.pairwise(self._levels):
            nodes = first + np.searchsorted(trie.begin[first:after], titles, side="right") - 1
            below = (nodes >= first) & (trie.end[nodes] > titles)  # shorter titles are not on this level
            nodes, titles = nodes[below], titles[below]
            if not len(titles):
                break
            begin, end = trie.begin[nodes], trie.end[nodes]
            gone = np.searchsorted(excluded, end) - np.searchsorted(excluded, begin)
            left = (end - begin if title_filter is None else title_filter.count(nodes)) - gone
            emptied.append(np.unique(nodes[left == 0]))  # the levels' numbers ascend, too
            titles = titles[left > 0]
        return np.concatenate(emptied)


@dataclass(frozen=True)
class AllowedTitles:
    """All that a search may write: filtered tries, read as one.

    Attributes:
        tries: disjoint in rows.
        excluded: rows that are never returned, although another row may have the same tokens.

    Example:
        >>> trie = TitleTrie.build([(7, 8, 0), (7, 9, 0), (5, 0)], [0, 1, 2])
        >>> nodes = TitleOrder.of(trie).excluded_nodes([2])
        >>> titles = AllowedTitles((FilteredTrie(trie, excluded_nodes=nodes),), excluded=frozenset([2]))
        >>> titles.next_tokens(titles.start).tolist(), titles.next_tokens(titles.follow(titles.start, 7)).tolist()
        ([7], [8, 9])
    """

    tries: tuple[FilteredTrie, ...]
    excluded: frozenset[int] = frozenset()

    @property
    def start(self) -> TriePosition:
        """Before the first token."""
        return tuple(_NOWHERE if trie.excludes(ROOT) else ROOT for trie in self.tries)

    def next_tokens(self, position: TriePosition) -> NDArray[np.int32]:
        """Return the tokens that may follow, ascending: int32 [n]; none after a whole title."""
        if len(position) == 1:  # nearly always, and a search asks for every beam in every step
            return self.tries[0].next_tokens(position[0]) if position[0] != _NOWHERE else np.empty(0, np.int32)
        here = self._here(position)
        return _union([trie.next_tokens(node) for trie, node in here]) if here else np.empty(0, np.int32)

    def count_next(self, position: TriePosition) -> int:
        """Return how many tokens may follow."""
        here = self._here(position)
        return here[0][0].count_next(here[0][1]) if len(here) == 1 else len(self.next_tokens(position))

    def follow(self, position: TriePosition, token: int) -> TriePosition:
        """Return the position that a token leads to.

        Raises:
            KeyError: the token may not follow.
        """
        if len(position) == 1:
            after: TriePosition = (self.tries[0].child(position[0], token),) if position[0] != _NOWHERE else position
        else:
            after = tuple(
                trie.child(node, token) if node != _NOWHERE else _NOWHERE
                for trie, node in zip(self.tries, position, strict=True)
            )
        if max(after) == _NOWHERE:
            raise KeyError(f"token {token} may not follow here")
        return after

    def is_title(self, position: TriePosition) -> bool:
        """Whether a title ends here."""
        return any(
            trie.trie.first_child[node] == trie.trie.first_child[node + 1] for trie, node in self._here(position)
        )

    def children(
        self, position: TriePosition, tokens: NDArray[np.int32]
    ) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Return the positions that some tokens lead to, int64 [n, tries], and whether a title ends there: bool [n].

        Raises:
            KeyError: one of the tokens may not follow.
        """
        if len(tokens) == 1:  # mostly a token is forced
            after = self.follow(position, int(tokens[0]))
            return np.array([after], dtype=np.int64), np.array([self.is_title(after)])
        columns = [
            trie.children(node, tokens) if node != _NOWHERE else np.full(len(tokens), _NOWHERE)
            for trie, node in zip(self.tries, position, strict=True)
        ]
        nodes = columns[0][:, None] if len(columns) == 1 else np.stack(columns, axis=1)
        is_nowhere = nodes.max(axis=1) == _NOWHERE
        if is_nowhere.any():
            raise KeyError(f"token {tokens[is_nowhere][0]} may not follow here")
        ends = np.zeros(len(tokens), np.bool_)
        for trie, below in zip(self.tries, columns, strict=True):
            ends |= trie.trie.is_title(below) & (below != _NOWHERE)
        return nodes, ends

    def rows(self, position: TriePosition) -> list[int]:
        """Return the catalog rows of the title that ends here, without the excluded ones, ascending."""
        found: list[int] = []
        for trie, node in self._here(position):
            titles = np.arange(trie.trie.begin[node], trie.trie.end[node], dtype=np.int64)
            if trie.title_filter is not None:
                titles = titles[trie.title_filter.passes(titles)]
            found += trie.trie.rows[titles].tolist()
        return sorted(row for row in found if row not in self.excluded)

    def _here(self, position: TriePosition) -> list[tuple[FilteredTrie, int]]:
        """The tries that hold titles of this beginning, with their nodes."""
        return [(trie, node) for trie, node in zip(self.tries, position, strict=True) if node != _NOWHERE]


def _union(tokens: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Merge ascending tokens, one or several arrays; no more than a copy where one is much the longest."""
    longest, *others = sorted(tokens, key=len, reverse=True)
    for other in others:
        at = longest.searchsorted(other)
        is_new = longest.take(at, mode="clip") != other if len(longest) else np.empty(0, np.bool_)
        if is_new.any():
            longest = np.insert(longest, at[is_new], other[is_new])
    return longest
