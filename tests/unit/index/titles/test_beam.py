"""Constrained search over random catalogs and a made-up model, against scoring every title."""

import math
import random
from collections.abc import Collection
from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from index.titles.beam import FoundTitles, NextTokens, Path, TitleBeams, next_tokens_needed
from index.titles.filtered_trie import OpenTitles, Segment, TitleOrder
from index.titles.trie import TitleTrie

END = 0
VOCABULARY = 6
catalogs = st.lists(st.lists(st.integers(1, 4), max_size=5).map(lambda ids: (*ids, END)), min_size=1, max_size=40)
Titles = list[tuple[int, ...]]


@cache
def log_probs(seed: int, path: Path) -> tuple[float, ...]:
    """The model: every token's log-probability after a path, drawn at random."""
    draw = random.Random(f"{seed} {path}")
    weights = [math.exp(draw.gauss(0, 2)) for _ in range(VOCABULARY)]
    return tuple(math.log(weight / sum(weights)) for weight in weights)


def score(seed: int, title: tuple[int, ...]) -> float:
    return sum(log_probs(seed, title[:at])[token] for at, token in enumerate(title))


def segments(titles: Titles, cut: int) -> list[TitleTrie]:
    """The rows before the cut in one trie, the others in another."""
    parts = [range(cut), range(cut, len(titles))]
    return [TitleTrie.build([titles[row] for row in part], list(part)) for part in parts if part]


def open_of(*tries: TitleTrie, allowed: NDArray[np.bool_] | None = None, excluded: Collection[int] = ()) -> OpenTitles:
    """Close what is not allowed (bool [rows of the catalog]) and what is excluded (rows)."""
    parts = []
    for trie in tries:
        admitted = None if allowed is None else trie.admit(allowed)
        parts.append(Segment(trie, admitted, TitleOrder.of(trie).closed_nodes(excluded, admitted)))
    return OpenTitles(tuple(parts), frozenset(excluded))


def told(seed: int, open_titles: OpenTitles, path: Path, n: int) -> NextTokens:
    place = open_titles.start
    for token in path:
        place = open_titles.follow(place, token)
    allowed = open_titles.next_tokens(place).tolist()
    return sorted(((token, log_probs(seed, path)[token]) for token in allowed), key=lambda entry: -entry[1])[:n]


def drive(seed: int, open_titles: OpenTitles, width: int, k: int, *, ahead: random.Random | None = None) -> FoundTitles:
    """Search as an engine would; with `ahead`, requests write on by some tokens before the search looks."""
    search = TitleBeams(open_titles, width=width, k=k)
    while search.wanted:
        paths = list(search.wanted)
        if ahead is not None:
            paths = ahead.sample(paths, ahead.randint(1, len(paths)))
        for path in paths:
            for _ in range(1 if ahead is None else ahead.randint(1, 5)):
                tokens = told(seed, open_titles, path, next_tokens_needed(width))
                search.hear(path, tokens)
                path = (*path, tokens[0][0])
                if path[-1] == END:
                    break
        search.advance()
    return search.result()


@given(catalogs, st.integers(0, 99), st.data())
def test_a_wide_search_gives_exactly_the_best_open_titles(titles: Titles, seed: int, data: st.DataObject) -> None:
    """Brute force: the k best of the distinct titles that an open row has, each with its open rows."""
    rows = range(len(titles))
    allowed = np.array([data.draw(st.booleans()) for _ in rows]) if data.draw(st.booleans()) else None
    excluded = data.draw(st.sets(st.integers(0, len(titles) + 3)))
    k = data.draw(st.integers(1, 12))
    tries = segments(titles, data.draw(st.integers(0, len(titles))))
    found = drive(seed, open_of(*tries, allowed=allowed, excluded=excluded), len(titles), k)
    open_rows = [row for row in rows if row not in excluded and (allowed is None or allowed[row])]
    best = sorted({titles[row] for row in open_rows}, key=lambda title: (-score(seed, title), title))[:k]
    assert [found_title.path for found_title in found.titles] == best
    for found_title in found.titles:
        assert found_title.log_prob == pytest.approx(score(seed, found_title.path))
        assert list(found_title.rows) == [row for row in open_rows if titles[row] == found_title.path]
    assert found.is_proven


@given(catalogs, st.integers(0, 99), st.integers(1, 4), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_how_far_requests_run_ahead(
    titles: Titles, seed: int, width: int, k: int, ahead: random.Random
) -> None:
    open_titles = open_of(*segments(titles, len(titles) // 2))
    in_step = drive(seed, open_titles, width, k)
    out_of_step = drive(seed, open_titles, width, k, ahead=ahead)
    assert [title.path for title in out_of_step.titles] == [title.path for title in in_step.titles]


@given(catalogs, st.integers(0, 99), st.integers(1, 4), st.integers(1, 6))
def test_a_narrow_search_gives_existing_titles_and_knows_when_they_are_the_best(
    titles: Titles, seed: int, width: int, k: int
) -> None:
    found = drive(seed, open_of(TitleTrie.build(titles, range(len(titles)))), width, k)
    best = sorted(set(titles), key=lambda title: (-score(seed, title), title))[:k]
    paths = [title.path for title in found.titles]
    assert len(set(paths)) == len(paths) >= min(k, width, len(set(titles)))
    assert set(paths) <= set(titles)
    scores = [title.log_prob for title in found.titles]
    assert scores == sorted(scores, reverse=True)
    if found.is_proven:
        assert paths == best


@given(catalogs, st.data())
def test_what_is_open_is_what_brute_force_leaves(titles: Titles, data: st.DataObject) -> None:
    """At every prefix the next tokens are those of the open titles that begin so, in one segment or two."""
    allowed = np.array([data.draw(st.booleans()) for _ in titles])
    excluded = data.draw(st.sets(st.integers(0, len(titles) - 1)))
    tries = segments(titles, data.draw(st.integers(0, len(titles))))
    open_titles = open_of(*tries, allowed=allowed, excluded=excluded)
    left = {titles[row] for row in range(len(titles)) if allowed[row] and row not in excluded}
    prefixes = {title[:length] for title in left for length in range(len(title) + 1)} | {()}
    for prefix in prefixes:
        place = open_titles.start
        for token in prefix:
            place = open_titles.follow(place, token)
        following = sorted({title[len(prefix)] for title in left if title[: len(prefix)] == prefix and title != prefix})
        assert open_titles.next_tokens(place).tolist() == following
        assert open_titles.count_next(place) == len(following)
        assert open_titles.is_title(place) == (prefix in left) or not prefix
        with pytest.raises(KeyError, match="may not follow"):
            open_titles.follow(place, VOCABULARY)


def test_a_search_of_no_beams_or_no_titles_is_refused() -> None:
    open_titles = open_of(TitleTrie.build([(1, END)], [0]))
    for width, k in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            TitleBeams(open_titles, width=width, k=k)


def test_what_the_titles_do_not_allow_is_refused() -> None:
    search = TitleBeams(open_of(TitleTrie.build([(1, END)], [0])), width=1, k=1)
    for told in ([], [(2, -1.0)]):
        with pytest.raises(KeyError, match=r"may (not )?follow"):
            search.hear((), told)
