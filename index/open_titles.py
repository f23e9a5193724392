"""The titles that a search may still write: one or several tries, less what a request may not be given.

A living catalog has one large trie and a small one for what was added since; their rows are disjoint, their titles may
begin alike. So a *place* in the open titles is one node per trie. What may not be recommended is closed in two ways:
a filter that many requests share (a category, availability) is `Admitted`, counts over all titles; a request's own
exclusions (what its user has seen) are few, and given as the nodes that they leave nothing below.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from index.trie import ROOT, Admitted, TitleTrie

Place = tuple[int, ...]  # one node per segment

_NOWHERE = -1  # in a segment that no title of this beginning lies in


@dataclass(frozen=True)
class Segment:
    """A trie with what is closed in it.

    Attributes:
        admitted: the filter: which titles pass; None lets all pass.
        closed: nodes below which nothing is left, besides those that the filter closes.
    """

    trie: TitleTrie
    admitted: Admitted | None = None
    closed: frozenset[int] = frozenset()

    def next_tokens(self, node: int) -> NDArray[np.int32]:
        """Return the tokens that may follow a node, ascending."""
        first, after = int(self.trie.first_child[node]), int(self.trie.first_child[node + 1])
        if self.admitted is None and not self.closed:
            between: NDArray[np.int32] = self.trie.tokens[first:after]
            return between
        children = np.arange(first, after)
        if self.admitted is not None:
            children = children[self.admitted(children)]
        if self.closed:
            children = np.array([child for child in children.tolist() if child not in self.closed], dtype=np.int64)
        left: NDArray[np.int32] = self.trie.tokens[children]
        return left

    def child(self, node: int, token: int) -> int:
        """Return the node that a token leads to, or -1 where it may not follow."""
        trie = self.trie
        first, after = int(trie.first_child[node]), int(trie.first_child[node + 1])
        child = first if after - first == 1 else first + int(trie.tokens[first:after].searchsorted(token))
        if child >= after or trie.tokens[child] != token or child in self.closed:
            return _NOWHERE
        if self.admitted is not None and not self.admitted.leads(child):
            return _NOWHERE
        return child

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

    def closed_nodes(self, rows: Collection[int], admitted: Admitted | None = None) -> frozenset[int]:
        """Name the topmost nodes below which these rows, once excluded, leave nothing that the filter lets pass.

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
        excluded, closed = places, set[int]()
        for first, after in zip(self._levels, self._levels[1:], strict=False):
            nodes = first + np.searchsorted(trie.begin[first:after], places, side="right") - 1
            below = (nodes >= first) & (trie.end[nodes] > places)  # shorter titles are not on this level
            nodes, places = nodes[below], places[below]
            if not len(places):
                break
            begin, end = trie.begin[nodes], trie.end[nodes]
            gone = np.searchsorted(excluded, end) - np.searchsorted(excluded, begin)
            left = (end - begin if admitted is None else admitted.count(nodes)) - gone
            closed.update(nodes[left == 0].tolist())
            places = places[left > 0]
        return frozenset(closed)


@dataclass(frozen=True)
class OpenTitles:
    """What may be written, as one trie.

    Attributes:
        segments: disjoint in rows.
        excluded: rows that are never given, though their title's tokens may be another row's too.

    Example:
        >>> titles = OpenTitles.of(TitleTrie.build([(7, 8, 0), (7, 9, 0), (5, 0)], [0, 1, 2]), excluded=[2])
        >>> titles.next_tokens(titles.start).tolist(), titles.next_tokens(titles.follow(titles.start, 7)).tolist()
        ([7], [8, 9])
    """

    segments: tuple[Segment, ...]
    excluded: frozenset[int] = frozenset()

    @classmethod
    def of(
        cls, *tries: TitleTrie, allowed: NDArray[np.bool_] | None = None, excluded: Collection[int] = ()
    ) -> OpenTitles:
        """Close what is not allowed (bool [rows of the catalog]) and what is excluded (rows)."""
        segments = []
        for trie in tries:
            admitted = None if allowed is None else trie.admit(allowed)
            segments.append(Segment(trie, admitted, TitleOrder.of(trie).closed_nodes(excluded, admitted)))
        return cls(tuple(segments), frozenset(excluded))

    @property
    def start(self) -> Place:
        """Before the first token."""
        return tuple(_NOWHERE if ROOT in segment.closed else ROOT for segment in self.segments)

    def next_tokens(self, place: Place) -> NDArray[np.int32]:
        """Return the tokens that may follow, ascending: int32 [n]; none after a whole title."""
        found = [
            segment.next_tokens(node) for segment, node in zip(self.segments, place, strict=True) if node != _NOWHERE
        ]
        if not found:
            return np.empty(0, np.int32)
        return found[0] if len(found) == 1 else np.unique(np.concatenate(found))

    def follow(self, place: Place, token: int) -> Place:
        """Return the place that a token leads to.

        Raises:
            KeyError: the token may not follow.
        """
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
