"""The models and samples that training is measured on: random weights, random tokens, real sizes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from training.model.batches import Sample
from training.model.block_attention import IN_BLOCKS
from training.model.language_model import add_lora
from training.settings import TrainSettings


@dataclass(frozen=True)
class Shape:
    """A Llama's size and what it trains on.

    Attributes:
        micro_batch: samples per forward; an update is one micro-batch.
        prompt_tokens: shortest and longest prompt.
        title_tokens: shortest and longest completion, its end included.
        dtype: of the base's weights and the activations; LoRA's weights are float32.
    """

    name: str
    hidden: int
    intermediate: int
    layers: int
    heads: int
    kv_heads: int
    vocabulary: int
    micro_batch: int
    prompt_tokens: tuple[int, int]
    title_tokens: tuple[int, int] = (6, 16)
    dtype: torch.dtype = torch.float32

    @property
    def settings(self) -> TrainSettings:
        """The tiny preset (LoRA of rank 8 on all linear layers) with this micro-batch."""
        return replace(TrainSettings(), batch_size=self.micro_batch, micro_batch_size=self.micro_batch)

    def make_model(self, device: str = "cpu") -> Any:
        """A randomly initialised Llama with tied embeddings, as Llama-3.2's, and a fresh LoRA on it.

        Its attention is that of `training`; without blocks, as the plain ways call it, that is transformers' sdpa.
        """
        from transformers import LlamaConfig, LlamaForCausalLM

        config = LlamaConfig(
            vocab_size=self.vocabulary,
            hidden_size=self.hidden,
            intermediate_size=self.intermediate,
            num_hidden_layers=self.layers,
            num_attention_heads=self.heads,
            num_key_value_heads=self.kv_heads,
            max_position_embeddings=1024,
            tie_word_embeddings=True,
        )
        torch.manual_seed(0)  # all contenders start alike
        with torch.device(device):
            base = LlamaForCausalLM._from_config(config, dtype=self.dtype, attn_implementation="sdpa")
        base.set_attn_implementation(IN_BLOCKS)
        return add_lora(base, self.settings).to(device)

    def draw_updates(self, n: int, *, seed: int) -> list[list[Sample]]:
        """Draw n updates of samples with a distilled and a true title each."""
        draw = np.random.default_rng(seed)

        def ids(between: tuple[int, int]) -> tuple[int, ...]:
            return tuple(draw.integers(0, self.vocabulary, draw.integers(between[0], between[1] + 1)).tolist())

        return [
            [
                Sample(ids(self.prompt_tokens), (ids(self.title_tokens), ids(self.title_tokens)))
                for _ in range(self.micro_batch)
            ]
            for _ in range(n)
        ]


def without_distilled(samples: Sequence[Sample]) -> list[Sample]:
    """The same samples with the true title alone, as SFT learns them."""
    return [Sample(sample.prompt_ids, sample.completions[1:]) for sample in samples]


# Llama-3's vocabulary on a model that a CPU can train; the feed-forward 2.75 times as wide (Llama-3.2-3B: 2.67)
LARGE_VOCABULARY = Shape("128k", 1024, 2816, 8, 16, 4, 128_256, 8, (220, 280))
# training.recipes.stand_in's size, with prompts as short as ml-100k's and as long as amazon-games'
SHORT = Shape("4k short", 128, 352, 4, 4, 4, 4096, 32, (60, 90))
LONG = Shape("4k long", 128, 352, 4, 4, 4, 4096, 32, (220, 280))
LLAMA_3B = Shape("Llama-3.2-3B", 3072, 8192, 28, 24, 8, 128_256, 16, (220, 280), dtype=torch.bfloat16)
