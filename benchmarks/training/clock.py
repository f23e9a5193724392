"""Seconds that other work on the machine changes little, where such can be had."""

from __future__ import annotations

import time

import torch


def _counts_cpu_seconds() -> bool:
    """With one thread, what the CPU did for this process is what it would take alone."""
    return torch.get_num_threads() == 1 and not torch.cuda.is_available()


def seconds() -> float:
    """CPU seconds of this process with one thread; with more, or with a GPU, seconds by the clock."""
    if _counts_cpu_seconds():
        return time.process_time()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def describe_clock() -> str:
    """Say how many threads there are and what `seconds` counts."""
    clock = "CPU seconds" if _counts_cpu_seconds() else "seconds by the clock"
    return f"threads: {torch.get_num_threads()}; {clock}"
