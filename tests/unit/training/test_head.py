"""The head in pieces against the head at once."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model

from tests.random_llama import random_llama
from training import head as module
from training.head import score_tokens
from training.losses import token_log_probs

VOCABULARY = 11


def draw(tokens: int, dtype: torch.dtype) -> tuple[torch.nn.Linear, torch.Tensor, torch.Tensor]:
    torch.manual_seed(tokens)
    head = torch.nn.Linear(5, VOCABULARY, bias=False, dtype=dtype).requires_grad_(False)
    return head, torch.randn(tokens, 5, dtype=dtype), torch.randint(0, VOCABULARY, (tokens,))


@settings(max_examples=30)
@given(tokens=st.integers(1, 12), rows=st.integers(1, 5), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_pieces_give_the_log_probabilities_and_the_gradient_of_the_whole(tokens, rows, dtype):
    """Every token with a weight of its own, as a loss may have it. bfloat16 keeps 8 bits: 2 ** -8 is 0.004."""
    head, states, labels = draw(tokens, dtype)
    weights = torch.linspace(-1, 2, tokens)
    results = []
    with pytest.MonkeyPatch.context() as patch:
        for at_once in (rows * VOCABULARY, 100 * VOCABULARY):
            patch.setattr(module, "LOGITS_AT_ONCE", at_once)
            states.grad = None
            log_probs = score_tokens(head, states.requires_grad_(), labels)
            torch.autograd.backward((weights * log_probs).sum())
            results.append((log_probs.detach(), states.grad))
            with torch.no_grad():
                torch.testing.assert_close(score_tokens(head, states, labels), log_probs.detach())
    rounding = 1e-6 if dtype == torch.float32 else 0.01
    for pieces, whole in zip(*results, strict=True):
        torch.testing.assert_close(pieces, whole, rtol=rounding, atol=rounding)


def test_a_head_that_learns_gets_its_gradient(monkeypatch):
    """LoRA on the head: all tokens at once, so that its weights are in the graph."""
    model = get_peft_model(random_llama(VOCABULARY), LoraConfig(target_modules=["lm_head"], task_type="CAUSAL_LM"))
    head = model.get_base_model().lm_head
    monkeypatch.setattr(module, "LOGITS_AT_ONCE", 1)
    states, labels = torch.randn(4, 32), torch.tensor([1, 2, 3, 4])
    found = score_tokens(head, states, labels)
    torch.testing.assert_close(found, token_log_probs(head(states), labels))
    torch.autograd.backward(found.sum())
    learning = [weight for weight in head.parameters() if weight.requires_grad]
    assert len(learning) == 2
    assert all(weight.grad is not None for weight in learning)
