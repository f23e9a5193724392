"""Catalog-constrained beam search without a model: it says which prefixes it needs continued, and records how.

    search = TitleBeams(titles, width=10, k=10)
    while search.frontier:
        for prefix in list(search.frontier):
            search.observe(prefix, tokens, log_probs)   # the model's most probable allowed next tokens
        search.advance()
    search.result()

Served titles and offline ones come from this one search: `serving.engine.titles` drives it with requests of an
inference engine, `training.generation.titles` with a batch of prompts.

Scores are the model's own: the summed natural log-probability of a title's tokens, neither renormalised over what the
trie allows nor divided by length. So log-probabilities only fall along a title, and a prefix below the k-th title found
can be dropped: that never changes the result.

An engine does not work in step: a request writes on greedily, and the search needs a new one where a beam branches. So
each beam's greedy continuation to its title is part of the search, whether or not beams of its length are better later
on. It finds the first k titles early, and with them the bound. The result depends on what is observed, not on when.

The cost for an engine is one token per prefix and step. Where only one token may follow, it is known beforehand,
but its own log-probability still counts; the request that wrote the prefix writes it like any other token, with no new
request, no candidates and no answer needed in between.
"""

from __future__ import annotations

import math
from bisect import insort
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from index.titles.filtered_trie import AllowedTitles, TriePosition

TokenIds = tuple[int, ...]  # written after the prompt


def count_observed(width: int) -> int:
    """How many allowed next tokens a search needs per prefix: all that a beam can keep, and the end token."""
    return width + 1


@dataclass(frozen=True)
class FoundTitle:
    """A title. `rows` are the catalog rows that it stands for, ascending: several where tokens do not differ."""

    token_ids: TokenIds
    log_prob: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class FoundTitles:
    """The best titles of the catalog after a prompt, as far as a search found them.

    Attributes:
        titles: at most k, best first; ties by their tokens.
        is_proven: no title that was not found is better than the last of them, or there is no other. Otherwise the
            width has cut off something that may be better.
    """

    titles: tuple[FoundTitle, ...]
    is_proven: bool


@dataclass(order=True, slots=True)
class _Beam:
    cost: float  # minus the log-probability
    token_ids: TokenIds
    position: TriePosition = field(compare=False)


@dataclass(frozen=True, slots=True)
class _Children:
    """What was observed after a prefix, cheapest first; ties by token: arrays [n]."""

    tokens: NDArray[np.int32]
    costs: NDArray[np.float64]  # of the prefix with the token
    positions: NDArray[np.int64]  # [n, tries]
    ends: NDArray[np.bool_]  # a title ends with the token


class TitleBeams:
    """A search for the k best titles with at most `width` beams of each length.

    Args:
        above: a prefix or title of this log-probability or less cannot matter to the caller.
    """

    def __init__(self, titles: AllowedTitles, *, width: int, k: int, above: float = -math.inf) -> None:
        if width < 1 or k < 1:
            raise ValueError(f"width and k must be at least 1, got {width} and {k}")
        self._titles = titles
        self._width, self._k, self._most = width, k, -above
        self._observed: dict[TokenIds, _Children] = {}
        self._beams: list[_Beam] = []  # all of one length, best first
        self._greedy: list[_Beam] = []  # the end of each beam's greedy continuation so far
        self._followed: set[TokenIds] = set()
        self._found: list[_Beam] = []  # titles, best first
        self._found_ids: set[TokenIds] = set()
        self._best_cut = math.inf  # least cost that the width cut off
        self._unobserved: dict[TokenIds, _Beam] = {}
        if titles.count_next(titles.start):
            self._begin([_Beam(0.0, (), titles.start)])
            self._unobserved = {beam.token_ids: beam for beam in self._beams}

    @property
    def frontier(self) -> dict[TokenIds, TriePosition]:
        """The prefixes that the search needs continued, with their positions; empty once it is over."""
        return {prefix: beam.position for prefix, beam in self._unobserved.items()}

    def observe(self, prefix: TokenIds, tokens: NDArray[np.int32], log_probs: NDArray[np.float32]) -> None:
        """Record the most probable allowed next tokens after `prefix`: of the frontier, or greedily written from it.

        Args:
            tokens: int32 [n], in any order: at least `count_observed`, or all that may follow.
            log_probs: float [n], natural log-probabilities of these tokens alone.

        Raises:
            KeyError: one of them may not follow, or there is none.
        """
        if not len(tokens):
            raise KeyError(f"no token was observed after {prefix}")
        beam = self._beam_at(prefix)
        if beam is None or prefix in self._observed:
            return
        costs = beam.cost - log_probs.astype(np.float64)
        # with fewer than that they are all; the others are no better than the last
        if len(tokens) > self._width and len(tokens) < self._titles.count_next(beam.position):
            self._best_cut = min(self._best_cut, float(costs.max()))
        positions, ends = self._titles.children(beam.position, tokens)
        if len(tokens) > 1:  # mostly a token is forced
            matters = np.flatnonzero(costs <= self._bound)  # the bound only falls
            order = matters[np.lexsort((tokens[matters], costs[matters]))]
            tokens, costs, positions, ends = tokens[order], costs[order], positions[order], ends[order]
        self._observed[prefix] = _Children(tokens, costs, positions, ends)

    def continues_frontier(self, prefix: TokenIds) -> bool:
        """Whether a request that wrote `prefix` greedily, from a prefix of the frontier, should write on."""
        return any(prefix[: len(start)] == start for start in self._unobserved)

    def advance(self) -> None:
        """Search as far as the observations reach."""
        self._follow()
        while self._beams and all(beam.token_ids in self._observed for beam in self._beams):
            self._next_length()
            self._follow()
        self._unobserved = {
            beam.token_ids: beam for beam in (*self._beams, *self._greedy) if beam.token_ids not in self._observed
        }

    def result(self) -> FoundTitles:
        """Return the best titles found so far."""
        titles = tuple(
            FoundTitle(beam.token_ids, -beam.cost, tuple(self._titles.rows(beam.position)))
            for beam in self._found[: self._k]
        )
        return FoundTitles(titles, is_proven=not self._unobserved and self._best_cut >= self._kth_cost)

    @property
    def _kth_cost(self) -> float:
        return self._found[self._k - 1].cost if len(self._found) >= self._k else math.inf

    @property
    def _bound(self) -> float:
        """What is not cheaper is not among the k best, or does not matter to the caller."""
        return min(self._kth_cost, self._most)

    def _beam_at(self, prefix: TokenIds) -> _Beam | None:
        """The beam of a prefix; None if the bound has ruled it out since a request began to write it."""
        if prefix in self._unobserved:
            return self._unobserved[prefix]
        if not prefix:
            return _Beam(0.0, (), self._titles.start)
        before = self._observed.get(prefix[:-1])
        if before is None or prefix[-1] not in before.tokens:
            return None
        return self._child(prefix[:-1], before, int(np.argmax(before.tokens == prefix[-1])))

    def _child(self, prefix: TokenIds, children: _Children, at: int) -> _Beam:
        return _Beam(
            float(children.costs[at]), (*prefix, int(children.tokens[at])), tuple(children.positions[at].tolist())
        )

    def _begin(self, beams: list[_Beam]) -> None:
        """Take these as the beams of their length, and follow each greedily, unless it is followed already."""
        self._beams = beams
        fresh = [beam for beam in beams if beam.token_ids not in self._followed]
        self._followed.update(beam.token_ids for beam in fresh)
        self._greedy += fresh

    def _next_length(self) -> None:
        children = [self._observed[beam.token_ids] for beam in self._beams]
        costs = np.concatenate([one.costs for one in children])
        ends = np.concatenate([one.ends for one in children])
        starts = np.cumsum([0, *(len(one.costs) for one in children)])

        def beam_at(candidate: int) -> _Beam:
            of = int(starts.searchsorted(candidate, side="right")) - 1
            return self._child(self._beams[of].token_ids, children[of], candidate - int(starts[of]))

        for candidate in np.flatnonzero(ends & (costs <= self._bound)).tolist():
            self._find(beam_at(candidate))
        running = np.flatnonzero(~ends & (costs < self._bound))
        best = running[np.argsort(costs[running], kind="stable")[: self._width + 1]]  # ties: by the order of beams
        if len(best) > self._width:
            self._best_cut = min(self._best_cut, float(costs[best[-1]]))
        self._begin([beam_at(candidate) for candidate in best[: self._width].tolist()])

    def _follow(self) -> None:
        """Follow beams greedily as far as observed; drop all that the bound rules out."""
        going, unobserved = self._greedy, []
        while going:
            beam = going.pop()
            children = self._observed.get(beam.token_ids)
            if children is None:
                unobserved.append(beam)
                continue
            if not len(children.costs):
                continue
            best = self._child(beam.token_ids, children, 0)
            if children.ends[0]:
                self._find(best)
            elif best.token_ids not in self._followed:
                self._followed.add(best.token_ids)
                going.append(best)
        bound = self._bound
        self._greedy = [beam for beam in unobserved if beam.cost < bound]
        self._beams = [beam for beam in self._beams if beam.cost < bound]

    def _find(self, title: _Beam) -> None:
        if title.token_ids not in self._found_ids:
            self._found_ids.add(title.token_ids)
            insort(self._found, title)
