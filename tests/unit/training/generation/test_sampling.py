"""Drawn titles carry their own log-probability, and are drawn as often as the model says."""

from __future__ import annotations

import numpy as np
import torch

from tests.random_llama import random_llama
from training.generation.sampling import sample

END = 0
LLAMA = random_llama(6, seed=2)


def score_alone(prompt, ids):
    with torch.no_grad():
        logits = LLAMA(input_ids=torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    return float(logits.log_softmax(dim=1)[range(len(ids)), list(ids)].sum())


def test_every_title_has_its_own_log_probability_and_stops_at_its_end():
    prompts = [[1, 2], [3], [4, 5, 1, 2]]
    drawn = sample(LLAMA, prompts, n=6, max_new_tokens=5, end_id=END, seed=0, batch_size=2)
    assert [len(row) for row in drawn] == [6, 6, 6]
    for prompt, row in zip(prompts, drawn, strict=True):
        for generation in row:
            assert generation.is_finished == (generation.ids[-1] == END)
            assert END not in generation.ids[:-1]
            assert len(generation.ids) == 5 or generation.is_finished
            np.testing.assert_allclose(generation.log_prob, score_alone(prompt, generation.ids), rtol=1e-4, atol=1e-4)


def test_the_first_token_comes_as_often_as_it_is_probable():
    """400 draws of a share p have a standard deviation of at most 0.025."""
    [row] = sample(LLAMA, [[1, 2]], n=400, max_new_tokens=2, end_id=END, seed=1)
    with torch.no_grad():
        probable = LLAMA(input_ids=torch.tensor([[1, 2]])).logits[0, -1].softmax(dim=0).numpy()
    found = np.bincount([generation.ids[0] for generation in row], minlength=6) / 400
    assert np.abs(found - probable).max() < 0.1


def test_the_same_seed_gives_the_same_titles():
    options = {"n": 4, "max_new_tokens": 4, "end_id": END}
    assert sample(LLAMA, [[1]], seed=3, **options) == sample(LLAMA, [[1]], seed=3, **options)
    assert sample(LLAMA, [[1]], seed=3, **options) != sample(LLAMA, [[1]], seed=4, **options)
