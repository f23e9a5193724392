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

from index.titles.beam import FoundTitles, TitleBeams, TokenIds, count_observed
from index.titles.filtered_trie import AllowedTitles, FilteredTrie, TitleOrder
from index.titles.trie import TitleTrie

END = 0
VOCABULARY = 6
catalogs = st.lists(st.lists(st.integers(1, 4), max_size=5).map(lambda ids: (*ids, END)), min_size=1, max_size=40)
Titles = list[tuple[int, ...]]


@cache
def log_probs(seed: int, path: TokenIds) -> tuple[float, ...]:
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


def open_of(
    *tries: TitleTrie, allowed: NDArray[np.bool_] | None = None, excluded: Collection[int] = ()
) -> AllowedTitles:
    """Close what is not allowed (bool [rows of the catalog]) and what is excluded (rows)."""
    parts = []
    for trie in tries:
        title_filter = None if allowed is None else trie.make_filter(allowed)
        parts.append(FilteredTrie(trie, title_filter, TitleOrder.of(trie).excluded_nodes(excluded, title_filter)))
    return AllowedTitles(tuple(parts), frozenset(excluded))


def observed(
    seed: int, titles: AllowedTitles, prefix: TokenIds, n: int
) -> tuple[NDArray[np.int32], NDArray[np.float64]]:
    """The n most probable allowed tokens after a prefix, with their log-probabilities."""
    position = titles.start
    for token in prefix:
        position = titles.follow(position, token)
    tokens = titles.next_tokens(position)
    values = np.array([log_probs(seed, prefix)[token] for token in tokens.tolist()])
    most = np.argsort(-values, kind="stable")[:n]
    return tokens[most], values[most]


def drive(seed: int, titles: AllowedTitles, width: int, k: int, *, ahead: random.Random | None = None) -> FoundTitles:
    """Search in step, as offline; with `ahead`, as an engine: requests write on before the search looks."""
    search = TitleBeams(titles, width=width, k=k)
    while search.frontier:
        prefixes = list(search.frontier)
        if ahead is not None:
            prefixes = ahead.sample(prefixes, ahead.randint(1, len(prefixes)))
        for prefix in prefixes:
            for _ in range(1 if ahead is None else ahead.randint(1, 5)):
                tokens, values = observed(seed, titles, prefix, count_observed(width))
                search.observe(prefix, tokens, values)
                prefix = (*prefix, int(tokens[0]))
                if prefix[-1] == END:
                    break
        search.advance()
    return search.result()


@given(catalogs, st.integers(0, 99), st.data())
def test_a_wide_search_gives_exactly_the_best_allowed_titles(titles: Titles, seed: int, data: st.DataObject) -> None:
    """Brute force: the k best of the distinct titles that an open row has, each with its open rows."""
    rows = range(len(titles))
    allowed = np.array([data.draw(st.booleans()) for _ in rows]) if data.draw(st.booleans()) else None
    excluded = data.draw(st.sets(st.integers(0, len(titles) + 3)))
    k = data.draw(st.integers(1, 12))
    tries = segments(titles, data.draw(st.integers(0, len(titles))))
    found = drive(seed, open_of(*tries, allowed=allowed, excluded=excluded), len(titles), k)
    open_rows = [row for row in rows if row not in excluded and (allowed is None or allowed[row])]
    best = sorted({titles[row] for row in open_rows}, key=lambda title: (-score(seed, title), title))[:k]
    assert [found_title.token_ids for found_title in found.titles] == best
    for found_title in found.titles:
        assert found_title.log_prob == pytest.approx(score(seed, found_title.token_ids))
        assert list(found_title.rows) == [row for row in open_rows if titles[row] == found_title.token_ids]
    assert found.is_proven


@given(catalogs, st.integers(0, 99), st.integers(1, 4), st.integers(1, 6), st.randoms(use_true_random=False))
def test_the_result_does_not_depend_on_how_far_requests_run_ahead(
    titles: Titles, seed: int, width: int, k: int, ahead: random.Random
) -> None:
    allowed_titles = open_of(*segments(titles, len(titles) // 2))
    in_step = drive(seed, allowed_titles, width, k)
    out_of_step = drive(seed, allowed_titles, width, k, ahead=ahead)
    assert [title.token_ids for title in out_of_step.titles] == [title.token_ids for title in in_step.titles]


@given(catalogs, st.integers(0, 99), st.integers(1, 4), st.integers(1, 6))
def test_a_narrow_search_gives_existing_titles_and_knows_when_they_are_the_best(
    titles: Titles, seed: int, width: int, k: int
) -> None:
    found = drive(seed, open_of(TitleTrie.build(titles, range(len(titles)))), width, k)
    best = sorted(set(titles), key=lambda title: (-score(seed, title), title))[:k]
    paths = [title.token_ids for title in found.titles]
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
    allowed_titles = open_of(*tries, allowed=allowed, excluded=excluded)
    left = {titles[row] for row in range(len(titles)) if allowed[row] and row not in excluded}
    prefixes = {title[:length] for title in left for length in range(len(title) + 1)} | {()}
    for prefix in prefixes:
        place = allowed_titles.start
        for token in prefix:
            place = allowed_titles.follow(place, token)
        following = sorted({title[len(prefix)] for title in left if title[: len(prefix)] == prefix and title != prefix})
        assert allowed_titles.next_tokens(place).tolist() == following
        assert allowed_titles.count_next(place) == len(following)
        assert allowed_titles.is_title(place) == (prefix in left) or not prefix
        with pytest.raises(KeyError, match="may not follow"):
            allowed_titles.follow(place, VOCABULARY)


def test_a_search_of_no_beams_or_no_titles_is_refused() -> None:
    allowed_titles = open_of(TitleTrie.build([(1, END)], [0]))
    for width, k in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least 1"):
            TitleBeams(allowed_titles, width=width, k=k)


def test_what_the_titles_do_not_allow_is_refused() -> None:
    search = TitleBeams(open_of(TitleTrie.build([(1, END)], [0])), width=1, k=1)
    for tokens in ([], [2]):
        with pytest.raises(KeyError, match=r"may not follow|no token was observed"):
            search.observe((), np.array(tokens, dtype=np.int32), np.full(len(tokens), -1.0))
