"""Branches in one row of the cache against each branch read alone; and what is refused."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import MistralConfig, MistralForCausalLM

from tests.random_llama import random_llama
from training.errors import TrainingError
from training.generation.tree_attention import TokenTrees
from training.model.block_attention import IN_BLOCKS

LLAMA = random_llama(20, seed=1)
SIZES = {"vocab_size": 8, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def check(logits: torch.Tensor, branches: list[list[list[int]]]) -> None:
    """Logits [P, K, V] are those of the ids at [P][K], each read alone."""
    with torch.no_grad():
        alone = [[LLAMA(input_ids=torch.tensor([ids])).logits[0, -1] for ids in row] for row in branches]
    torch.testing.assert_close(logits, torch.stack(list(map(torch.stack, alone))), rtol=1e-4, atol=1e-4)


@settings(max_examples=25)
@given(data=st.data(), lengths=st.lists(st.integers(1, 9), min_size=1, max_size=4))
def test_a_branch_sees_its_prompt_and_its_own_tokens_only(data, lengths):
    """Branches fork, wait, end and change in number; prompts differ in length, and one is forgotten half-way."""
    token = st.integers(0, 19)
    rows = [data.draw(st.lists(token, min_size=length, max_size=length)) for length in lengths]
    trees = TokenTrees(LLAMA, rows, most_tokens=100)
    nodes = [[list(row)] for row in rows]  # [P][N] of ids: every node with what it goes on from
    check(trees.read_prompts(), nodes)
    for _ in range(data.draw(st.integers(0, 4))):
        if len(nodes) > 1 and data.draw(st.booleans()):
            gone = data.draw(st.integers(0, len(nodes) - 1))
            del nodes[gone]
            kept = torch.ones(len(nodes) + 1, dtype=torch.bool)
            kept[gone] = False
            trees.keep(kept)
        width = data.draw(st.integers(1, 4))
        parent = st.integers(0, len(nodes[0]) - 1)
        parents = [[data.draw(parent) for _ in range(width)] for _ in nodes]
        tokens = [[data.draw(token) for _ in range(width)] for _ in nodes]
        added = [
            [[*row[parent], new] for parent, new in zip(chosen, new_tokens, strict=True)]
            for row, chosen, new_tokens in zip(nodes, parents, tokens, strict=True)
        ]
        check(trees.grow(torch.tensor(tokens), torch.tensor(parents)), added)
        assert trees.newest == len(nodes[0])
        nodes = [[*row, *new] for row, new in zip(nodes, added, strict=True)]


def test_attention_that_takes_true_for_one_is_refused():
    with pytest.raises(TrainingError, match="eager"):
        TokenTrees(random_llama(20, attn_implementation="eager"), [[1, 2]], most_tokens=4)


def test_a_window_shorter_than_the_row_is_refused():
    """Prompt 3 and 4 tokens more are 7 positions: a window of 6 is too short, one of 7 is not."""
    for window, fits in ((6, False), (7, True)):
        config = MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=window, attn_implementation=IN_BLOCKS)
        model = MistralForCausalLM(config)
        if fits:
            TokenTrees(model, [[1, 2], [1, 2, 3]], most_tokens=4)
        else:
            with pytest.raises(TrainingError, match="looks back 6 positions"):
                TokenTrees(model, [[1, 2], [1, 2, 3]], most_tokens=4)
