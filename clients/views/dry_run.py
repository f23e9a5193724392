"""A dry run on a terminal, or as plain text: the loss mask is readable without colours too."""

from __future__ import annotations

import sys
from collections.abc import Iterator

from rich.console import Console
from rich.text import Text

from training.preflight.cost import Part
from training.preflight.data_summary import DataSummary, Lengths, RenderedSample
from training.preflight.dry_run import DryRun

BAR = 40  # letters of the longest bar
OPEN, CLOSE = ">>>", "<<<"  # around what the loss counts
GIB = 1 << 30


def show_data(data: DataSummary) -> None:
    """Print samples, lengths and counts on standard output; colours only on a terminal."""
    console = _open_console()
    for number, sample in enumerate(data.samples, 1):
        console.print(_sample(sample, f"sample {number} of {len(data.samples)}"))
    for lengths in data.lengths:
        console.print(Text("\n".join(_histogram(lengths)) + "\n"))
    console.print(Text("\n".join(_data(data))))


def show_costs(run: DryRun) -> None:
    """Print what the run would take, likewise."""
    _open_console().print(Text("\n".join(_cost(run))))


def _open_console() -> Console:
    return Console(file=sys.stdout, highlight=False, soft_wrap=True)


def _sample(sample: RenderedSample, heading: str) -> Text:
    dropped = f", {sample.dropped_items} dropped" if sample.dropped_items else ""
    text = Text()
    text.append(f"{heading}: user {sample.user_id}, {sample.items} items{dropped}\n", style="bold")
    text.append(f"prompt, {sample.prompt_tokens} tokens, no loss:\n")
    text.append(_indented(sample.prompt), style="dim")
    for completion in sample.completions:
        text.append(f"\n{completion.name}, {len(completion.tokens)} tokens, loss on each:\n")
        text.append(_indented(f"{OPEN}{completion.text}{CLOSE}"), style="bold green")
        text.append("\n    " + "".join(f"[{_visible(token)}]" for token in completion.tokens), style="green")
    text.append("\n")
    return text


def _indented(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.split("\n"))


def _visible(token: str) -> str:
    return token.replace("\n", "\\n")


def _histogram(lengths: Lengths) -> Iterator[str]:
    yield (
        f"{lengths.of} tokens: shortest {lengths.shortest}, median {lengths.median}, 95 % at most {lengths.p95}, "
        f"longest {lengths.longest}"
    )
    most, width = max(entry.count for entry in lengths.bins), len(str(lengths.bins[-1].last))
    for entry in lengths.bins:
        bar = "█" * -(-entry.count * BAR // most)
        yield f"    {entry.first:>{width}} - {entry.last:>{width}}  {entry.count:>7,}  {bar}".rstrip()


def _data(data: DataSummary) -> Iterator[str]:
    for part, count in data.windows.items():
        available = data.available_windows[part]
        yield f"{part} windows: {count:,}" + (f" of {available:,}" if available != count else "")
    left = data.left_out
    yield (
        f"training windows left out: {left.total:,} "
        f"(title too long {left.too_long:,}, title that the tokenizer cannot spell {left.garbled:,}, "
        f"history that does not fit {left.without_history:,})"
    )
    yield (
        f"prompts that lose whole items to max_prompt_tokens: {data.shortened_prompts:,}, "
        f"{data.dropped_items:,} items in all"
    )


def _cost(run: DryRun) -> Iterator[str]:
    updates = run.updates
    share = updates.trainable_parameters / updates.parameters
    yield f"trainable parameters: {updates.trainable_parameters:,} of {updates.parameters:,} ({share:.2%})"
    for name, measured in (("typical", updates.typical), ("longest", updates.longest)):
        yield f"{name} update: {measured.samples} windows, {measured.tokens:,} tokens, {_duration(measured.seconds)}"
    for part in run.parts:
        yield f"{part.what}: {_arithmetic(part)} = {_duration(part.total_seconds)}"
    yield f"in all, for {run.max_epochs} epochs: {_duration(run.total_seconds)} on {run.device}"
    what = "allocated on the GPU" if run.device == "cuda" else "resident in this process"
    yield f"memory at its peak: {run.peak_memory_bytes / GIB:.2f} GiB {what}"
    yield from (f"note: {note}" for note in run.notes)


def _arithmetic(part: Part) -> str:
    rounds = f"{part.rounds} x " if part.rounds > 1 else ""
    return f"{rounds}{part.count:,} {part.unit}s x {_duration(part.seconds)}"


def _duration(seconds: float) -> str:
    """A duration in the unit that suits it.

    Example:
        >>> [_duration(seconds) for seconds in (0.0123, 3.21, 130, 7260)]
        ['12 ms', '3.2 s', '2 min 10 s', '2 h 1 min']
    """
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.01 else f"{seconds * 1000:.1f} ms"
    if seconds < 100:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
