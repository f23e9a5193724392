"""The trie against a dictionary of prefixes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.titles.trie import ROOT, TitleTrie

END = 0
titles = st.lists(st.lists(st.integers(1, 4), max_size=5).map(lambda ids: (*ids, END)), min_size=1, max_size=40)


def build(sequences: list[tuple[int, ...]]) -> TitleTrie:
    return TitleTrie.build(sequences, range(len(sequences)))


def child_tokens(trie: TitleTrie, node: int) -> list[int]:
    return trie.tokens[trie.first_child[node] : trie.first_child[node + 1]].tolist()


def rows_below(trie: TitleTrie, node: int) -> NDArray[np.int32]:
    return trie.rows[trie.begin[node] : trie.end[node]]


def find(trie: TitleTrie, tokens: tuple[int, ...]) -> int:
    """The node that a beginning of a title leads to."""
    node = ROOT
    for token in tokens:
        node = int(trie.first_child[node]) + child_tokens(trie, node).index(token)
    return node


@given(titles)
def test_every_prefix_is_one_node_with_its_continuations_and_rows(sequences: list[tuple[int, ...]]) -> None:
    trie = build(sequences)
    prefixes = {sequence[:length] for sequence in sequences for length in range(len(sequence) + 1)}
    assert len(trie) == len(prefixes)
    for prefix in prefixes:
        node = find(trie, prefix)
        following = sorted({other[len(prefix)] for other in prefixes if other[:-1] == prefix and other})
        assert child_tokens(trie, node) == following
        assert bool(trie.is_title(np.array([node]))[0]) == (prefix[-1:] == (END,))
        below = [row for row, sequence in enumerate(sequences) if sequence[: len(prefix)] == prefix]
        assert sorted(rows_below(trie, node).tolist()) == below


@given(titles)
def test_a_batch_of_children_is_each_nodes_children_and_parents_undo_it(sequences: list[tuple[int, ...]]) -> None:
    trie = build(sequences)
    nodes = np.arange(len(trie))[::-1]
    owners, children = trie.children(nodes)
    for place, node in enumerate(nodes):
        assert trie.tokens[children[owners == place]].tolist() == child_tokens(trie, int(node))
    assert (trie.parents()[children] == nodes[owners]).all()
    assert trie.parents()[ROOT] == ROOT


@given(titles, st.data())
def test_a_node_passes_where_an_allowed_title_lies_below(sequences: list[tuple[int, ...]], data: st.DataObject) -> None:
    allowed = np.array(data.draw(st.lists(st.booleans(), min_size=len(sequences), max_size=len(sequences))))
    trie = build(sequences)
    title_filter = trie.make_filter(allowed)
    assert title_filter.counts[-1] == allowed.sum()
    found = title_filter(np.arange(len(trie)))
    assert found.tolist() == [bool(allowed[rows_below(trie, node)].any()) for node in range(len(trie))]


@given(titles, st.randoms())
def test_the_order_of_titles_does_not_matter(sequences: list[tuple[int, ...]], random: object) -> None:
    numbered = list(enumerate(sequences))
    random.shuffle(numbered)  # type: ignore[attr-defined]
    shuffled = TitleTrie.build([sequence for _, sequence in numbered], [row for row, _ in numbered])
    for name, array in vars(build(sequences)).items():
        assert (array == getattr(shuffled, name)).all()


def test_it_takes_sixteen_bytes_per_node_and_four_per_title() -> None:
    """Root, 7, 8, 9, two ends: 6 nodes; one offset more than nodes."""
    trie = build([(7, 8, END), (7, 9, END)])
    assert trie.n_bytes == 6 * 16 + 4 + 2 * 4


@pytest.mark.parametrize(
    ("sequences", "rows", "message"),
    [
        ([], [], "at least one"),
        ([()], [0], "none may be empty"),
        ([(1, 0)], [0, 1], "1 sequences, but 2 rows"),
        ([(1, 2), (3, 0), (1,)], [0, 1, 2], "the beginning of another"),
    ],
)
def test_what_is_no_trie_is_refused(sequences: list[tuple[int, ...]], rows: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TitleTrie.build(sequences, rows)
