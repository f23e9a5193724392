"""Prompts and their completions as tensors.

A sample is one prompt with one or more completions. They share one row,

    prompt | completion 1 | completion 2 | padding

where every completion sees the prompt and itself only, and its positions go on from the prompt's end: one forward
gives what one forward per completion would, and the prompt is computed once.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Sample:
    """Token ids of a prompt and of the completions to be learned after it.

    Attributes:
        name: tells a person which it is: whose window, and what came next.
    """

    prompt_ids: tuple[int, ...]
    completions: tuple[tuple[int, ...], ...]
    name: str = ""

    def __len__(self) -> int:
        return len(self.prompt_ids) + sum(map(len, self.completions))


@dataclass(frozen=True)
class UpdateSize:
    """How much an update learns from, over all its micro-batches and processes.

    Attributes:
        titles: samples.
        tokens: completion tokens of each slot.
    """

    titles: int
    tokens: Mapping[int, int]


@dataclass(frozen=True)
class Batch:
    """Samples as tensors. B rows of T positions; C completion tokens in all.

    Attributes:
        input_ids: int64 [B, T], right-padded.
        position_ids: int64 [B, T], or None where plain counting is right.
        mask: bool [B, 1, T, T], True where a query may look; None where plain causal attention is right. Padding
            on the right needs no mask: no real token looks at it.
        at: int64 [C], flat positions in [B * T] whose next token is predicted.
        labels: int64 [C], that token.
        owner: int64 [C], the sample of each.
        slot: int64 [C], the completion of each within its sample.
    """

    input_ids: Tensor
    position_ids: Tensor | None
    mask: Tensor | None
    at: Tensor
    labels: Tensor
    owner: Tensor
    slot: Tensor

    def to(self, device: torch.device) -> Batch:
        moved = {name: value.to(device) if value is not None else None for name, value in vars(self).items()}
        return Batch(**moved)  # type: ignore[arg-type]


def collate(samples: Sequence[Sample], *, pad_id: int, slots: Sequence[int] | None = None) -> Batch:
    """Lay samples out as one batch. The order of rows is the order of samples.

    Args:
        pad_id: fills the rows; any token will do, none looks at it.
        slots: the completions to lay out; the others are left away. None: all.
    """
    chosen = [_chosen(sample, slots) for sample in samples]
    width = max(
        len(sample.prompt_ids) + sum(len(completion) for _, completion in completions)
        for sample, completions in zip(samples, chosen, strict=True)
    )
    several = max(map(len, chosen)) > 1
    input_ids = np.full((len(samples), width), pad_id, dtype=np.int64)
    positions = np.zeros((len(samples), width), dtype=np.int64)
    # segment 0 is the prompt, 1.. the completions, -1 padding
    segments = np.full((len(samples), width), -1, dtype=np.int64)
    at: list[int] = []
    labels: list[int] = []
    owner: list[int] = []
    slot: list[int] = []
    for row, (sample, completions) in enumerate(zip(samples, chosen, strict=True)):
        end = len(sample.prompt_ids)
        input_ids[row, :end] = sample.prompt_ids
        positions[row, :end] = np.arange(end)
        segments[row, :end] = 0
        for number, completion in completions:
            begin, end = end, end + len(completion)
            input_ids[row, begin:end] = completion
            positions[row, begin:end] = len(sample.prompt_ids) + np.arange(len(completion))
            segments[row, begin:end] = number + 1
            # the prompt's last token predicts a completion's first, wherever that completion lies
            at.extend([row * width + len(sample.prompt_ids) - 1, *(row * width + np.arange(begin, end - 1))])
            labels.extend(completion)
            owner.extend([row] * len(completion))
            slot.extend([number] * len(completion))
    return Batch(
        input_ids=torch.from_numpy(input_ids),
        position_ids=torch.from_numpy(positions) if several else None,
        mask=_mask(segments) if several else None,
        at=torch.tensor(at, dtype=torch.int64),
        labels=torch.tensor(labels, dtype=torch.int64),
        owner=torch.tensor(owner, dtype=torch.int64),
        slot=torch.tensor(slot, dtype=torch.int64),
    )


def _chosen(sample: Sample, slots: Sequence[int] | None) -> list[tuple[int, tuple[int, ...]]]:
    return [(slot, ids) for slot, ids in enumerate(sample.completions) if slots is None or slot in slots]


def _mask(segments: np.ndarray) -> Tensor:
    segment = torch.from_numpy(segments)
    query, key = segment[:, :, None], segment[:, None, :]
    causal = torch.ones(segment.shape[1], segment.shape[1], dtype=torch.bool).tril()
    # padding looks at itself: a row of nothing would be NaN in softmax
    return (causal & ((key == 0) | (key == query)))[:, None]


def update_batches(lengths: Sequence[int], *, batch_size: int, seed: int) -> Iterator[list[int]]:
    """Yield the indices of one epoch's updates, shuffled, samples of like length together.

    Shuffled samples are sorted by length within pools of eight batches, cut, and the batches of a pool shuffled: little
    padding, and every update still mixes users and times. Each index comes exactly once.
    """
    draw = np.random.default_rng(seed)
    order = draw.permutation(len(lengths))
    pool_size = 8 * batch_size
    for begin in range(0, len(order), pool_size):
        pool = sorted(order[begin : begin + pool_size].tolist(), key=lambda index: lengths[index])
        batches = [pool[at : at + batch_size] for at in range(0, len(pool), batch_size)]
        for at in draw.permutation(len(batches)):
            yield batches[at]
