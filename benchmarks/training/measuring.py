"""How contenders are compared: in turns within one run, medians against medians, memory in a process of its own."""

from __future__ import annotations

import resource
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence

from benchmarks.training.contenders import Contender, Updates


def take_turns(contenders: Mapping[str, tuple[Contender, Updates]], *, repeats: int) -> dict[str, list[float]]:
    """Let each contender train in turn, `repeats` times; returns seconds per update. One sample warms each up first."""
    for contender, updates in contenders.values():
        contender([updates[0][:1]])
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(repeats):
        for name, (contender, updates) in contenders.items():
            seconds[name].append(contender(updates) / len(updates))
    return seconds


def ratio(slow: Sequence[float], fast: Sequence[float]) -> float:
    """Ratio of medians: how many times as long the slow one takes."""
    return statistics.median(slow) / statistics.median(fast)


def peak_mib() -> float:
    """Largest resident size of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure_peak(module: str, *arguments: str) -> float:
    """Run `python -m module arguments` in a process of its own; its last line is its peak in MiB."""
    result = subprocess.run([sys.executable, "-m", module, *arguments], check=True, stdout=subprocess.PIPE, text=True)
    return float(result.stdout.splitlines()[-1])
