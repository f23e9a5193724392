"""SOFT's step on a GPU: a random Llama of Llama-3.2-3B's shape in bfloat16, and the exact attention kernels compared.

Tokens are those of the samples, a prompt counted once and padding not at all, for every contender. Model FLOPs are what
these tokens need: twice the multiplications with the frozen weights, forward and once backward (LoRA needs no gradient
of the weights themselves), the head at completion tokens only. MFU divides them by what the GPU could do meanwhile.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from benchmarks.training.contenders import Contender, Updates, our_soft, plain_soft
from benchmarks.training.shapes import LLAMA_3B, Shape

UPDATES = 6  # timed, after one more
# dense bfloat16, from the data sheets, by a part of torch's name for the device
PEAK_FLOPS: Mapping[str, float] = {"H200": 989e12, "H100": 989e12, "A100": 312e12, "L40S": 362e12, "L4": 121e12}
# flash attention takes no mask, so it cannot keep two completions apart
KERNELS: Mapping[str, Callable[[], AbstractContextManager[object]]] = {
    "torch's choice": nullcontext,
    "efficient": lambda: sdpa_kernel(SDPBackend.EFFICIENT_ATTENTION),
    "cudnn": lambda: sdpa_kernel(SDPBackend.CUDNN_ATTENTION),
    "math": lambda: sdpa_kernel(SDPBackend.MATH),
}


@dataclass(frozen=True)
class Speed:
    """Of one contender's update. mfu is None on a GPU whose peak is not known here."""

    update_s: float
    tokens_per_s: float
    mfu: float | None
    peak_gib: float


def main(*, quick: bool) -> None:
    """Measure, print the table and the JSON line."""
    shape = replace(LLAMA_3B, layers=2, micro_batch=4) if quick else LLAMA_3B
    updates: Updates = shape.draw_updates(UPDATES, seed=1)
    print(f"{torch.cuda.get_device_name()}, {shape.name}, {shape.layers} layers, micro-batch {shape.micro_batch}\n")
    speeds: dict[str, Speed] = {}
    for name, kernel in KERNELS.items():
        try:
            with kernel():
                speeds[name] = _measure(our_soft, shape, updates)
        except RuntimeError as error:  # no such kernel for these shapes
            print(f"ours, {name:<16} {str(error).splitlines()[0]}")
            continue
        _show(f"ours, {name}", speeds[name])
    speeds["plain"] = _measure(plain_soft, shape, updates)
    _show("plain", speeds["plain"])
    ours, plain = speeds["torch's choice"], speeds["plain"]
    figures = {
        "soft_3b_speedup": plain.update_s / ours.update_s,
        "soft_3b_memory_ratio": ours.peak_gib / plain.peak_gib,
        "soft_3b_tokens_per_s": ours.tokens_per_s,
        "soft_3b_mfu": ours.mfu,
        "soft_3b_peak_gib": ours.peak_gib,
        **{f"update_s_{name}": speed.update_s for name, speed in speeds.items()},
    }
    print(json.dumps({name: value and float(f"{value:.3g}") for name, value in figures.items()}))


def _measure(contender: Callable[[Shape, str], Contender], shape: Shape, updates: Updates) -> Speed:
    torch.cuda.empty_cache()
    train = contender(shape, "cuda")
    train(updates[:1])
    torch.cuda.reset_peak_memory_stats()
    update_s = statistics.median(train([update]) for update in updates)
    tokens = statistics.mean(sum(map(len, update)) for update in updates)
    completion_tokens = statistics.mean(
        sum(len(completion) for sample in update for completion in sample.completions) for update in updates
    )
    flops = 4 * (tokens * _body_weights(shape) + completion_tokens * shape.hidden * shape.vocabulary)
    peak = next((flops_s for name, flops_s in PEAK_FLOPS.items() if name in torch.cuda.get_device_name()), None)
    return Speed(
        update_s=update_s,
        tokens_per_s=tokens / update_s,
        mfu=None if peak is None else flops / update_s / peak,
        peak_gib=torch.cuda.max_memory_allocated() / 2**30,
    )


def _body_weights(shape: Shape) -> int:
    """Weights of the matrices between embedding and head."""
    kv = shape.hidden * shape.kv_heads // shape.heads
    return shape.layers * shape.hidden * (2 * shape.hidden + 2 * kv + 3 * shape.intermediate)


def _show(name: str, speed: Speed) -> None:
    mfu = "" if speed.mfu is None else f"MFU {speed.mfu:.1%}"
    print(
        f"{name:<22} {speed.update_s:7.3f} s per update {speed.tokens_per_s:9.0f} tokens/s  {mfu}  "
        f"peak {speed.peak_gib:.1f} GiB",
        flush=True,
    )
