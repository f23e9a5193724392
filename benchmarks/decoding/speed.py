"""How long a request takes in each way of writing titles, what the trie costs in a step, and scoring every title.

    python -m benchmarks.decoding.speed [--quick] [--workspace SHOP]

All contenders write for the same prompts with the same adapter in one engine, in turns within one run: every prompt by
each, one request at a time, and then eight at once. Ratios are of medians of seconds by the clock. The plain beam
search is a loop above `AsyncLLM` as vLLM's own server has it (`benchmarks.decoding.loops`). The exact scorer is
measured without the engine (`benchmarks.decoding.scorer`).

Without a workspace a base and an adapter are trained on the demo's shop first, for a minute or two. `--quick` trains
less and takes few prompts; it is no measure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.decoding.scorer import measure_scorer
from benchmarks.decoding.trie_step import seconds_per_step, synthetic_trie
from clients.commands.index import open_index
from clients.commands.init import init_shop
from clients.demo_shop import write_demo_shop
from index.workspace import Workspace
from serving.engine.engine import ConstrainedGeneration
from serving.engine.title_tries import TitleTries
from serving.service import open_vllm
from serving.settings import ServingSettings
from training.adapter import read_adapter
from training.data.dataset import load_dataset
from training.progress import Silence
from training.recipes.methods import SFT, train
from training.recipes.stand_in import StandInSettings, train_stand_in
from training.settings import TrainSettings

SETTINGS = TrainSettings()
PROMPTS, AT_ONCE, WIDTHS = 40, 8, (5, 10, 20)
LARGE = 1_000_000  # titles of the synthetic trie

Prompt = Sequence[int]
Contenders = Mapping[str, Callable[[Prompt, str], Awaitable[Any]]]  # (prompt, request id)


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--workspace", type=Path, help="a shop whose base and adapter write (default: the demo's)")
    parser.add_argument("--adapter", default="sft", help="which adapter of the workspace")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.workspace:
            workspace = Workspace.open(arguments.workspace)
        else:
            workspace = _train_demo_shop(Path(folder) / "shop", quick=arguments.quick)
        figures = asyncio.run(_measure(workspace, arguments.adapter, quick=arguments.quick))
        figures |= measure_scorer(workspace, arguments.adapter, prompts=1 if arguments.quick else 5)
    print(json.dumps({name: float(f"{value:.3g}") for name, value in figures.items()}))


def _train_demo_shop(root: Path, *, quick: bool) -> Workspace:
    source = root / "source"
    write_demo_shop(source, users=120 if quick else 600)
    workspace = init_shop(
        root, items=source / "items.csv", interactions=source / "interactions.csv", noun="title", verb="enjoyed"
    )
    settings = replace(SETTINGS, train_windows=256 if quick else 2048, max_epochs=1)
    train_stand_in(workspace, settings, Silence(), stand_in=StandInSettings(max_tokens=100_000 if quick else 600_000))
    train(SFT, workspace, settings, open_index(workspace, Silence()).grounder, Silence())
    return workspace


async def _measure(workspace: Workspace, adapter_name: str, *, quick: bool) -> dict[str, float]:
    dataset = load_dataset(workspace, SETTINGS, Silence())
    adapter = read_adapter(workspace.adapter_dir(adapter_name))
    renderer = dataset.base.renderer(adapter.facts.template)
    prompts = dataset.prompts(dataset.split.test)[: 4 if quick else PROMPTS]
    tries = TitleTries.open(workspace.index_dir, dataset.catalog, renderer)
    engine: Any = await open_vllm(
        dataset.base, [adapter], ServingSettings(width=max(WIDTHS), decoding="constrained_beam")
    )
    try:
        contenders = _contenders(engine, adapter.adapter_id, renderer.max_new_tokens, renderer.end_id, tries)
        alone, proven = await _one_at_a_time(contenders, prompts)
        together = await _at_once(contenders, prompts, turns=1 if quick else 5)
        step = {beams: await _decoding_step(engine, adapter.adapter_id, prompts, beams) for beams in (10, 20)}
    finally:
        await engine.close()
    lengths = sorted(map(len, prompts))
    print(
        f"\n{len(prompts)} prompts of {lengths[0]} to {lengths[-1]} tokens, {tries.n_rows} titles; "
        f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores\n"
    )
    print(f"{'':<22} {'one at a time':>14} {f'{AT_ONCE} at once, each':>18} {'proven the best':>17}")
    for name in contenders:
        one, each = (statistics.median(taken[name]) * 1000 for taken in (alone, together))
        share = f"{proven[name]:17.2f}" if name in proven else ""
        print(f"{name:<22} {one:11.1f} ms {each:15.1f} ms {share}")
    figures = {
        f"constrained{width}_vs_beam4": _ratio(alone, f"constrained {width}", "plain beam 4") for width in WIDTHS
    }
    figures |= {f"proven{width}": proven[f"constrained {width}"] for width in WIDTHS}
    figures |= {
        "constrained10_vs_beam4_at_once": _ratio(together, "constrained 10", "plain beam 4"),
        "naive10_vs_constrained10": _ratio(alone, "naive constrained 10", "constrained 10"),
        **_trie_step_share(tries, step, engine_vocabulary=engine._vocab_size, quick=quick),
    }
    return figures


def _contenders(engine: Any, adapter_id: str, max_new_tokens: int, end_id: int, tries: TitleTries) -> Contenders:
    from benchmarks.decoding.loops import naive_constrained_beam, plain_beam  # vLLM, after its environment is set

    titles, lora = tries.allowed_titles(), engine._loras[adapter_id]
    loop = {"lora": lora, "max_new_tokens": max_new_tokens, "end_id": end_id}

    def constrained(width: int) -> Callable[[Prompt, str], Awaitable[Any]]:
        return lambda prompt, name: engine.write_titles(
            prompt, titles, adapter_id=adapter_id, width=width, k=10, max_new_tokens=max_new_tokens, request_id=name
        )

    return {
        "greedy": lambda prompt, name: engine.generate(
            prompt, adapter_id=adapter_id, max_new_tokens=max_new_tokens, request_id=name
        ),
        "plain beam 4": lambda prompt, name: plain_beam(engine._llm, prompt, width=4, **loop),
        **{f"constrained {width}": constrained(width) for width in WIDTHS},
        "naive constrained 10": lambda prompt, name: naive_constrained_beam(
            engine._llm, prompt, titles.allowed, width=10, **loop
        ),
    }


async def _one_at_a_time(
    contenders: Contenders, prompts: Sequence[Prompt]
) -> tuple[dict[str, list[float]], dict[str, float]]:
    """Seconds per request, the first prompt warming each up; and how often the titles are proven to be the best ten."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    proven: dict[str, list[bool]] = {}
    for number, prompt in enumerate([prompts[0], *prompts]):
        for name, write in contenders.items():
            started = time.perf_counter()
            result = await write(prompt, f"{name}-{number}")
            if number:
                taken[name].append(time.perf_counter() - started)
                if isinstance(result, ConstrainedGeneration):
                    proven.setdefault(name, []).append(result.found.is_proven)
    return taken, {name: statistics.mean(answers) for name, answers in proven.items()}


async def _at_once(contenders: Contenders, prompts: Sequence[Prompt], *, turns: int) -> dict[str, list[float]]:
    """Seconds per request where several run at the same time, by the turn."""
    taken: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(turns):
        some = [prompts[(turn * AT_ONCE + at) % len(prompts)] for at in range(AT_ONCE)]
        for name, write in contenders.items():
            started = time.perf_counter()
            await asyncio.gather(*(write(prompt, f"{name}-{turn}-{at}-once") for at, prompt in enumerate(some)))
            taken[name].append((time.perf_counter() - started) / AT_ONCE)
    return taken


async def _decoding_step(engine: Any, adapter_id: str, prompts: Sequence[Prompt], beams: int) -> float:
    """Seconds of a decoding step with so many requests in the batch: what 40 more tokens take, by the token."""

    async def seconds(tokens: int, turn: int) -> float:
        started = time.perf_counter()
        forced = [5] * tokens  # whatever they are, all requests write as many
        await asyncio.gather(
            *(
                engine.log_prob(prompts[(at + turn) % len(prompts)], forced, adapter_id=adapter_id)
                for at in range(beams)
            )
        )
        return time.perf_counter() - started

    return statistics.median([(await seconds(50, turn) - await seconds(10, turn)) / 40 for turn in range(5)])


def _trie_step_share(
    tries: TitleTries, step: Mapping[int, float], *, engine_vocabulary: int, quick: bool
) -> dict[str, float]:
    """Seconds of the trie step over those of a decoding step: the largest of all, and each."""
    [trie] = [one.trie for one in tries.allowed_titles().allowed.tries]
    large = synthetic_trie(LARGE // 100 if quick else LARGE, engine_vocabulary)
    shares = {}
    for name, one in (("catalog", trie), ("1m", large)):
        for beams, seconds in step.items():
            taken = seconds_per_step(one, beams, engine_vocabulary, repeats=5 if quick else 40)
            shares[f"trie_step_share_{name}_{beams}"] = taken / seconds
            print(
                f"trie step, {len(one.rows)} titles, {beams} beams: {taken * 1e6:.0f} us "
                f"of a decoding step of {seconds * 1e3:.2f} ms"
            )
    return {"trie_step_share": max(shares.values()), **shares}


def _ratio(taken: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    return statistics.median(taken[one]) / statistics.median(taken[other])


if __name__ == "__main__":
    main()
