"""The search that an engine drives: against the one that runs in step over tensors, and with requests running ahead."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tests.random_llama import random_llama
from training.generation.beam import generate
from training.generation.generation import Generation
from training.generation.vllm.path_search import NextTokens, RunAhead, TokenIds, next_tokens_per_beam, search_paths

END = 1

Model = Callable[[TokenIds], NextTokens]  # path -> every token's log-probability


def made_up(seed: int) -> Model:
    """A model of ten tokens whose probabilities after any path are drawn at random."""

    @cache
    def next_tokens(path: TokenIds) -> NextTokens:
        draw = random.Random(f"{seed} {path}")
        weights = [math.exp(draw.gauss(0, 2)) for _ in range(10)]
        return {token: math.log(weight / sum(weights)) for token, weight in enumerate(weights)}

    return next_tokens


def told_by(llama: Any, prompt: list[int]) -> Model:
    """A real model after a prompt, by one plain forward pass per path."""

    def next_tokens(path: TokenIds) -> NextTokens:
        with torch.no_grad():
            logits = llama(input_ids=torch.tensor([[*prompt, *path]])).logits[0, -1]
        return dict(enumerate(torch.log_softmax(logits, -1).tolist()))

    return next_tokens


def best(model: Model, path: TokenIds, n: int) -> NextTokens:
    """The n most probable next tokens: all that a search may rely on."""
    return dict(sorted(model(path).items(), key=lambda entry: -entry[1])[:n])


def drive(model: Model, beams: int, **settings: Any) -> tuple[Generation, list[set[TokenIds]]]:
    """The result of a search that is told of just the beams it names, and what it named."""
    search = search_paths(beams=beams, end_id=END, **settings)
    asked = [next(search)]
    while True:
        try:
            asked.append(search.send({path: best(model, path, next_tokens_per_beam(beams)) for path in asked[-1]}))
        except StopIteration as stop:
            return stop.value, asked


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0, -0.5])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_the_search_in_step(seed, length_penalty, beams):
    """For titles that end early, at the limit, or not at all."""
    llama = random_llama(12, seed=seed, bos_token_id=None, eos_token_id=END)
    settings = {"length_penalty": length_penalty, "max_new_tokens": 7}
    prompts = [[2 + seed, 3, 4], [5], [11, 2, 7, 7, 3]]
    for prompt, expected in zip(prompts, generate(llama, prompts, beams=beams, end_id=END, **settings), strict=True):
        found, _ = drive(told_by(llama, prompt), beams, **settings)
        assert (found.ids, found.is_finished) == (expected.ids, expected.is_finished)
        assert found.log_prob == pytest.approx(expected.log_prob, abs=1e-5)


@given(seed=st.integers(0, 10**6), beams=st.integers(1, 5))
def test_asks_for_beams_of_one_length_that_go_on_from_those_before(seed, beams):
    _, asked = drive(made_up(seed), beams, max_new_tokens=6, length_penalty=0.0)
    assert asked[0] == {()}
    for before, now in itertools.pairwise(asked):
        assert len(now) <= beams
        assert {path[:-1] for path in now} <= before
        assert END not in {path[-1] for path in now}


def test_a_single_beam_takes_the_likeliest_token_whatever_else_it_is_told():
    """Two tokens, 0.6 and 0.4, wherever: 0.6 ** 3 = 0.216 and ln 0.216 = -1.5325."""
    told = {path: {5: math.log(0.4), 4: math.log(0.6)} for path in [(), (4,), (4, 4)]}
    search = search_paths(beams=1, max_new_tokens=3, end_id=END, length_penalty=0.0)
    assert [next(search), search.send(told), search.send(told)] == [{()}, {(4,)}, {(4, 4)}]
    with pytest.raises(StopIteration) as stop:
        search.send(told)
    assert (stop.value.value.ids, stop.value.value.is_finished) == ((4, 4, 4), False)
    assert stop.value.value.log_prob == pytest.approx(-1.5325, abs=1e-4)


class FakeEngine:
    """Its requests write on greedily, in any order: each step one of them, drawn at random, writes a token."""

    def __init__(self, model: Model, wanted: int, most: int, seed: int) -> None:
        self.model, self.wanted, self.most, self.draw = model, wanted, most, random.Random(seed)
        self.running: dict[str, TokenIds] = {}
        self.started: list[TokenIds] = []

    def start(self, path: TokenIds) -> str:
        request = f"r{len(self.started)}"
        self.started.append(path)
        self.running[request] = path
        return request

    def step(self) -> tuple[str, int, NextTokens, bool]:
        request = self.draw.choice(sorted(self.running))
        path = self.running.pop(request)
        probable = best(self.model, path, self.wanted)
        token = next(iter(probable))
        is_over = token == END or len(path) + 1 == self.most
        if not is_over:
            self.running[request] = (*path, token)
        return request, token, probable, is_over


@given(seed=st.integers(0, 10**6), beams=st.integers(1, 5), length_penalty=st.sampled_from([0.0, 1.0]))
def test_requests_that_run_ahead_change_no_result_and_none_starts_where_another_is(seed, beams, length_penalty):
    """Whichever request the engine serves first; at most one starts per beam and step, as without running ahead."""
    settings = {"length_penalty": length_penalty, "max_new_tokens": 8}
    engine = FakeEngine(made_up(seed), next_tokens_per_beam(beams), 8, seed)
    ahead = RunAhead(search_paths(beams=beams, end_id=END, **settings))
    result = None
    while result is None:
        for request in ahead.superfluous:
            del ahead.requests[request], engine.running[request]
        for path in ahead.missing:
            ahead.requests[engine.start(path)] = path
        request, token, probable, is_over = engine.step()
        ahead.record(request, [token], [probable])
        if is_over:
            del ahead.requests[request]
        result = ahead.advance()
    expected, asked = drive(made_up(seed), beams, **settings)
    assert result == expected
    assert len(set(engine.started)) == len(engine.started) <= sum(map(len, asked))
