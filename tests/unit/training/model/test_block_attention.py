"""Samples in one row of tokens against each alone; and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM

from tests.random_llama import random_llama
from training.errors import TrainingError
from training.model.batches import Sample, collate
from training.model.block_attention import IN_BLOCKS, no_mask
from training.model.language_model import completion_log_probs

LLAMA = random_llama(20, seed=2)
ids = st.lists(st.integers(0, 19), min_size=1, max_size=9).map(tuple)


@settings(max_examples=40)
@given(
    samples=st.lists(st.builds(Sample, ids, st.lists(ids, min_size=1, max_size=3).map(tuple)), min_size=1, max_size=4)
)
def test_a_row_of_samples_is_what_each_gives_alone(samples):
    """Unpadded in blocks of their own, padded in one block, and sample by sample: the same log-probabilities."""
    with torch.no_grad():
        in_blocks, in_one_block = (
            completion_log_probs(LLAMA, collate(samples, pad_id=3, one_block=one_block)) for one_block in (False, True)
        )
        alone = torch.cat([completion_log_probs(LLAMA, collate([sample], pad_id=0)) for sample in samples])
    torch.testing.assert_close(in_blocks, alone, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(in_one_block, alone, rtol=1e-4, atol=1e-4)


def test_blocks_hold_no_padding_and_one_block_as_much_as_its_longest_row():
    """Rows of 2 + 1 and 4 + 3 tokens."""
    samples = [Sample((1, 2), ((3,),)), Sample((1, 2, 3, 4), ((5, 6, 7),))]
    assert collate(samples, pad_id=0).input_ids.shape == (1, 3 + 7)
    assert collate(samples, pad_id=0, one_block=True).input_ids.shape == (1, 7 + 7)


def test_a_model_that_loses_the_blocks_on_the_way_fails():
    batch = collate([Sample((1, 2), ((3,),)), Sample((4,), ((5, 6),))], pad_id=0)
    with pytest.raises(RuntimeError, match="size"):
        LLAMA.model(
            input_ids=batch.input_ids,
            attention_mask=no_mask(torch.device("cpu")),
            position_ids=batch.position_ids,
            use_cache=False,
        )


@pytest.mark.parametrize(("window", "fits"), [(5, True), (4, False)])
def test_a_sample_longer_than_a_layer_looks_back_is_refused(window, fits):
    """A sample of 3 + 2 tokens."""
    config = MistralConfig(
        vocab_size=8, hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=2, sliding_window=window, attn_implementation=IN_BLOCKS,
    )  # fmt: skip
    model, batch = MistralForCausalLM(config), collate([Sample((1, 2, 3), ((4, 5),))], pad_id=0)
    if fits:
        assert len(completion_log_probs(model, batch)) == 2
    else:
        with pytest.raises(TrainingError, match="a sample of 5 tokens is longer than the 4"):
            completion_log_probs(model, batch)
