"""A random Llama, small enough to check by brute force."""

from __future__ import annotations

from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from training.model.block_attention import IN_BLOCKS


def random_llama(vocabulary: int, *, seed: int = 0, **changes: Any) -> Any:
    """A model in eval mode with grouped-query attention, attending as `load_base` has it; `changes` are fields of its
    LlamaConfig.

    Weights are drawn wide enough (0.4) for peaked distributions: argmax and beams are then no matter of rounding.
    """
    torch.manual_seed(seed)
    fields: dict[str, Any] = {
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 64,
        "initializer_range": 0.4,
        "attn_implementation": IN_BLOCKS,
    }
    return LlamaForCausalLM(LlamaConfig(vocab_size=vocabulary, **(fields | changes))).eval()
