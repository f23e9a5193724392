"""Our beam search against transformers' own, against a plain one without a cache, and against exhaustive search."""

from __future__ import annotations

import itertools
from functools import cache
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GenerationConfig

from tests.random_llama import random_llama
from training.generation.beam import generate
from training.generation.generation import Generation

END = 1


@cache
def ending_llama(vocabulary: int, seed: int) -> Any:
    """A random model for which END is a token like any other, so some titles end and some do not."""
    return random_llama(vocabulary, seed=seed, bos_token_id=None, eos_token_id=END)


def next_log_probs(model: Any, ids: list[int]) -> list[float]:
    with torch.no_grad():
        return torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0, -1], -1).tolist()


def log_prob(model: Any, prompt: list[int], ids: tuple[int, ...]) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return float(torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(ids)].sum())


def plain_beam_search(model: Any, prompt: list[int], *, beams: int, max_new_tokens: int, penalty: float) -> Generation:
    """The same search, one prompt and one beam at a time, everything computed again at every step."""
    running: list[tuple[float, tuple[int, ...]]] = [(0.0, ())]
    ended: list[tuple[float, float, tuple[int, ...]]] = []
    for length in range(1, max_new_tokens + 1):
        candidates = sorted(
            (
                (total + value, (*ids, token))
                for total, ids in running
                for token, value in enumerate(next_log_probs(model, [*prompt, *ids]))
            ),
            reverse=True,
        )[: 1 if beams == 1 else 2 * beams]
        ended += [(total / length**penalty, total, ids) for total, ids in candidates[:beams] if ids[-1] == END]
        ended = sorted(ended, reverse=True)[:beams]
        running = [(total, ids) for total, ids in candidates if ids[-1] != END][:beams]
        hoped_for = max_new_tokens if penalty > 0 else length
        if not running or (len(ended) == beams and running[0][0] / hoped_for**penalty <= ended[-1][0]):
            break
    if ended:
        return Generation(ended[0][2], ended[0][1], is_finished=True)
    return Generation(running[0][1], running[0][0], is_finished=False)


def transformers_beam_search(
    model: Any, prompt: list[int], *, beams: int, max_new_tokens: int, penalty: float
) -> tuple[int, ...]:
    config = GenerationConfig(
        num_beams=beams,
        do_sample=False,
        max_new_tokens=max_new_tokens,
        length_penalty=penalty,
        early_stopping="never",
        eos_token_id=END,
        pad_token_id=END,
    )
    mask = torch.ones(1, len(prompt), dtype=torch.int64)
    output = model.generate(torch.tensor([prompt]), attention_mask=mask, generation_config=config)
    ids = output[0, len(prompt) :].tolist()
    return tuple(ids[: ids.index(END) + 1]) if END in ids else tuple(ids)


@pytest.mark.parametrize("beams", [1, 2, 4])
@pytest.mark.parametrize("length_penalty", [0.0, 1.0])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_agrees_with_transformers(beams, length_penalty, seed):
    """Finished titles are those of `model.generate`, for prompts of different lengths in one batch."""
    model = ending_llama(8, seed)
    draw = torch.Generator().manual_seed(seed)
    lengths = (3, 9, 5, 9, 14, 1, 7, 2, 6, 11)
    prompts = [torch.randint(2, 8, (length,), generator=draw).tolist() for length in lengths]
    found = generate(
        model, prompts, beams=beams, max_new_tokens=24, end_id=END, length_penalty=length_penalty, batch_size=4
    )
    compared = 0
    for prompt, generation in zip(prompts, found, strict=True):
        expected = transformers_beam_search(model, prompt, beams=beams, max_new_tokens=24, penalty=length_penalty)
        # at the limit transformers may return a beam that was cut off; we return one that ended
        if generation.is_finished and expected[-1] == END:
            assert generation.ids == expected
            compared += 1
    assert compared


@settings(max_examples=40)
@given(
    vocabulary=st.integers(2, 12),
    beams=st.integers(1, 6),
    max_new_tokens=st.integers(1, 9),
    penalty=st.sampled_from([-1.0, 0.0, 0.5, 1.0]),
    batch_size=st.integers(1, 5),
    data=st.data(),
)
def test_agrees_with_a_plain_search(vocabulary, beams, max_new_tokens, penalty, batch_size, data):
    """Any shape: vocabularies too small for the beams, prompts of one token, limits before any title ends, and batches
    that prompts leave one after the other. Scores are compared, not titles: two may be equally good."""
    model = ending_llama(vocabulary, data.draw(st.integers(0, 3), label="seed"))
    token = st.integers(0, vocabulary - 1)
    prompts = data.draw(st.lists(st.lists(token, min_size=1, max_size=12), max_size=5), label="prompts")
    found = generate(
        model,
        prompts,
        beams=beams,
        max_new_tokens=max_new_tokens,
        end_id=END,
        length_penalty=penalty,
        batch_size=batch_size,
    )
    assert len(found) == len(prompts)
    for prompt, generation in zip(prompts, found, strict=True):
        plain = plain_beam_search(model, prompt, beams=beams, max_new_tokens=max_new_tokens, penalty=penalty)
        assert generation.log_prob == pytest.approx(plain.log_prob, abs=1e-4)
        assert generation.log_prob == pytest.approx(log_prob(model, prompt, generation.ids), abs=1e-4)
        assert (generation.is_finished, len(generation.ids)) == (plain.is_finished, len(plain.ids))
        assert END not in generation.ids[:-1]


def test_enough_beams_find_the_most_probable_title():
    """Vocabulary 4, up to 3 tokens: 1 + 3 + 9 titles that end are few enough to try them all."""
    model = ending_llama(4, 3)
    prompt = [2, 3, 2]
    others = [token for token in range(4) if token != END]
    endings = [(*body, END) for length in range(3) for body in itertools.product(others, repeat=length)]
    best = max(endings, key=lambda ids: log_prob(model, prompt, ids))
    (found,) = generate(model, [prompt], beams=27, max_new_tokens=3, end_id=END)
    assert found.ids == best
    assert found.is_finished


def test_batching_changes_nothing_and_progress_counts_every_prompt():
    model = ending_llama(30, 5)
    prompts = [list(range(2, 4 + at)) for at in range(9)]
    done: list[int] = []
    together = generate(model, prompts, beams=4, max_new_tokens=12, end_id=END, batch_size=9, advance=done.append)
    alone = [generate(model, [prompt], beams=4, max_new_tokens=12, end_id=END)[0] for prompt in prompts]
    assert [generation.ids for generation in together] == [generation.ids for generation in alone]
    assert len({len(generation.ids) for generation in together}) > 1  # some left the batch before others
    assert sum(done) == 9
