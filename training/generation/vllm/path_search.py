"""Beam search of one prompt, without a model: it names the beams it needs continued and takes their next tokens.

`training.generation.beam` takes a batch of prompts step by step, all together. An inference engine does not work in
step: it gives the tokens of each request as it has them, and a request costs more than a token. So here every prompt's
search is a generator of its own, and requests run ahead of it. Candidates, scores, stopping rule and result are those
of `training.generation.beam`.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Generator, Mapping, Sequence
from typing import NamedTuple

from training.generation.generation import Generation

TokenIds = tuple[int, ...]  # token ids written after the prompt
NextTokens = Mapping[int, float]  # token id -> natural log-probability

Search = Generator[set[TokenIds], Mapping[TokenIds, NextTokens], Generation]


class _Beam(NamedTuple):
    path: TokenIds
    log_prob: float


def next_tokens_per_beam(beams: int) -> int:
    """How many next tokens a search takes per beam: 2K for K beams, since K of the best 2K may end."""
    return 2 * beams if beams > 1 else 1


def search_paths(*, beams: int, max_new_tokens: int, end_id: int, length_penalty: float) -> Search:
    """Find the best continuation of a prompt. The arguments mean what they mean to `training.generation.beam.generate`.

    Yields:
        The running beams, all of one length; at first the empty path.

    Receives:
        The most probable next tokens, at least `next_tokens_per_beam(beams)` of them, after each of these paths.

    Returns:
        The best generation.
    """

    def score(beam: _Beam, length: int) -> float:
        return beam.log_prob / math.pow(length, length_penalty)

    running = [_Beam((), 0.0)]  # best first
    finished: list[_Beam] = []  # best first, at most `beams`
    for length in range(1, max_new_tokens + 1):
        next_tokens = yield {beam.path for beam in running}
        candidates = heapq.nlargest(
            next_tokens_per_beam(beams),
            (
                _Beam((*beam.path, token), beam.log_prob + log_prob)
                for beam in running
                for token, log_prob in next_tokens[beam.path].items()
            ),
            key=lambda beam: beam.log_prob,
        )
        finished += [beam for beam in candidates[:beams] if beam.path[-1] == end_id]
        finished.sort(key=lambda beam: score(beam, len(beam.path)), reverse=True)
        del finished[beams:]
        running = [beam for beam in candidates if beam.path[-1] != end_id][:beams]
        if not running:
            break  # a single beam, and it ended
        # log-probabilities only fall; with a positive penalty the longest title would profit most
        reachable = score(running[0], max_new_tokens if length_penalty > 0 else length)
        if len(finished) == beams and reachable <= score(finished[-1], len(finished[-1].path)):
            break
    best = finished[0] if finished else running[0]
    return Generation(best.path, best.log_prob, is_finished=best.path[-1] == end_id)


class RunAhead:
    """A prompt's search and an engine's requests, each of which writes on greedily from one of its beams.

    A beam mostly goes on with its most probable token, so most of what the search asks for is there already or on its
    way; a new request is needed where a beam branches. A request whose text is no beam's beginning any more is stopped.

    Attributes:
        beams: the paths that the search waits for.
        requests: request id -> the path it has written, counted from the prompt.
    """

    def __init__(self, search: Search) -> None:
        self._search = search
        self._next_tokens: dict[TokenIds, NextTokens] = {}
        self.beams: set[TokenIds] = next(search)
        self.requests: dict[str, TokenIds] = {}

    @property
    def missing(self) -> set[TokenIds]:
        """Beams that no request writes on from."""
        return self.beams - self._next_tokens.keys() - set(self.requests.values())

    @property
    def superfluous(self) -> list[str]:
        """Requests that follow none of the beams."""
        length = len(next(iter(self.beams)))
        return [request for request, path in self.requests.items() if path[:length] not in self.beams]

    def record(self, request: str, tokens: Sequence[int], next_tokens: Sequence[NextTokens]) -> None:
        """Record the tokens that a request wrote and the most probable tokens at each of their positions."""
        path = self.requests[request]
        for token, probable in zip(tokens, next_tokens, strict=True):
            self._next_tokens[path] = probable
            path = (*path, token)
        self.requests[request] = path

    def advance(self) -> Generation | None:
        """Search as far as the recorded tokens allow; return the result once there is one."""
        while self.beams <= self._next_tokens.keys():
            try:
                self.beams = self._search.send(self._next_tokens)
            except StopIteration as stop:
                result: Generation = stop.value
                return result
        return None
