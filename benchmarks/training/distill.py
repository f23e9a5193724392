"""Self-distillation of 4,096 prompts with 4 beams: `training.generation.beam` against transformers' `generate`.

    python -m benchmarks.training.distill [--quick] [--threads 1] [--workspace SHOP]

Both write titles for the same prompts in turns within one run, with the same model, batch size and search (no length
penalty, `early_stopping="never"`); the speed-up is the ratio of medians over the turns. transformers gets what helps
it: prompts sorted by length and padded on the left, the cache on. With one thread CPU seconds are counted, which a busy
machine changes little; with more, seconds by the clock.

Without a workspace a base and a LoRA are trained on the demo's shop first, for a minute or two: titles have to end as
trained ones do. `--quick` trains less and takes 128 prompts; it is no measure.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.training.clock import describe_clock, seconds
from clients.commands.init import init_shop
from clients.demo_shop import write_demo_shop
from index.workspace import Workspace
from training.data.dataset import Dataset, load_dataset
from training.generation.beam import generate
from training.loop.update import Updater
from training.model.batches import update_batches
from training.model.language_model import CompletionScorer, add_lora, load_base, read_lora
from training.parallel.processes import Processes
from training.progress import Silence
from training.recipes.sft.recipe import sft_loss
from training.recipes.stand_in import StandInSettings, train_stand_in
from training.settings import TrainSettings

SETTINGS = TrainSettings()
PROMPTS, TURNS = 4096, 8

Prompts = Sequence[tuple[int, ...]]
Written = list[tuple[int, ...]]  # per prompt, the end token included where it was reached


def main() -> None:
    """Measure, print the table and the JSON line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--workspace", type=Path, help="a shop whose base and adapter write (default: the demo's)")
    parser.add_argument("--adapter", default="sft", help="which adapter of the workspace")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.workspace:
        workspace = Workspace.open(arguments.workspace)
        dataset = load_dataset(workspace, SETTINGS, Silence())
        model = read_lora(load_base(dataset.base.path, precision="fp32"), workspace.adapter_dir(arguments.adapter))
        _compare(model, dataset, quick=arguments.quick)
    else:
        with tempfile.TemporaryDirectory() as folder:
            model, dataset = _train_on_demo_shop(Path(folder) / "shop", quick=arguments.quick)
            _compare(model, dataset, quick=arguments.quick)


def _train_on_demo_shop(root: Path, *, quick: bool) -> tuple[Any, Dataset]:
    """A stand-in base and one epoch of SFT on it; nothing is validated or published."""
    source = root / "source"
    write_demo_shop(source, users=120 if quick else 600)
    workspace = init_shop(
        root, items=source / "items.csv", interactions=source / "interactions.csv", noun="title", verb="enjoyed"
    )
    settings = replace(SETTINGS, train_windows=256 if quick else 2048)
    train_stand_in(workspace, settings, Silence(), stand_in=StandInSettings(max_tokens=100_000 if quick else 600_000))
    dataset = load_dataset(workspace, settings, Silence())
    model = add_lora(load_base(dataset.base.path, precision="fp32"), settings)
    _train_one_epoch(model, dataset, settings)
    return model.eval(), dataset


def _train_one_epoch(model: Any, dataset: Dataset, settings: TrainSettings) -> None:
    windows = dataset.split.train
    samples = dataset.samples(windows, dataset.titles(windows))
    updater = Updater(Processes(), CompletionScorer(model), settings)
    order = update_batches(list(map(len, samples)), batch_size=settings.batch_size, seed=settings.seed)
    for step, indices in enumerate(order, 1):
        updater.update(sft_loss, (0,), [samples[index] for index in indices], step=step)


def _compare(model: Any, dataset: Dataset, *, quick: bool) -> None:
    n, turns = (128, 1) if quick else (PROMPTS, TURNS)
    known = dataset.prompts(dataset.split.train)
    prompts = [known[at % len(known)] for at in range(n)]
    lengths = sorted(map(len, prompts))
    print(
        f"\n{describe_clock()}; {n} prompts of {lengths[0]} to {lengths[-1]} tokens (median "
        f"{lengths[n // 2]}), {SETTINGS.beams} beams, {SETTINGS.decode_batch_size} at once"
    )
    writers: dict[str, Callable[[Prompts], Written]] = {
        "ours": lambda some: _our_titles(model, dataset, some),
        "transformers": lambda some: _transformers_titles(model, dataset, some),
    }
    taken: dict[str, list[float]] = {name: [] for name in writers}
    titles: dict[str, list[str]] = {name: [] for name in writers}
    for write in writers.values():
        write(prompts[:8])  # warm up
    for turn in range(turns):
        for name, write in writers.items():
            started = seconds()
            written = write(prompts[turn::turns])
            taken[name].append(seconds() - started)
            titles[name] += map(dataset.renderer.parse, written)
    for name, values in taken.items():
        print(
            f"{name:<13} {sum(values):8.1f} s; {min(values):.2f} to {max(values):.2f} s a turn of {n // turns} prompts"
        )
    same = sum(a == b for a, b in zip(titles["ours"], titles["transformers"], strict=True)) / n
    speedup = statistics.median(taken["transformers"]) / statistics.median(taken["ours"])
    print(json.dumps({"distill_speedup": float(f"{speedup:.3g}"), "distill_same_titles": same}))


def _our_titles(model: Any, dataset: Dataset, prompts: Prompts) -> Written:
    generations = generate(
        model,
        prompts,
        beams=SETTINGS.beams,
        max_new_tokens=dataset.renderer.max_new_tokens,
        end_id=dataset.renderer.end_id,
        length_penalty=0.0,
        batch_size=SETTINGS.decode_batch_size,
    )
    return [generation.ids for generation in generations]


def _transformers_titles(model: Any, dataset: Dataset, prompts: Prompts) -> Written:
    from transformers import GenerationConfig

    end_id = dataset.renderer.end_id
    config = GenerationConfig(
        num_beams=SETTINGS.beams,
        do_sample=False,
        max_new_tokens=dataset.renderer.max_new_tokens,
        length_penalty=0.0,
        early_stopping="never",
        eos_token_id=end_id,
        pad_token_id=end_id,
        use_cache=True,
    )
    model.get_base_model().generation_config = GenerationConfig()  # load_base takes it away
    order = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    written: dict[int, tuple[int, ...]] = {}
    for begin in range(0, len(order), SETTINGS.decode_batch_size):
        chosen = order[begin : begin + SETTINGS.decode_batch_size]
        width = len(prompts[chosen[-1]])
        padding = [width - len(prompts[index]) for index in chosen]
        ids = [[end_id] * empty + list(prompts[index]) for empty, index in zip(padding, chosen, strict=True)]
        mask = [[0] * empty + [1] * (width - empty) for empty in padding]
        with torch.inference_mode():
            output = model.generate(
                input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), generation_config=config
            )
        for index, row in zip(chosen, output[:, width:].tolist(), strict=True):
            written[index] = tuple(row[: row.index(end_id) + 1] if end_id in row else row)
    return [written[index] for index in range(len(prompts))]


if __name__ == "__main__":
    main()
