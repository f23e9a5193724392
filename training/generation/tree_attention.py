"""Many continuations of a prompt in one row of the cache, so that they share its keys and values (tree attention).

Whatever grows from a prompt lies in the prompt's row:

    prompt | padding | step 1: one token per branch | step 2: one token per branch | ...

A step appends the newest token of every branch. A mask tells each which positions of the row it sees, the prompt and
its own ancestors, and its position counts on from the prompt's end wherever in the row it lies. So branches fork and
end without a key or value being copied, and a branch more costs a token per step, not a prompt.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from training.errors import TrainingError
from training.model.block_attention import check_exact_attention, no_mask
from training.model.language_model import decoder
from training.model.trie_attention import TrieTokens


class TokenTrees:
    """What a causal language model has read: P prompts, after each K branches of tokens; T positions in the cache.

    Args:
        model: with or without LoRA.
        prompts: token ids, of any lengths from 1.
        most_tokens: that will be added to a prompt, over all its branches.

    Raises:
        TrainingError: the model's attention cannot keep branches apart
            (`training.model.block_attention.check_exact_attention`), or looks back less far than a row of the cache may
            get long.
    """

    def __init__(self, model: Any, prompts: Sequence[Sequence[int]], *, most_tokens: int) -> None:
        check_exact_attention(model)
        self._transformer, self._head = decoder(model)
        self.device: torch.device = self._head.weight.device
        lengths = torch.tensor([len(prompt) for prompt in prompts])
        is_prompt = torch.arange(int(lengths.max())) < lengths[:, None]  # [P, T]
        self._ids = torch.zeros(is_prompt.shape, dtype=torch.int64)
        self._ids[is_prompt] = torch.tensor([token for prompt in prompts for token in prompt])
        self._next_position = lengths.to(self.device)  # [P]
        # bool [P, K, T]: where a branch finds its prompt and its own tokens
        self._visible = is_prompt.to(self.device)[:, None]
        self._cache = _new_cache(self._transformer.config, self._ids.shape[1] + most_tokens)

    def read_prompts(self) -> Tensor:
        """Read the prompts, each once; returns the logits [P, 1, V] of the first token after them.

        Padding is on the right: plain causal attention keeps it from the prompt's tokens, the mask from the branches'.
        """
        output = self._transformer(
            input_ids=self._ids.to(self.device), past_key_values=self._cache, use_cache=True
        ).last_hidden_state
        last = output[torch.arange(len(output), device=self.device), self._next_position - 1]  # [P, H]
        return self.head(last[:, None])

    def grow(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Add one token to each branch.

        Args:
            tokens: int64 [P, K], K any number.
            parents: int64 [P, K], the branch of the last step that each goes on from; several may go on from one, and
                those from which none does have ended.

        Returns:
            Logits [P, K, V] of the next token, float32.
        """
        prompts, branches = tokens.shape
        inherited = pick(self._visible, parents)
        itself = torch.eye(branches, dtype=torch.bool, device=self.device).expand(prompts, branches, branches)
        self._visible = torch.cat([inherited, itself], dim=2)
        output = self._transformer(
            input_ids=tokens,
            attention_mask=self._visible[:, None],
            position_ids=self._next_position[:, None].expand(prompts, branches),
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        self._next_position = self._next_position + 1
        return self.head(output)

    def read_trie(self, tokens: Tensor, ancestors: Sequence[Tensor]) -> Tensor:
        """Read a trie of continuations after every prompt, all at once, and forget it again.

        Right after `read_prompts`, and as often as wanted.

        Args:
            tokens: int64 [N], level by level.
            ancestors: see `training.model.trie_attention.TrieTokens`.

        Returns:
            Last-layer states [P, N, H], normed: what the head takes.
        """
        depths = torch.cat([torch.full((len(level),), level.shape[1] - 1) for level in ancestors]).to(self.device)
        states: Tensor = self._transformer(
            input_ids=tokens.expand(len(self._next_position), -1),
            attention_mask=no_mask(self.device),
            position_ids=self._next_position[:, None] + depths,
            past_key_values=self._cache,
            use_cache=True,
            trie=TrieTokens(ancestors, self._visible[:, 0]),
        ).last_hidden_state
        self._cache.crop(-len(tokens))
        return states

    def head(self, states: Tensor) -> Tensor:
        """Logits float32 [..., V] of states [..., H]."""
        logits: Tensor = self._head(states)
        return logits.float()

    def keep(self, rows: Tensor) -> None:
        """Forget the prompts that are False in rows, bool [P]."""
        self._next_position, self._visible = self._next_position[rows], self._visible[rows]
        self._cache.batch_select_indices(rows)


def _new_cache(config: Any, positions: int) -> Any:
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache(config=config)
    for layer in cache.layers:
        if 0 <= layer.get_max_length() < positions:  # -1: it looks back to the beginning
            raise TrainingError(
                f"a layer of this base looks back {layer.get_max_length()} positions; prompts with the titles tried "
                f"take {positions}",
                remedy="lower max_prompt_tokens or max_title_tokens, or choose a base with full attention",
            )
    return cache


def pick(values: Tensor, which: Tensor) -> Tensor:
    """Pick along the second axis: values [P, K, ...], which [P, N] -> [P, N, ...]."""
    return values[torch.arange(len(values), device=values.device)[:, None], which]
