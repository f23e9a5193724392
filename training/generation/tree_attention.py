"""Many continuations of a prompt in one row of the cache, so that they share its keys and values (tree attention).

Whatever grows from a prompt lies in the prompt's row:

    prompt | padding | step 1: one token per branch | step 2: one token per branch | ...

A step appends tokens, each after a node: node 0 is the prompt, and every token is one more. A mask shows a token its
prompt and its own ancestors only, and its position counts on from the prompt's end wherever in the row it lies. So
branches fork, wait and end without a key or value being copied, and a branch more costs a token per step, not a prompt.
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

    Attributes:
        newest: number of the first node that the last step added; its other nodes follow.

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
        self._lengths = lengths.to(self.device)  # [P]
        self._is_prompt = is_prompt.to(self.device)
        # int64 [P, N], of each node; the prompt's parent is itself
        self._parents = torch.zeros(len(prompts), 1, dtype=torch.int64, device=self.device)
        self._depths = torch.zeros_like(self._parents)
        self.newest = 0
        self._cache = _new_cache(self._transformer.config, self._ids.shape[1] + most_tokens)

    def read_prompts(self) -> Tensor:
        """Read the prompts, each once; returns the logits [P, 1, V] of the first token after them.

        Padding is on the right: plain causal attention keeps it from the prompt's tokens, the mask from the branches'.
        """
        output = self._transformer(
            input_ids=self._ids.to(self.device), past_key_values=self._cache, use_cache=True
        ).last_hidden_state
        last = output[torch.arange(len(output), device=self.device), self._lengths - 1]  # [P, H]
        return self.head(last[:, None])

    def grow(self, tokens: Tensor, parents: Tensor) -> Tensor:
        """Add one token to each of K branches of every prompt.

        Args:
            tokens: int64 [P, K], K any number.
            parents: int64 [P, K], the node that each goes on from; several may go on from one.

        Returns:
            Logits [P, K, V] of the next token, float32.
        """
        depths = self._depths.gather(1, parents) + 1
        visible = self._see(parents)
        self.newest = self._parents.shape[1]
        self._parents = torch.cat([self._parents, parents], dim=1)
        self._depths = torch.cat([self._depths, depths], dim=1)
        output = self._transformer(
            input_ids=tokens,
            attention_mask=visible[:, None],
            position_ids=self._lengths[:, None] + depths - 1,
            past_key_values=self._cache,
            use_cache=True,
        ).last_hidden_state
        return self.head(output)

    def _see(self, parents: Tensor) -> Tensor:
        """What new nodes after `parents` attend to: bool [P, K, T], the prompt, their ancestors and themselves."""
        prompts, branches = parents.shape
        nodes = self._parents.shape[1]
        sees = torch.zeros(prompts, branches, nodes + branches, dtype=torch.bool, device=self.device)
        sees[:, :, nodes:] = torch.eye(branches, dtype=torch.bool, device=self.device)
        ancestors = parents
        while ancestors.any():
            sees.scatter_(2, ancestors[:, :, None], True)
            ancestors = self._parents.gather(1, ancestors)
        is_prompt = self._is_prompt[:, None].expand(prompts, branches, -1)
        return torch.cat([is_prompt, sees[:, :, 1:]], dim=2)  # node 0 is the prompt itself

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
            input_ids=tokens.expand(len(self._lengths), -1),
            attention_mask=no_mask(self.device),
            position_ids=self._lengths[:, None] + depths,
            past_key_values=self._cache,
            use_cache=True,
            trie=TrieTokens(ancestors, self._is_prompt),
        ).last_hidden_state
        self._cache.crop(-len(tokens))
        return states

    def head(self, states: Tensor) -> Tensor:
        """Logits float32 [..., V] of states [..., H]."""
        logits: Tensor = self._head(states)
        return logits.float()

    def keep(self, rows: Tensor) -> None:
        """Forget the prompts that are False in rows, bool [P]."""
        self._lengths, self._is_prompt = self._lengths[rows], self._is_prompt[rows]
        self._parents, self._depths = self._parents[rows], self._depths[rows]
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
