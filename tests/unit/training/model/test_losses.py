"""Log-probabilities and losses against plain float64 loops and one forward per completion."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.random_llama import random_llama
from training.model.batches import Sample, UpdateSize, collate, update_batches
from training.model.language_model import CompletionScorer, completion_log_probs
from training.model.losses import curriculum_loss, token_log_probs
from training.recipes.sft.recipe import sft_loss
from training.recipes.soft.recipe import soft_loss

VOCABULARY = 50
ids = st.integers(0, VOCABULARY - 1)
prompts = st.lists(ids, min_size=1, max_size=12).map(tuple)
completions = st.lists(ids, min_size=1, max_size=6).map(tuple)
pairs = st.lists(st.tuples(prompts, completions, completions), min_size=1, max_size=5)


@pytest.fixture(scope="module")
def model() -> Any:
    return random_llama(VOCABULARY, initializer_range=0.02).double()


def plain_log_probs(model: Any, prompt: tuple[int, ...], completion: tuple[int, ...]) -> list[float]:
    """One forward over prompt and completion, full logits, a loop."""
    with torch.no_grad():
        logits = model(input_ids=torch.tensor([prompt + completion])).logits[0].double()
    return [float(torch.log_softmax(logits[len(prompt) + at - 1], 0)[token]) for at, token in enumerate(completion)]


@settings(deadline=None, max_examples=30)
@given(pairs=pairs)
def test_two_completions_in_one_row_are_what_two_forwards_give(model, pairs):
    samples = [Sample(prompt, (first, second)) for prompt, first, second in pairs]
    with torch.no_grad():
        found = completion_log_probs(model, collate(samples, pad_id=0)).tolist()
    expected = [
        value for prompt, *both in pairs for completion in both for value in plain_log_probs(model, prompt, completion)
    ]
    assert found == pytest.approx(expected, abs=1e-5)  # cross entropy is taken in float32


@settings(deadline=None, max_examples=20)
@given(pairs=pairs)
def test_soft_loss_is_the_papers(model, pairs):
    """tau * mean token NLL of the distilled titles + (1 - tau) * that of the true ones."""
    samples = [Sample(prompt, (first, second)) for prompt, first, second in pairs]
    tokens = [sum(len(pair[slot]) for pair in pairs) for slot in (1, 2)]
    size = UpdateSize(len(samples), dict(enumerate(tokens)))
    loss, figures = soft_loss(CompletionScorer(model), collate(samples, pad_id=0), size, tau=0.3)
    nll = [
        -sum(sum(plain_log_probs(model, pair[0], pair[slot])) for pair in pairs) / tokens[slot - 1] for slot in (1, 2)
    ]
    assert float(loss.detach()) == pytest.approx(0.3 * nll[0] + 0.7 * nll[1], abs=1e-5)
    assert (figures["loss_distilled"], figures["loss_real"]) == pytest.approx(tuple(nll), abs=1e-5)
    assert figures["loss_real_per_title"] == pytest.approx(nll[1] * tokens[1] / len(pairs), abs=1e-4)


@settings(deadline=None, max_examples=20)
@given(pairs=pairs)
def test_a_title_that_weighs_nothing_need_not_be_computed(model, pairs):
    """At tau = 1 the batch with both titles and the one with the distilled title alone have one loss; likewise at 0."""
    samples = [Sample(prompt, (first, second)) for prompt, first, second in pairs]
    tokens = {slot: sum(len(sample.completions[slot]) for sample in samples) for slot in (0, 1)}
    for tau, slot in ((1.0, 0), (0.0, 1)):
        both, _ = soft_loss(
            CompletionScorer(model), collate(samples, pad_id=0), UpdateSize(len(samples), tokens), tau=tau
        )
        batch, size = collate(samples, pad_id=0, slots=(slot,)), UpdateSize(len(samples), {slot: tokens[slot]})
        one, figures = soft_loss(CompletionScorer(model), batch, size, tau=tau)
        assert len(batch.labels) == tokens[slot]
        assert float(one.detach()) == pytest.approx(float(both.detach()), abs=1e-6)
        assert set(figures) == {
            "loss",
            *(("loss_distilled", "loss_distilled_per_title"), ("loss_real", "loss_real_per_title"))[slot],
        }


def gradients(model: Any) -> list[torch.Tensor]:
    return [weight.grad.clone() for weight in model.parameters()]


def test_loss_and_gradient_do_not_depend_on_padding_or_on_how_an_update_is_cut(model):
    """Eight samples at once, and one by one in another order: the same loss and the same gradients."""
    draw = np.random.default_rng(0)
    samples = [
        Sample(tuple(draw.integers(0, VOCABULARY, draw.integers(2, 12))), (tuple(draw.integers(0, VOCABULARY, 3)),))
        for _ in range(8)
    ]
    size = UpdateSize(8, {0: 24})
    results = []
    for cut in ([samples], [[sample] for sample in reversed(samples)]):
        model.zero_grad()
        losses = [sft_loss(CompletionScorer(model), collate(part, pad_id=0), size)[0] for part in cut]
        torch.autograd.backward(torch.stack(losses).sum())
        results.append((float(torch.stack(losses).sum().detach()), gradients(model)))
    assert results[0][0] == pytest.approx(results[1][0], abs=1e-6)
    for whole, parts in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(whole, parts, atol=1e-6, rtol=1e-5)


def test_the_prompts_own_tokens_are_not_learned(model):
    """Changing the label-free part after the last completion, padding, moves neither loss nor gradient."""
    sample = Sample((1, 2, 3), ((4, 5),))
    longer = Sample((1, 2, 3, 6, 7, 8), ((4, 5),))
    model.zero_grad()
    scorer, size = CompletionScorer(model), UpdateSize(1, {0: 2})
    sft_loss(scorer, collate([sample], pad_id=0), size)[0].backward()
    alone = gradients(model)
    for pad in (0, 9):
        batch = collate([sample, longer], pad_id=pad)
        only_first = replace(
            batch, at=batch.at[:2], labels=batch.labels[:2], owner=batch.owner[:2], slot=batch.slot[:2]
        )
        model.zero_grad()
        sft_loss(scorer, only_first, size)[0].backward()
        for left, right in zip(alone, gradients(model), strict=True):
            torch.testing.assert_close(left, right, atol=1e-7, rtol=1e-6)


def test_token_log_probs_by_hand():
    """softmax of (0, ln 3) is (1/4, 3/4)."""
    logits = torch.tensor([[0.0, np.log(3.0)]]).repeat(2, 1)
    assert token_log_probs(logits, torch.tensor([0, 1])).exp().tolist() == pytest.approx([0.25, 0.75])


@pytest.mark.parametrize("tau", [-0.1, 1.1])
def test_a_weight_outside_the_unit_interval_is_refused(tau):
    with pytest.raises(ValueError, match="tau must be in"):
        curriculum_loss(torch.tensor(1.0), torch.tensor(1.0), tau=tau)


@given(lengths=st.lists(st.integers(1, 90), min_size=1, max_size=200), size=st.integers(1, 17), seed=st.integers(0, 9))
def test_an_epoch_visits_every_sample_once(lengths, size, seed):
    batches = list(update_batches(lengths, batch_size=size, seed=seed))
    assert sorted(index for batch in batches for index in batch) == list(range(len(lengths)))
    assert len(batches) == -(-len(lengths) // size)
    assert batches == list(update_batches(lengths, batch_size=size, seed=seed))


def test_batches_hold_samples_of_like_length():
    """1,000 lengths from 1 to 100 in batches of 25: sorted pools pad little, shuffled ones would pad to about 100."""
    lengths = np.random.default_rng(0).integers(1, 101, 1000).tolist()
    padded = sum(
        len(batch) * max(lengths[index] for index in batch) for batch in update_batches(lengths, batch_size=25, seed=0)
    )
    assert padded < 1.2 * sum(lengths)
