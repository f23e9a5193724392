"""What is refused before the first update, and how it is said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import Lfm2Config, Lfm2ForCausalLM

from index.catalog.catalog import Catalog, Item
from index.errors import MismatchError
from tests.random_llama import random_llama
from tests.tiny_shop import write_tiny_tokenizer
from training.base_model import BaseModel
from training.data.dataset import check_context
from training.data.windows import Window, describe_window
from training.errors import EmptyDataError, SettingError, TrainingError, name_rows
from training.model.batches import Sample, check_samples, collate, name_offending_rows
from training.model.block_attention import IN_BLOCKS, check_exact_attention
from training.prompt import PromptRenderer, PromptTemplate
from training.recipes.soft.distillation import check_distilled


def base_with(folder: Path, **config: int) -> BaseModel:
    write_tiny_tokenizer(folder)
    (folder / "config.json").write_text(json.dumps({"eos_token_id": 256} | config))
    return BaseModel("tiny", folder, "")


def renderer_of(base: BaseModel, **limits: int) -> PromptRenderer:
    return base.renderer(PromptTemplate(noun="game", verb="played", **limits))


# one token per byte: the empty prompt takes as many as it has letters, a title one per letter, quote and end two
EMPTY_PROMPT = len(PromptTemplate(noun="game", verb="played").head + PromptTemplate.tail)


@pytest.mark.parametrize("positions", [522, 1000])
def test_a_prompt_and_title_that_fill_the_context_are_let_through(positions, tmp_path):
    """500 tokens of prompt, a title of 20, its quote and its end: 522."""
    base = base_with(tmp_path, max_position_embeddings=positions)
    check_context(base, renderer_of(base, max_prompt_tokens=500, max_title_tokens=20))


def test_one_token_more_than_the_context_is_refused_with_the_setting_that_fits(tmp_path):
    """521 positions, less 22 of the title, leave 499 to the prompt."""
    base = base_with(tmp_path, max_position_embeddings=521)
    with pytest.raises(SettingError, match=r"prompt of 500 .* 22 .* 521 positions .*; --set max_prompt_tokens=499$"):
        check_context(base, renderer_of(base, max_prompt_tokens=500, max_title_tokens=20))
    check_context(base, renderer_of(base, max_prompt_tokens=499, max_title_tokens=20))


def test_an_instruction_that_leaves_no_room_for_a_title_is_refused(tmp_path):
    base = base_with(tmp_path, max_position_embeddings=EMPTY_PROMPT + 22)
    with pytest.raises(SettingError, match="lower max_title_tokens, or choose a base with more positions"):
        check_context(base, renderer_of(base, max_prompt_tokens=500, max_title_tokens=20))


def test_a_base_that_names_no_limit_has_none(tmp_path):
    base = base_with(tmp_path)
    check_context(base, renderer_of(base, max_prompt_tokens=100_000))


def test_up_to_ten_rows_are_named():
    assert name_rows([], str) == ""
    assert name_rows([3, 1], str) == "3, 1"
    assert name_rows(range(10), str).endswith("8, 9")
    assert name_rows(range(11), str).endswith("8, 9 and 1 more")


def test_a_window_is_named_by_who_and_what():
    catalog = Catalog.from_items([Item("a", "Tetris"), Item("b", "Ann's Quest")])
    assert describe_window(Window("17", (0,), 1, 5), catalog) == 'user 17 -> "Ann\'s Quest"'


@pytest.mark.parametrize(
    "bad", [Sample((), ((1,),)), Sample((1,), ()), Sample((1,), ((),)), Sample((1,), ((2,), ()))], ids=repr
)
def test_a_sample_without_a_token_to_learn_is_named(bad):
    good = Sample((1, 2), ((3,), (4, 5)), "a good one")
    check_samples([good, good])
    with pytest.raises(EmptyDataError, match="1 of 3 samples have no token to learn: the bad one; leave"):
        check_samples([good, replace(bad, name="the bad one"), good])


def test_no_sample_at_all_is_refused():
    with pytest.raises(EmptyDataError, match="no sample to train on"):
        check_samples([])


WINDOWS = [Window(str(user), (0,), 1, user) for user in range(3)]


def test_distilled_titles_are_counted_and_must_be_one_per_window(tmp_path):
    path = tmp_path / "distilled.parquet"
    assert check_distilled(["Doom", "Myst", "Doom"], WINDOWS, path) == 0
    assert check_distilled(["", "Myst", " \n"], WINDOWS, path) == 2
    with pytest.raises(MismatchError, match=r"one per training window: expected 3, found 2; remove it and run"):
        check_distilled(["Doom", "Myst"], WINDOWS, path)


@pytest.mark.parametrize(
    ("titles", "said"),
    [([], "holds no self-distilled title; remove it"), (["", " ", ""], "all 3 .* are empty.*longer")],
)
def test_distilled_titles_that_hold_nothing_are_refused(titles, said, tmp_path):
    with pytest.raises(EmptyDataError, match=said):
        check_distilled(titles, WINDOWS, tmp_path / "distilled.parquet")


@pytest.mark.parametrize("attention", ["sdpa", "eager", "flex_attention"])
def test_only_attention_in_blocks_is_let_through(attention):
    model = random_llama(50)
    check_exact_attention(model)
    model.set_attn_implementation(attention)
    with pytest.raises(TrainingError, match=f"attention '{attention}' does not keep the completions of a prompt apart"):
        check_exact_attention(model)


def test_a_layer_that_is_no_attention_is_refused():
    """LFM2's convolutions carry a state from token to token."""
    config = Lfm2Config(
        vocab_size=8,
        hidden_size=16,
        intermediate_size=16,
        num_attention_heads=2,
        num_key_value_heads=2,
        num_hidden_layers=2,
        layer_types=["conv", "full_attention"],
    )
    model = Lfm2ForCausalLM(config)
    model.set_attn_implementation(IN_BLOCKS)
    with pytest.raises(TrainingError, match="layers that are no attention"):
        check_exact_attention(model)


@pytest.mark.parametrize("attention", ["eager", "flex_attention"])
def test_the_attention_under_lora_is_looked_at(attention):
    model = random_llama(50, attn_implementation=attention)
    wrapped = get_peft_model(model, LoraConfig(target_modules=["q_proj"], task_type="CAUSAL_LM"))
    with pytest.raises(TrainingError, match=attention):
        check_exact_attention(wrapped)


def test_rows_whose_log_probability_is_not_finite_are_named():
    """Three samples of two, one and two tokens: NaN in the last token of the first, -inf in the third's both."""
    samples = [Sample((1,), ((2, 3),), "user 0"), Sample((1,), ((4,),), "user 1"), Sample((1, 2), ((5, 6),), "user 2")]
    batch = collate(samples, pad_id=0)
    log_probs = torch.tensor([-1.0, torch.nan, -2.0, -torch.inf, -torch.inf])
    assert name_offending_rows(batch, log_probs, samples) == "user 0, user 2"
    assert name_offending_rows(batch, torch.zeros(5), samples) == ""
