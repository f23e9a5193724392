"""The token trie of a catalog's titles: which token may come next in a title that exists.

Nodes are numbered breadth first, so a node's children lie side by side; titles are ordered by their tokens, so the
titles below a node lie side by side too. Everything is one flat array per fact:

    tokens       int32 [N]      the token that leads to node n; -1 at the root, node 0
    first_child  int32 [N + 1]  the children of n are first_child[n] .. first_child[n + 1]
    begin, end   int32 [N]      the titles below n are rows[begin[n]] .. rows[end[n]]
    rows         int32 [L]      catalog rows, in the order of their titles' tokens

That is 16 bytes per node and 4 per title, it can be mapped into memory, and a step for a batch of beams is a few array
look-ups, however large the catalog.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Nodes = NDArray[np.int64]

ROOT = 0


@dataclass(frozen=True)
class TitleTrie:
    """Token sequences with the catalog rows that they stand for; see the module for the arrays.

    Two rows may share a sequence, where a tokenizer does not tell their titles apart.

    Example:
        >>> trie = TitleTrie.build([(7, 8, 0), (7, 9, 0), (5, 0)], [0, 1, 2])
        >>> _, below = trie.children([ROOT])
        >>> trie.tokens[below].tolist(), below.tolist(), trie.rows[trie.begin[2] : trie.end[2]].tolist()
        ([5, 7], [1, 2], [0, 1])
    """

    tokens: NDArray[np.int32]
    first_child: NDArray[np.int32]
    begin: NDArray[np.int32]
    end: NDArray[np.int32]
    rows: NDArray[np.int32]

    @classmethod
    def build(cls, sequences: Sequence[Sequence[int]], rows: Sequence[int]) -> TitleTrie:
        """Build from token sequences, each ending with the end token, and the catalog row of each.

        Raises:
            ValueError: there is no sequence, one is empty, one begins another, or the rows are not as many.
        """
        if len(sequences) != len(rows):
            raise ValueError(f"{len(sequences)} sequences, but {len(rows)} rows")
        if not sequences or not all(len(sequence) for sequence in sequences):
            raise ValueError("a trie needs at least one sequence, and none may be empty")
        order = sorted(range(len(sequences)), key=lambda at: (sequences[at], rows[at]))
        lengths = np.array([len(sequences[at]) for at in order], dtype=np.int64)
        flat = np.fromiter((token for at in order for token in sequences[at]), np.int32, int(lengths.sum()))
        starts = np.cumsum(lengths) - lengths
        shared = _shared_with_previous(flat, starts, lengths)
        _check_prefix_free(shared, lengths)

        tokens, begins, ends = [np.array([-1], np.int32)], [np.zeros(1, np.int64)], [np.array([len(order)], np.int64)]
        for depth in range(1, int(lengths.max()) + 1):
            groups = np.flatnonzero(shared < depth)  # where another prefix of this length, or a shorter title, begins
            after = np.append(groups[1:], len(order))
            reach = lengths[groups] >= depth
            begins.append(groups[reach])
            ends.append(after[reach])
            tokens.append(flat[starts[groups[reach]] + depth - 1])
        # a node's first child is the first node of the next level that begins no earlier
        level = np.cumsum([len(part) for part in begins])
        first = [
            level[depth] + np.searchsorted(begins[depth + 1], begins[depth]) if depth + 1 < len(begins) else
            np.full(len(begins[depth]), level[depth])
            for depth in range(len(begins))
        ]  # fmt: skip
        return cls(
            tokens=np.concatenate(tokens),
            first_child=np.append(np.concatenate(first), level[-1]).astype(np.int32),
            begin=np.concatenate(begins).astype(np.int32),
            end=np.concatenate(ends).astype(np.int32),
            rows=np.array([rows[at] for at in order], dtype=np.int32),
        )

    def __len__(self) -> int:
        """Return the number of nodes."""
        return len(self.tokens)

    @property
    def n_bytes(self) -> int:
        """Memory of the arrays."""
        return sum(array.nbytes for array in (self.tokens, self.first_child, self.begin, self.end, self.rows))

    def children(self, nodes: Sequence[int] | Nodes) -> tuple[Nodes, Nodes]:
        """List the children of some nodes.

        Args:
            nodes: int [n].

        Returns:
            owners int64 [m], ascending: which of the n; children int64 [m]: node numbers, by token within an owner.
        """
        nodes = np.asarray(nodes, dtype=np.int64)
        first = self.first_child[nodes].astype(np.int64)
        counts = self.first_child[nodes + 1] - first
        owners = np.repeat(np.arange(len(nodes)), counts)
        within = np.arange(len(owners)) - np.repeat(np.cumsum(counts) - counts, counts)
        return owners, first[owners] + within

    def is_title(self, nodes: Nodes) -> NDArray[np.bool_]:
        """Whether a title ends at each of these nodes, because it has no children: bool [n]."""
        ends: NDArray[np.bool_] = self.first_child[nodes] == self.first_child[nodes + 1]
        return ends

    def parents(self) -> NDArray[np.int32]:
        """Return each node's parent, int32 [N]; the root's is the root."""
        counts = np.diff(self.first_child)
        above = np.repeat(np.arange(len(self), dtype=np.int32), counts)
        return np.concatenate([np.zeros(1, np.int32), above])

    def make_filter(self, allowed: NDArray[np.bool_]) -> TitleFilter:
        """Prepare a filter. `allowed` is bool [rows of the catalog]; costs one pass over the titles."""
        counts = np.zeros(len(self.rows) + 1, dtype=np.int32)
        np.cumsum(allowed[self.rows], out=counts[1:])
        return TitleFilter(self, counts)


@dataclass(frozen=True)
class TitleFilter:
    """A filter on a trie: which nodes lead to a title that may be recommended.

    Attributes:
        counts: int32 [L + 1], allowed titles before each position in the trie's order.
    """

    trie: TitleTrie
    counts: NDArray[np.int32]

    def __call__(self, nodes: Nodes | slice) -> NDArray[np.bool_]:
        """Whether each of these nodes leads to an allowed title: bool [n], a new array."""
        leads: NDArray[np.bool_] = self.counts[self.trie.end[nodes]] > self.counts[self.trie.begin[nodes]]
        return leads

    def leads(self, node: int) -> bool:
        """Whether one node leads to an allowed title."""
        return bool(self.counts[self.trie.end[node]] > self.counts[self.trie.begin[node]])

    def count(self, nodes: Nodes) -> NDArray[np.int32]:
        """How many allowed titles lie at or below each of these nodes: int32 [n]."""
        found: NDArray[np.int32] = self.counts[self.trie.end[nodes]] - self.counts[self.trie.begin[nodes]]
        return found

    def passes(self, titles: Nodes) -> NDArray[np.bool_]:
        """Whether each of these titles, by their position in the trie's order, is allowed: bool [n]."""
        allowed: NDArray[np.bool_] = self.counts[titles + 1] > self.counts[titles]
        return allowed


def _shared_with_previous(
    flat: NDArray[np.int32], starts: NDArray[np.int64], lengths: NDArray[np.int64]
) -> NDArray[np.int64]:
    """How many leading tokens each sequence shares with the one before it, int64 [L]; the first shares none."""
    shared = np.zeros(len(lengths), dtype=np.int64)
    active = np.arange(1, len(lengths))
    depth = 0
    while len(active):
        both = (lengths[active] > depth) & (lengths[active - 1] > depth)
        active = active[both]
        active = active[flat[starts[active] + depth] == flat[starts[active - 1] + depth]]
        depth += 1
        shared[active] = depth
    return shared


def _check_prefix_free(shared: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
    """In order, a sequence that begins another stands right before one that it begins."""
    begins_next = (shared[1:] == lengths[:-1]) & (lengths[1:] > lengths[:-1])
    if begins_next.any():
        at = int(np.argmax(begins_next))
        raise ValueError(
            f"a sequence of {lengths[at]} tokens is the beginning of another; every sequence must end with a token "
            "that occurs nowhere else"
        )
