"""Run the `softrec` command stage by stage; wall time and peak memory come from the operating system."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Stage:
    """What one command took: seconds by the clock, and the largest resident size of it or a child of it, in MiB."""

    name: str
    wall_s: float
    peak_mib: float


def run_stage(name: str, arguments: Sequence[str]) -> Stage:
    """Run `softrec ARGUMENTS` and wait for it. Its output goes through; a failure ends the benchmark."""
    print(f"--- {name}: softrec {' '.join(arguments)}", flush=True)
    started = time.perf_counter()
    process = subprocess.Popen([str(Path(sys.executable).with_name("softrec")), *arguments])
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{name} failed with exit code {process.returncode}")
    return Stage(name, time.perf_counter() - started, usage.ru_maxrss / 1024)


def report(stages: Sequence[Stage], **figures: object) -> None:
    """Print the stages as a table and, last, one JSON line: seconds and peak per stage, their total, and `figures`."""
    print(f"\n{'stage':<12} {'wall s':>8} {'peak MiB':>9}")
    for stage in stages:
        print(f"{stage.name:<12} {stage.wall_s:>8.1f} {stage.peak_mib:>9.0f}")
    total = sum(stage.wall_s for stage in stages)
    peak = max(stage.peak_mib for stage in stages)
    print(f"{'total':<12} {total:>8.1f} {peak:>9.0f}\n")
    seconds = {f"{stage.name}_s": round(stage.wall_s, 1) for stage in stages}
    print(json.dumps({**seconds, "total_s": round(total, 1), "peak_mib": round(peak), **figures}))
