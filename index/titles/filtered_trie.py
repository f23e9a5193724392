"""The titles that a search may still write: one or several tries, less what a request may not be given.

A living catalog has one large trie and a small one for what was added since; their rows are disjoint, their titles may
begin alike. So a *place* in the open titles is one node per trie. What may not be recommended is closed in two ways:
a filter that many requests share (a category, availability) is `Admitted`, counts over all titles; a request's own
exclusions (what its user has seen) are few, and given as the nodes that they leave nothing below.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.titles.trie import ROOT, Admitted, TitleTrie

Place = tuple[int, ...]  # one node per segment

_NOWHERE = -1  # in a segment that no title of this beginning lies in


def _nothing() -> NDArray[np.int64]:
    return np.empty(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Segment:
    """A trie with what is closed in it.

    Attributes:
        admitted: the filter: which titles pass; None lets all pass.
        closed: int64, ascending: nodes below which nothing is left, besides those that the filter closes.
    """

    trie: TitleTrie
    admitted: Admitted | None = None
    closed: NDArray[np.int64] = field(default_factory=_nothing)

    def next_tokens(self, node: int) -> NDArray[np.int32]:
        """Return the tokens that may follow a node, ascending; a view where all that the trie has may."""
        first, after, closed = self._children(node)
        tokens: NDArray[np.int32] = self.trie.tokens[first:after]
        if self.admitted is None and not closed.size:
            return tokens
        is_open = np.ones(after - first, np.bool_) if self.admitted is None else self.admitted(slice(first, after))
        is_open[closed - first] = False
        return tokens[is_open]

    def count_next(self, node: int) -> int:
        """Say how many tokens may follow a node."""
        first, after, closed = self._children(node)
        if self.admitted is None:
            return after - first - len(closed)
        is_open = self.admitted(slice(first, after))
        is_open[closed - first] = False
        return int(np.count_nonzero(is_open))

    def child(self, node: int, token: int) -> int:
        """Return the node that a token leads to, or -1 where it may not follow."""
        trie = self.trie
        first, after = int(trie.first_child[node]), int(trie.first_child[node + 1])
        child = first if after - first == 1 else first + int(trie.tokens[first:after].searchsorted(token))
        if child >= after or trie.tokens[child] != token or self.closes(child):
            return _NOWHERE
        if self.admitted is not None and not self.admitted.leads(child):
            return _NOWHERE
        return child

    def closes(self, node: int) -> bool:
        """Whether a node is one of `closed`."""
        if not self.closed.size:
            return False
        at = int(self.closed.searchsorted(node))
        return at < len(self.closed) and int(self.closed[at]) == node

    def _children(self, node: int) -> tuple[int, int, NDArray[np.int64]]:
        """The node's children are first .. after; and those of them that are closed, few however many they are."""
        first, after = int(self.trie.first_child[node]), int(self.trie.first_child[node + 1])
        if not self.closed.size:
            return first, after, self.closed
        begin, end = self.closed.searchsorted((first, after))
        return first, after, self.closed[begin:end]

    def is_title(self, node: int) -> bool:
        """Whether a title ends at a node."""
        return bool(self.trie.first_child[node] == self.trie.first_child[node + 1])


@dataclass(frozen=True)
class TitleOrder:
    """Where each catalog row stands among a trie's titles. Made once per trie with `of`; 8 bytes per title."""

    trie: TitleTrie
    _places_by_row: NDArray[np.int64]
    _levels: NDArray[np.int64]  # first node of each level, and the number of nodes

    @classmethod
    def of(cls, trie: TitleTrie) -> TitleOrder:
        levels = [0]
        while levels[-1] < len(trie):
            levels.append(int(trie.first_child[levels[-1]]))
        return cls(trie, np.argsort(trie.rows, kind="stable"), np.array(levels, dtype=np.int64))

    def closed_nodes(self, rows: Collection[int], admitted: Admitted | None = None) -> NDArray[np.int64]:
        """Name, ascending, the topmost nodes below which these rows, once excluded, leave nothing that may pass.

        Takes a few array look-ups per level of the trie, however large it is.

        Args:
            rows: catalog rows; those that the trie does not hold do not matter.
        """
        trie, order = self.trie, self._places_by_row
        wanted = np.unique(np.fromiter(rows, np.int64, len(rows)))
        at = np.minimum(np.searchsorted(trie.rows, wanted, sorter=order), len(order) - 1)
        places = np.sort(order[at[trie.rows[order[at]] == wanted]])
        if admitted is not None:
            places = places[admitted.passes(places)]
        excluded, closed = places, [_nothing()]
        for first, after in itertools.pairwise(self._levels):
            nodes = first + np.searchsorted(trie.begin[first:after], places, side="right") - 1
            below = (nodes >= first) & (trie.end[nodes] > places)  # shorter titles are not on this level
            nodes, places = nodes[below], places[below]
            if not len(places):
                break
            begin, end = trie.begin[nodes], trie.end[nodes]
            gone = np.searchsorted(excluded, end) - np.searchsorted(excluded, begin)
            left = (end - begin if admitted is None else admitted.count(nodes)) - gone
            closed.append(np.unique(nodes[left == 0]))  # the levels' numbers ascend, too
            places = places[left > 0]
        return np.concatenate(closed)


@dataclass(frozen=True)
class OpenTitles:
    """What may be written, as one trie.

    Attributes:
        segments: disjoint in rows.
        excluded: rows that are never given, though their title's tokens may be another row's too.

    Example:
        >>> trie = TitleTrie.build([(7, 8, 0), (7, 9, 0), (5, 0)], [0, 1, 2])
        >>> titles = OpenTitles((Segment(trie, closed=TitleOrder.of(trie).closed_nodes([2])),), excluded=frozenset([2]))
        >>> titles.next_tokens(titles.start).tolist(), titles.next_tokens(titles.follow(titles.start, 7)).tolist()
        ([7], [8, 9])
    """

    segments: tuple[Segment, ...]
    excluded: frozenset[int] = frozenset()

    @property
    def start(self) -> Place:
        """Before the first token."""
        return tuple(_NOWHERE if segment.closes(ROOT) else ROOT for segment in self.segments)

    def next_tokens(self, place: Place) -> NDArray[np.int32]:
        """Return the tokens that may follow, ascending: int32 [n]; none after a whole title."""
        if len(place) == 1:  # nearly always, and this is asked for every beam in every step
            return self.segments[0].next_tokens(place[0]) if place[0] != _NOWHERE else np.empty(0, np.int32)
        here = self._here(place)
        return _union([segment.next_tokens(node) for segment, node in here]) if here else np.empty(0, np.int32)

    def count_next(self, place: Place) -> int:
        """Say how many tokens may follow."""
        here = self._here(place)
        return here[0][0].count_next(here[0][1]) if len(here) == 1 else len(self.next_tokens(place))

    def follow(self, place: Place, token: int) -> Place:
        """Return the place that a token leads to.

        Raises:
            KeyError: the token may not follow.
        """
        if len(place) == 1:
            after: Place = (self.segments[0].child(place[0], token),) if place[0] != _NOWHERE else place
        else:
            after = tuple(
                segment.child(node, token) if node != _NOWHERE else _NOWHERE
                for segment, node in zip(self.segments, place, strict=True)
            )
        if max(after) == _NOWHERE:
            raise KeyError(f"token {token} may not follow here")
        return after

    def is_title(self, place: Place) -> bool:
        """Whether a title ends here."""
        return any(
            node != _NOWHERE and segment.is_title(node) for segment, node in zip(self.segments, place, strict=True)
        )

    def rows(self, place: Place) -> list[int]:
        """Return the catalog rows of the title that ends here, less what is closed, ascending."""
        found: list[int] = []
        for segment, node in zip(self.segments, place, strict=True):
            if node == _NOWHERE:
                continue
            places = np.arange(segment.trie.begin[node], segment.trie.end[node], dtype=np.int64)
            if segment.admitted is not None:
                places = places[segment.admitted.passes(places)]
            found += segment.trie.rows[places].tolist()
        return sorted(row for row in found if row not in self.excluded)

    def _here(self, place: Place) -> list[tuple[Segment, int]]:
        """The segments that titles of this beginning lie in, with their nodes."""
        return [(segment, node) for segment, node in zip(self.segments, place, strict=True) if node != _NOWHERE]


def _union(tokens: list[NDArray[np.int32]]) -> NDArray[np.int32]:
    """Merge ascending tokens, one or several arrays; no more than a copy where one is much the longest."""
    longest, *others = sorted(tokens, key=len, reverse=True)
    for other in others:
        at = longest.searchsorted(other)
        is_new = longest.take(at, mode="clip") != other if len(longest) else np.empty(0, np.bool_)
        if is_new.any():
            longest = np.insert(longest, at[is_new], other[is_new])
    return longest
