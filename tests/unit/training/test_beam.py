"""Our beam search against transformers' own and against exhaustive search."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from transformers import GenerationConfig

from tests.random_llama import random_llama
from training.beam import generate

END = 1


def ending_llama(vocabulary: int, seed: int) -> Any:
    """A random model for which END is a token like any other, so some titles end and some do not."""
    return random_llama(vocabulary, seed=seed, bos_token_id=None, eos_token_id=END)


def log_prob(model: Any, prompt: list[int], ids: tuple[int, ...]) -> float:
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return float(torch.log_softmax(logits, -1)[torch.arange(len(ids)), torch.tensor(ids)].sum())


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
        assert generation.log_prob == pytest.approx(log_prob(model, prompt, generation.ids), abs=1e-3)
        if not generation.is_finished:
            assert len(generation.ids) == 24
            continue
        output = model.generate(
            torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.int64),
            generation_config=GenerationConfig(
                num_beams=beams,
                do_sample=False,
                max_new_tokens=24,
                length_penalty=length_penalty,
                early_stopping="never",
                eos_token_id=END,
                pad_token_id=END,
            ),
        )[0, len(prompt) :].tolist()
        expected = tuple(output[: output.index(END) + 1]) if END in output else tuple(output)
        if expected[-1] == END:  # transformers may return a running beam at the limit; we return a finished one
            assert generation.ids == expected
            compared += 1
    assert compared


def test_enough_beams_find_the_most_probable_title():
    """Vocabulary 4, up to 3 tokens: 3 + 9 + 27 possible endings are few enough to try them all."""
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
    assert sum(done) == 9
