"""The last layer's feed-forward at some places against it at all."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.random_llama import random_llama
from training.last_layer import reading_only

LLAMA = random_llama(20, seed=3)
IDS = torch.arange(12).view(2, 6)


def read() -> torch.Tensor:
    return LLAMA.model(input_ids=IDS, use_cache=False).last_hidden_state


@settings(max_examples=25)
@given(places=st.sets(st.integers(0, 11), min_size=1))
def test_what_is_read_and_its_gradient_stay_the_same(places):
    """Rows of [B, T] = [2, 6] states, counted through. Rounding of float32 over a few operations is 1e-5."""
    at = torch.tensor(sorted(places))
    weights = [weight for weight in LLAMA.parameters() if weight is not LLAMA.lm_head.weight]
    with reading_only(LLAMA.model, at):
        some = read().flatten(0, 1)[at]
    everything = read().flatten(0, 1)[at]
    torch.testing.assert_close(some, everything, rtol=1e-5, atol=1e-5)
    for part, whole in zip(
        torch.autograd.grad(some.square().sum(), weights), torch.autograd.grad(everything.square().sum(), weights),
        strict=True,
    ):  # fmt: skip
        torch.testing.assert_close(part, whole, rtol=1e-4, atol=1e-4)


def test_the_feed_forward_runs_on_the_places_alone_and_is_whole_again_afterwards():
    widths = []
    hook = LLAMA.model.layers[-1].mlp.gate_proj.register_forward_hook(
        lambda *call: widths.append(call[2].shape[:-1].numel())
    )
    with torch.no_grad(), reading_only(LLAMA.model, torch.tensor([4, 7, 11])):
        read()
    with torch.no_grad():
        read()
    hook.remove()
    assert widths == [3, 12]


@pytest.mark.parametrize("call", [lambda mlp, x: mlp(x, x), lambda mlp, x: mlp(x=x)])
def test_a_feed_forward_that_is_called_otherwise_is_left_as_it_is(call):
    class Gate(torch.nn.Module):
        def forward(self, x: torch.Tensor, residual: torch.Tensor | None = None) -> torch.Tensor:
            return x if residual is None else x + residual

    layer = torch.nn.Module()
    layer.mlp = Gate()
    transformer = torch.nn.Module()
    transformer.layers = torch.nn.ModuleList([layer])
    states = torch.ones(1, 3, 2)
    with reading_only(transformer, torch.tensor([0])):
        assert (call(layer.mlp, states) > 0).all()
    del layer.mlp
    with reading_only(transformer, torch.tensor([0])):
        pass
