"""Prompts and their completions as tensors.

A sample is one prompt with one or more completions, one after the other,

    prompt | completion 1 | completion 2

where every completion sees the prompt and itself only, and its positions go on from the prompt's end: one forward
gives what one forward per completion would, and the prompt is computed once. Samples in their turn follow each other in
one row (`training.model.block_attention`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from training.errors import EmptyDataError, name_rows
from training.model.block_attention import Block


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
    """Samples as one row of N tokens; C completion tokens in all.

    Attributes:
        input_ids: int64 [1, N].
        position_ids: int64 [1, N].
        blocks: what the N tokens consist of, in order.
        at: int64 [C], positions in the row whose next token is predicted.
        labels: int64 [C], that token.
        owner: int64 [C], the sample of each.
        slot: int64 [C], the completion of each within its sample.
    """

    input_ids: Tensor
    position_ids: Tensor
    blocks: tuple[Block, ...]
    at: Tensor
    labels: Tensor
    owner: Tensor
    slot: Tensor


def collate(
    samples: Sequence[Sample],
    *,
    pad_id: int,
    slots: Sequence[int] | None = None,
    device: torch.device | str = "cpu",
    one_block: bool | None = None,
) -> Batch:
    """Lay samples out as one batch, in their order.

    Args:
        pad_id: fills the rows of a block; any token will do, none looks at it.
        slots: the completions to lay out; the others are left away. None: all.
        device: where the batch goes.
        one_block: False: every sample is a block, and nothing is padded. True: all are rows of one block, padded on the
            right. None: blocks on a CPU, one block elsewhere: a GPU would rather compute padding than start a kernel
            per sample.
    """
    device = torch.device(device)
    if one_block is None:
        one_block = device.type != "cpu"
    rows = [_lay_out(sample, slots) for sample in samples]
    ids: list[int] = []
    positions: list[int] = []
    at: list[int] = []
    blocks: list[Block] = []
    for rows_of_block in [rows] if one_block else [[row] for row in rows]:
        width = max(len(row.ids) for row in rows_of_block)
        for row in rows_of_block:
            padding = width - len(row.ids)
            at += [len(ids) + position for position in row.at]
            ids += [*row.ids, *[pad_id] * padding]
            positions += [*row.positions, *[0] * padding]
        blocks.append(Block(len(rows_of_block), width, _mask(rows_of_block, width, device)))

    def on_device(values: Iterable[int]) -> Tensor:
        return torch.tensor(list(values), dtype=torch.int64).to(device)

    return Batch(
        input_ids=on_device(ids)[None],
        position_ids=on_device(positions)[None],
        blocks=tuple(blocks),
        at=on_device(at),
        labels=on_device(label for row in rows for label in row.labels),
        owner=on_device(index for index, row in enumerate(rows) for _ in row.at),
        slot=on_device(slot for row in rows for slot in row.slot),
    )


@dataclass(frozen=True)
class _Row:
    """A sample laid out: per token its id, position and segment (0 the prompt, 1.. the completions); per completion
    token the position that predicts it, its id and its slot.
    """

    ids: list[int]
    positions: list[int]
    segments: list[int]
    at: list[int]
    labels: list[int]
    slot: list[int]


def _lay_out(sample: Sample, slots: Sequence[int] | None) -> _Row:
    end = len(sample.prompt_ids)
    row = _Row(list(sample.prompt_ids), list(range(end)), [0] * end, [], [], [])
    chosen = [slot for slot in range(len(sample.completions)) if slots is None or slot in slots]
    for number, slot in enumerate(chosen, 1):
        completion, begin = sample.completions[slot], len(row.ids)
        row.ids.extend(completion)
        row.positions.extend(range(end, end + len(completion)))
        row.segments.extend([number] * len(completion))
        # the prompt's last token predicts a completion's first, wherever that completion lies
        row.at.extend([end - 1, *range(begin, begin + len(completion) - 1)])
        row.labels.extend(completion)
        row.slot.extend([slot] * len(completion))
    return row


def _mask(rows: Sequence[_Row], width: int, device: torch.device) -> Tensor | None:
    """bool [R, 1, W, W]: a token sees its prompt and its own completion; None where no row has two completions."""
    if all(row.segments[-1] <= 1 for row in rows):
        return None
    segments = torch.tensor([row.segments + [-1] * (width - len(row.segments)) for row in rows])
    query, key = segments[:, :, None], segments[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool).tril()
    # padding looks at itself: a row of nothing would be NaN in softmax
    return (causal & ((key == 0) | (key == query)))[:, None].to(device)


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


def name_offending_rows(batch: Batch, log_probs: Tensor, samples: Sequence[Sample]) -> str:
    """Name the samples of a batch in which a token's log-probability is not finite; "" when there is none.

    Args:
        log_probs: [C], in the order of `batch.owner`.
        samples: of the batch, in its rows' order.
    """
    rows = torch.unique(batch.owner[~torch.isfinite(log_probs)]).tolist()
    return name_rows(rows, lambda row: samples[row].name)
