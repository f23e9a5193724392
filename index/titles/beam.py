"""Catalog-constrained beam search, without a model: it names what it wants continued and is told how that may go on.

    search = TitleBeams(titles, width=10, k=10)
    while search.wanted:
        for path in list(search.wanted):
            search.hear(path, the model's most probable tokens of those that may follow)
        search.advance()
    search.result()

Scores are the model's own: the summed natural log-probability of a title's tokens, neither renormalised over what the
trie allows nor divided by length. So log-probabilities only fall along a path, and a path below the k-th title found
can be given up: that never changes the result.

An engine does not work in step: a request writes on greedily, and a new one is needed where a beam branches. So each
beam's greedy continuation to its title counts as part of the search, whether or not beams of its length are better
later on. It finds the first k titles early, and with them the bound. The result depends on what the search is told, not
on the order in which it is told.

What it costs an engine: a token per path and step, no more. Where only one token may follow, it is known beforehand,
but its own log-probability still counts; the request that wrote the path so far writes it like any other token, with no
new request, no candidates and no answer needed in between.
"""

from __future__ import annotations

import heapq
import math
from dataclasses import dataclass, field

from index.titles.filtered_trie import OpenTitles, Place

Path = tuple[int, ...]  # tokens written after the prompt
NextTokens = list[tuple[int, float]]  # (token, natural log-probability), best first


def next_tokens_needed(width: int) -> int:
    """How many allowed next tokens a search must be told per path: all that a beam can keep, and the end token."""
    return width + 1


@dataclass(frozen=True)
class FoundTitle:
    """A title. `rows` are the catalog rows that it stands for, ascending: several where tokens do not differ."""

    path: Path
    log_prob: float
    rows: tuple[int, ...]


@dataclass(frozen=True)
class FoundTitles:
    """The best titles of the catalog after a prompt, as far as a search found them.

    Attributes:
        titles: at most k, best first; ties by their tokens.
        is_proven: no title that was not found can be better than the last of them, or there is no other. Else the
            width has cut something off that might be.
    """

    titles: tuple[FoundTitle, ...]
    is_proven: bool


@dataclass(order=True)
class _Beam:
    cost: float  # minus the log-probability
    path: Path
    place: Place = field(compare=False)
    is_title: bool = field(compare=False, default=False)


class TitleBeams:
    """A search for the k best titles with at most `width` beams of each length.

    Attributes:
        wanted: the paths that the search waits for, with their places in the open titles; none once it is over.
    """

    def __init__(self, titles: OpenTitles, *, width: int, k: int) -> None:
        if width < 1 or k < 1:
            raise ValueError(f"width and k must be at least 1, got {width} and {k}")
        self._titles = titles
        self._width, self._k = width, k
        self._children: dict[Path, list[_Beam]] = {}  # of every path that was heard of, best first
        self._beams: list[_Beam] = []  # all of one length, best first
        self._greedy: list[_Beam] = []  # how far each beam's greedy continuation was followed
        self._followed: set[Path] = set()
        self._found: list[_Beam] = []  # titles, best first
        self._best_cut = math.inf  # least cost of what was given up though it was within the bound
        if titles.count_next(titles.start):
            self._begin([_Beam(0.0, (), titles.start)])
        self.wanted: dict[Path, Place] = {beam.path: beam.place for beam in self._beams}

    def hear(self, path: Path, next_tokens: NextTokens) -> None:
        """Take note of the most probable allowed tokens after a path that was wanted, or after what is written on it.

        Args:
            next_tokens: at least `next_tokens_needed`, or all that may follow.

        Raises:
            KeyError: one of them may not follow, or there is none.
        """
        if path in self._children:
            return
        beam = self._beam_at(path)
        if not next_tokens:
            raise KeyError(f"nothing was told of what may follow {path}")
        if len(next_tokens) < self._titles.count_next(beam.place):  # the others are no better than the last
            self._best_cut = min(self._best_cut, beam.cost - next_tokens[-1][1])
        children = []
        for token, log_prob in next_tokens:
            place = self._titles.follow(beam.place, token)
            children.append(_Beam(beam.cost - log_prob, (*path, token), place, self._titles.is_title(place)))
        self._children[path] = children

    def needs(self, path: Path) -> bool:
        """Whether a request that wrote `path`, greedily from something wanted, should write on."""
        return any(path[: len(start)] == start for start in self.wanted)

    def advance(self) -> None:
        """Search as far as what was heard reaches."""
        self._follow()
        while self._beams and all(beam.path in self._children for beam in self._beams):
            self._next_length()
            self._follow()
        waiting = (*self._beams, *self._greedy)
        self.wanted = {beam.path: beam.place for beam in waiting if beam.path not in self._children}

    def result(self) -> FoundTitles:
        """The best of what was found so far."""
        titles = tuple(
            FoundTitle(beam.path, -beam.cost, tuple(self._titles.rows(beam.place))) for beam in self._found[: self._k]
        )
        return FoundTitles(titles, is_proven=not self.wanted and self._best_cut >= self._bound)

    @property
    def _bound(self) -> float:
        """Cost of the k-th title found; what is not cheaper is not among the k best."""
        return self._found[self._k - 1].cost if len(self._found) >= self._k else math.inf

    def _beam_at(self, path: Path) -> _Beam:
        if not path:
            return _Beam(0.0, (), self._titles.start)
        return next(child for child in self._children[path[:-1]] if child.path == path)

    def _begin(self, beams: list[_Beam]) -> None:
        """Take these as the beams of their length, and follow each greedily, where that is not being done."""
        self._beams = beams
        fresh = [beam for beam in beams if beam.path not in self._followed]
        self._followed.update(beam.path for beam in fresh)
        self._greedy += fresh

    def _next_length(self) -> None:
        candidates = [child for beam in self._beams for child in self._children[beam.path]]
        self._find([beam for beam in candidates if beam.is_title])
        bound = self._bound
        running = (beam for beam in candidates if not beam.is_title and beam.cost < bound)
        best = heapq.nsmallest(self._width + 1, running)
        for beam in best[self._width :]:
            self._best_cut = min(self._best_cut, beam.cost)
        self._begin(best[: self._width])

    def _follow(self) -> None:
        """Follow beams greedily as far as was heard; give up all that the bound rules out."""
        going, waiting = self._greedy, []
        while going:
            beam = going.pop()
            if beam.path not in self._children:
                waiting.append(beam)
                continue
            best = self._children[beam.path][0]
            if best.is_title:
                self._find([best])
            elif best.path not in self._followed:
                self._followed.add(best.path)
                going.append(best)
        bound = self._bound
        self._greedy = [beam for beam in waiting if beam.cost < bound]
        self._beams = [beam for beam in self._beams if beam.cost < bound]

    def _find(self, titles: list[_Beam]) -> None:
        known = {beam.path for beam in self._found}
        self._found += [beam for beam in titles if beam.path not in known]
        self._found.sort()
