"""What a run would learn from: how long, what is cut, and three samples as the loss sees them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from training.data.dataset import Dataset
from training.data.window_filter import LeftOut
from training.model.batches import Sample, collate
from training.prompt import TitleTokenizer

BINS = 10


@dataclass(frozen=True)
class Bin:
    """How many lengths lie in first..last tokens, both included."""

    first: int
    last: int
    count: int


@dataclass(frozen=True)
class Lengths:
    """A histogram of lengths in tokens, with what is read off it most.

    Attributes:
        of: what has these lengths.
        p95: the length that 95 % do not exceed.
        bins: at most ten, of equal width, without gaps.
    """

    of: str
    shortest: int
    median: int
    p95: int
    longest: int
    bins: tuple[Bin, ...]


@dataclass(frozen=True)
class RenderedCompletion:
    """One answer that is learned, read back from the labels of a batch.

    Attributes:
        name: "true title" or "distilled title".
        tokens: the text of each token that the loss counts, special tokens included.
    """

    name: str
    text: str
    tokens: tuple[str, ...]


@dataclass(frozen=True)
class RenderedSample:
    """A training sample as text, special tokens included.

    Attributes:
        prompt: what the model reads and the loss leaves out.
        items, dropped_items: titles of the history in the prompt, and those that did not fit.
    """

    user_id: str
    prompt: str
    prompt_tokens: int
    items: int
    dropped_items: int
    completions: tuple[RenderedCompletion, ...]


@dataclass(frozen=True)
class DataSummary:
    """What a run would learn from.

    Attributes:
        windows: per part: "training", "validation", "test".
        available_windows: the same before sampling.
        left_out: training windows that cannot be learned from.
        shortened_prompts: training prompts that lose whole titles to `max_prompt_tokens`.
        dropped_items: titles that these lose in all.
        lengths: of the training prompts, and of each completion.
        samples: the shortest, the median and the longest sample.
    """

    windows: dict[str, int]
    available_windows: dict[str, int]
    left_out: LeftOut
    shortened_prompts: int
    dropped_items: int
    lengths: tuple[Lengths, ...]
    samples: tuple[RenderedSample, ...]


def summarise_data(
    dataset: Dataset, samples: Sequence[Sample], completions: Sequence[str], left_out: LeftOut
) -> DataSummary:
    """Count and show what the samples hold.

    Args:
        samples: one per training window, in the windows' order.
        completions: what each completion of a sample is called.
        left_out: the training windows that the dataset is without.
    """
    split, titles = dataset.split, dataset.catalog.titles
    prompts = [dataset.renderer.render([titles[row] for row in window.history]) for window in split.train]
    dropped = [prompt.dropped for prompt in prompts]
    parts = ("training", "validation", "test")
    by_length = sorted(range(len(samples)), key=lambda at: len(samples[at]))
    return DataSummary(
        windows=dict(zip(parts, map(len, (split.train, split.validation, split.test)), strict=True)),
        available_windows=dict(zip(parts, split.available, strict=True)),
        left_out=left_out,
        shortened_prompts=sum(count > 0 for count in dropped),
        dropped_items=sum(dropped),
        lengths=(
            count_lengths("prompt", [len(sample.prompt_ids) for sample in samples]),
            *(
                count_lengths(name, [len(sample.completions[slot]) for sample in samples])
                for slot, name in enumerate(completions)
            ),
        ),
        samples=tuple(
            RenderedSample(
                user_id=split.train[at].user_id,
                prompt=dataset.renderer.tokenizer.text(samples[at].prompt_ids),
                prompt_tokens=len(samples[at].prompt_ids),
                items=prompts[at].used,
                dropped_items=prompts[at].dropped,
                completions=render_completions(samples[at], completions, dataset.renderer.tokenizer),
            )
            for at in dict.fromkeys(by_length[position] for position in (0, len(samples) // 2, -1))
        ),
    )


def render_completions(
    sample: Sample, names: Sequence[str], tokenizer: TitleTokenizer
) -> tuple[RenderedCompletion, ...]:
    """Read a sample's completions back from the labels that the loss gets, not from what was meant to be learned."""
    batch = collate([sample], pad_id=0)
    learned = [batch.labels[batch.slot == slot].tolist() for slot in range(len(names))]
    return tuple(
        RenderedCompletion(name, tokenizer.text(ids), tuple(tokenizer.text([token]) for token in ids))
        for name, ids in zip(names, learned, strict=True)
    )


def count_lengths(of: str, lengths: Sequence[int]) -> Lengths:
    """Sort lengths into at most ten bins of equal width.

    Example:
        >>> count_lengths("title", [1, 2, 2, 12]).bins[:2]
        (Bin(first=1, last=2, count=3), Bin(first=3, last=4, count=0))
    """
    values = np.asarray(lengths)
    shortest, longest = int(values.min()), int(values.max())
    width = -(-(longest - shortest + 1) // BINS)
    firsts = range(shortest, longest + 1, width)
    counts = np.bincount((values - shortest) // width, minlength=len(firsts))
    median, p95 = (int(np.percentile(values, share, method="inverted_cdf")) for share in (50, 95))
    return Lengths(
        of=of,
        shortest=shortest,
        median=median,
        p95=p95,
        longest=longest,
        bins=tuple(Bin(first, first + width - 1, int(count)) for first, count in zip(firsts, counts, strict=True)),
    )
