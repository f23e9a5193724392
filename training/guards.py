"""What is checked before the first update, so that a run does not fail, or learn nothing, an hour later.

Every refusal is one line with a remedy and names up to ten of the rows that it is about. Which windows can be learned
from at all is `training.learnable`'s.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from index.catalog.catalog import Catalog
from index.errors import MismatchError
from training.base_model import BaseModel
from training.batches import Batch, Sample
from training.block_attention import IN_BLOCKS
from training.errors import EmptyDataError, SettingError, TrainingError
from training.prompt import PromptRenderer
from training.windows import Window

SHOWN = 10  # rows named in one message

Describe = Callable[[int], str]


def name_rows(rows: Sequence[int], describe: Describe) -> str:
    """Name up to ten rows, and say how many more there are.

    Example:
        >>> name_rows(range(12), lambda row: f"u{row}")
        'u0, u1, u2, u3, u4, u5, u6, u7, u8, u9 and 2 more'
    """
    more = len(rows) - SHOWN
    return ", ".join(map(describe, rows[:SHOWN])) + (f" and {more} more" if more > 0 else "")


def describe_window(window: Window, catalog: Catalog) -> str:
    """Name a window so that a person can find it: who, and what came next."""
    return f"user {window.user_id} -> {catalog.titles[window.target]!r}"


def check_context(base: BaseModel, renderer: PromptRenderer) -> None:
    """Refuse settings under which a prompt and its title exceed the base's positions (`max_position_embeddings`).

    The settings count, not today's histories: the adapter keeps them, and a server renders with them. A base whose
    config.json names no limit has none.

    Raises:
        SettingError: naming both numbers, and the setting that fits.
    """
    limit = json.loads((base.path / "config.json").read_bytes()).get("max_position_embeddings")
    prompt, title = renderer.template.max_prompt_tokens, renderer.max_new_tokens
    if limit is None or prompt + title <= limit:
        return
    room, needed = limit - title, len(renderer.render([]).ids)
    raise SettingError(
        f"a prompt of {prompt} tokens (max_prompt_tokens) and a title of {title} with its end (max_title_tokens) "
        f"do not fit the {limit} positions of base {base.name}",
        remedy=f"--set max_prompt_tokens={room}"
        if room > needed
        else "lower max_title_tokens, or choose a base with more positions",
    )


def check_samples(samples: Sequence[Sample]) -> None:
    """Refuse samples that would give no loss: no prompt, no completion, or a completion of no tokens.

    Raises:
        EmptyDataError: naming them.
    """
    if not samples:
        raise EmptyDataError("there is no sample to train on", remedy="import more of the log")
    bad = [
        at
        for at, sample in enumerate(samples)
        if not sample.prompt_ids or not sample.completions or not all(sample.completions)
    ]
    if bad:
        named = name_rows(bad, lambda at: samples[at].name)
        raise EmptyDataError(
            f"{len(bad)} of {len(samples)} samples have no token to learn: {named}",
            remedy="leave these windows out",
        )


def check_distilled(titles: Sequence[str], windows: Sequence[Window], path: Path) -> int:
    """Refuse self-distilled titles that are not one per window, or are all empty; count those that are empty.

    A few empty titles are what the teacher would write, and are learned as such.

    Args:
        path: of the file that holds them, in the workspace.

    Returns:
        How many are empty or blank.

    Raises:
        MismatchError: another number of titles than of windows.
        EmptyDataError: there is none, or none with anything in it.
    """
    again = f"remove it and run `softrec train soft {path.parent}`"
    if not titles:
        raise EmptyDataError(f"{path} holds no self-distilled title", remedy=again)
    if len(titles) != len(windows):
        raise MismatchError(
            f"{path}: self-distilled titles, one per training window",
            expected=str(len(windows)),
            found=str(len(titles)),
            remedy=again,
        )
    empty = sum(not title.strip() for title in titles)
    if empty == len(titles):
        raise EmptyDataError(
            f"{path}: all {empty} self-distilled titles are empty: the SFT adapter ends its answers at once",
            remedy=f"train it longer (softrec train sft {path.parent} --set max_epochs=N), then train soft again",
        )
    return empty


def check_exact_attention(model: Any) -> None:
    """Refuse a model that would not keep apart what is laid out in one row: samples, completions, beams.

    `training.block_attention` does. Eager attention and flex_attention would add a boolean mask to the scores, True as
    1 and False as 0: they mask nothing, and say nothing. A recurrent layer takes what it read on to the next token.

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
            remedy="load the base with training.language_model.load_base",
        )
    if not all(isinstance(layer, DynamicLayer) for layer in DynamicCache(config=model.config).layers):
        raise TrainingError(
            "this base has layers that are no attention: they would mix the completions of a prompt",
            remedy="choose a base with attention in every layer, such as Llama",
        )


def name_offending_rows(batch: Batch, log_probs: Tensor, samples: Sequence[Sample]) -> str:
    """Name the samples of a batch in which a token's log-probability is not finite; "" when there is none.

    Args:
        log_probs: [C], in the order of `batch.owner`.
        samples: of the batch, in its rows' order.
    """
    rows = torch.unique(batch.owner[~torch.isfinite(log_probs)]).tolist()
    return name_rows(rows, lambda row: samples[row].name)
