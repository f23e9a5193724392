"""Attention within blocks of a row: samples follow each other without padding, and each attends as if it were alone.

All but attention works token by token, so samples of any lengths may share one row of tokens. Attention cuts the row at
the samples' ends and hands each piece to transformers' own sdpa. Importing this module makes that an attention of
transformers by the name `IN_BLOCKS`; without blocks it is sdpa.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from training.errors import TrainingError
from training.model.trie_attention import TrieTokens, attend_in_trie

IN_BLOCKS = "sdpa_in_blocks"


@dataclass(frozen=True)
class Block:
    """A piece of a row of tokens that attends to nothing else: R rows of W tokens, one row after the other.

    Attributes:
        mask: bool [R, 1, W, W], True where a query may look; None where plain causal attention is right. Padding at a
            row's end needs no mask: no real token looks at it.
    """

    rows: int
    width: int
    mask: Tensor | None

    def __len__(self) -> int:
        return self.rows * self.width

    def to(self, device: torch.device) -> Block:
        return Block(self.rows, self.width, None if self.mask is None else self.mask.to(device))


def no_mask(device: torch.device) -> Tensor:
    """A mask that goes with blocks, and which no attention can use: a model that loses the blocks on the way fails."""
    return torch.empty(1, 1, 0, 0, dtype=torch.bool, device=device)


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    blocks: Sequence[Block] | None = None,
    trie: TrieTokens | None = None,
    sliding_window: int | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """Attend as transformers' attention functions do: query [1, H, N, D], key and value likewise -> [1, N, H, D].

    Args:
        blocks: what the N tokens consist of, in order. None: `attention_mask` decides, as in sdpa.
        trie: the tokens are a trie's, after prompts in the cache (see `training.model.trie_attention`).
        sliding_window: how far the layer looks back.
    """
    if trie is not None:
        return attend_in_trie(query, key, value, trie, scaling=options["scaling"]), None
    if blocks is None:
        output, _ = sdpa_attention_forward(module, query, key, value, attention_mask, **options)
        return output, None
    if sliding_window is not None and any(block.width > sliding_window for block in blocks):
        raise TrainingError(
            f"a sample of {max(block.width for block in blocks)} tokens is longer than the {sliding_window} that a "
            "layer of this base looks back",
            remedy="lower max_prompt_tokens or max_title_tokens, or choose a base with full attention",
        )
    lengths = list(map(len, blocks))
    pieces = zip(*(torch.split(states[0], lengths, dim=1) for states in (query, key, value)), strict=True)
    outputs = [
        sdpa_attention_forward(module, *(_as_rows(states, block) for states in piece), block.mask, **options)[0]
        for block, piece in zip(blocks, pieces, strict=True)
    ]  # [R, W, H, D]
    return torch.cat([output.flatten(0, 1) for output in outputs])[None], None


def _as_rows(states: Tensor, block: Block) -> Tensor:
    """[H, R * W, D] -> [R, H, W, D]."""
    return states.view(len(states), block.rows, block.width, -1).transpose(0, 1)


AttentionInterface.register(IN_BLOCKS, _attend)
AttentionMaskInterface.register(IN_BLOCKS, sdpa_mask)


def check_exact_attention(model: Any) -> None:
    """Refuse a model that would not keep apart what is laid out in one row: samples, completions, beams.

    What is attended by `_attend` does. Eager attention and flex_attention would add a boolean mask to the scores, True
    as 1 and False as 0: they mask nothing, and say nothing. A recurrent layer takes what it read on to the next token.

    Args:
        model: a causal language model, with or without LoRA.

    Raises:
        TrainingError: it attends otherwise, or not in every layer.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    found = model.config._attn_implementation
    if found != IN_BLOCKS:
        raise TrainingError(
            f"attention {found!r} does not keep the completions of a prompt apart",
            remedy="load the base with training.model.language_model.load_base",
        )
    if not all(isinstance(layer, DynamicLayer) for layer in DynamicCache(config=model.config).layers):
        raise TrainingError(
            "this base has layers that are no attention: they would mix the completions of a prompt",
            remedy="choose a base with attention in every layer, such as Llama",
        )
