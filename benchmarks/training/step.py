"""A training step against the plain ways: two forwards with full logits for SOFT, transformers' Trainer for SFT.

    python -m benchmarks.training.step [--quick] [--threads 1] [--device cpu]

All train LoRA in float32 on the same samples in the same order, in turns within one run; ratios are of medians. With
one thread CPU seconds are counted, which a busy machine changes little; with more, seconds by the clock. Peak memory is
the largest resident size of a process that does one update, model and libraries included. `--quick` takes fewer and
smaller updates and is no measure. `--device cuda` is `benchmarks.training.gpu`.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
from collections.abc import Callable, Mapping
from dataclasses import replace

import torch

from benchmarks.training import gpu
from benchmarks.training.clock import describe_clock
from benchmarks.training.contenders import Contender, Updates, our_sft, our_soft, plain_soft, trainer_sft
from benchmarks.training.exactness import difference
from benchmarks.training.measuring import measure_peak, peak_mib, ratio, take_turns
from benchmarks.training.shapes import LARGE_VOCABULARY, LONG, SHORT, Shape, without_distilled

MODULE = "benchmarks.training.step"
MEASURED_IN_MEMORY: Mapping[str, Callable[[Shape], Contender]] = {"ours": our_soft, "plain": plain_soft}


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--peak-of", choices=(*MEASURED_IN_MEMORY, "loading"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak_of:
        print(_peak_of(arguments.peak_of, _large(arguments.quick)))
    elif arguments.device == "cuda":
        gpu.main(quick=arguments.quick)
    else:
        _compare(arguments.threads, quick=arguments.quick)


def _large(quick: bool) -> Shape:
    return replace(LARGE_VOCABULARY, layers=2, micro_batch=2) if quick else LARGE_VOCABULARY


def _peak_of(name: str, shape: Shape) -> float:
    if name == "loading":
        model = shape.make_model()
        del model
    else:
        MEASURED_IN_MEMORY[name](shape)(shape.draw_updates(1, seed=1))
    return peak_mib()


def _compare(threads: int, *, quick: bool) -> None:
    print(f"{describe_clock()}; float32; load average {os.getloadavg()[0]:.1f}\n")
    large = _large(quick)
    options = ["--threads", str(threads), *(["--quick"] if quick else [])]
    peaks = {name: measure_peak(MODULE, "--peak-of", name, *options) for name in ("loading", *MEASURED_IN_MEMORY)}
    figures = {
        **_speedups("128k", large, updates=1, repeats=1 if quick else 3),
        **_speedups("4k_short", SHORT, updates=1 if quick else 3, repeats=1 if quick else 7),
        **_speedups("4k_long", LONG, updates=1, repeats=1 if quick else 7),
        "soft_128k_memory_ratio": peaks["ours"] / peaks["plain"],
    }
    figures["sft_4k_speedup"] = min(figures["sft_4k_short_speedup"], figures["sft_4k_long_speedup"])
    print(f"\npeak MiB at 128k: {peaks['ours']:.0f} ours, {peaks['plain']:.0f} plain, {peaks['loading']:.0f} loaded")
    differences = [difference(shape, samples=4) for shape in (SHORT, LONG)]
    figures |= {
        "loss_difference": max(it.loss for it in differences),
        "gradient_difference": max(it.gradient for it in differences),
    }
    if not quick:
        figures["gradient_difference_128k"] = difference(large, samples=2).gradient
        figures["gradient_difference_float64"] = difference(replace(LONG, dtype=torch.float64), samples=4).gradient
    print(json.dumps({name: float(f"{value:.3g}") for name, value in figures.items()}))


def _speedups(name: str, shape: Shape, *, updates: int, repeats: int) -> dict[str, float]:
    """Time SOFT and SFT at one shape, print a line per contender, return the ratios."""
    soft: Updates = shape.draw_updates(updates, seed=1)
    sft: Updates = [without_distilled(samples) for samples in soft]
    seconds = take_turns(
        {
            "SOFT ours": (our_soft(shape), soft),
            "SOFT plain": (plain_soft(shape), soft),
            "SFT ours": (our_sft(shape), sft),
            "SFT Trainer": (trainer_sft(shape), sft),
        },
        repeats=repeats,
    )
    for contender, values in seconds.items():
        print(
            f"{name:<9} {contender:<12} {statistics.median(values):8.3f} s per update "
            f"({min(values):.3f} to {max(values):.3f}, {repeats} turns of {updates})",
            flush=True,
        )
    return {
        f"soft_{name}_speedup": ratio(seconds["SOFT plain"], seconds["SOFT ours"]),
        f"sft_{name}_speedup": ratio(seconds["SFT Trainer"], seconds["SFT ours"]),
    }


if __name__ == "__main__":
    main()
