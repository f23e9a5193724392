"""A program: a small LoRA learns and writes titles, in however many processes it was launched with.

    accelerate launch --config_file training/parallel/launch/fsdp.yaml \\
        -m tests.parallel_updates FOLDER [train sft SHOP ...]

Every process leaves what it saw in FOLDER/<rank>.pt; then they run the softrec command that follows, if one does.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from accelerate.state import PartialState
from accelerate.utils import DistributedType

from tests.random_llama import random_llama
from training.generation.beam import generate
from training.loop.update import Updater
from training.model.batches import Sample
from training.model.language_model import CompletionScorer, add_lora
from training.parallel.processes import Processes
from training.recipes.sft.recipe import sft_loss
from training.settings import TrainSettings

SETTINGS = replace(TrainSettings(), micro_batch_size=2, warmup_steps=1, learning_rate=1e-2, lora_dropout=0.0)
SAMPLES = [Sample((7 + at, 8, 9 + at)[: 1 + at % 3], ((20 + at, 30 + at, 1)[at % 2 :],)) for at in range(10)]
# the last update is smaller than the number of processes: one of them has nothing to do
UPDATES = [SAMPLES[:5], SAMPLES[5:9], SAMPLES[9:], SAMPLES[2:8]]
PROMPTS = [sample.prompt_ids for sample in SAMPLES[:5]]


def use_cpu() -> None:
    """Let accelerate use FSDP and DeepSpeed on the CPU: they work there, but it has them for accelerators only."""
    PartialState(cpu=True).distributed_type = DistributedType.MULTI_GPU


class Learner:
    """A model and its updates, made again; the same weights in every process.

    Args:
        dtype: of the base; what learns is float32.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.processes = Processes()
        self.model = add_lora(random_llama(60, num_hidden_layers=3).to(dtype), SETTINGS)
        self.updater = Updater(self.processes, CompletionScorer(self.model), SETTINGS)

    def learn(self, steps: Sequence[int]) -> list[dict[str, float]]:
        return [self.updater.update(sft_loss, (0,), UPDATES[step], step=step + 1) for step in steps]

    def write(self, prompts: Sequence[tuple[int, ...]]) -> list[tuple[int, ...]]:
        """Titles as a measurement writes them: every process its share, of its own length."""
        with self.updater.whole():
            generations = generate(
                self.model.eval(), self.processes.share(prompts), beams=2, max_new_tokens=6, end_id=1, batch_size=2
            )
        return [generation.ids for generation in self.processes.gather(generations)]


def learn_and_write() -> dict[str, Any]:
    """Write, learn, write, learn; then learn again from the state in between."""
    learner = Learner()
    titles = [learner.write(PROMPTS)]  # before any update, as d_0 is measured
    figures = learner.learn([0])
    titles.append(learner.write(PROMPTS[:1]))  # one of two processes writes nothing
    figures += learner.learn([1])
    state = learner.updater.state()
    titles.append(learner.write(PROMPTS))
    figures += learner.learn([2, 3])
    weights = learner.updater.weights()
    again = Learner()
    again.updater.restore(state)
    resumed = again.learn([2, 3])
    return {
        "layout": learner.processes.layout,
        "held": sum(weight.numel() for weight in _held(learner.model)),
        "figures": figures,
        "titles": titles,
        "weights": weights,
        "resumed": resumed,
        "resumed_weights": again.updater.weights(),
        "bf16": Learner(torch.bfloat16).learn([0]),
    }


def _held(model: torch.nn.Module) -> list[torch.Tensor]:
    """What this process holds of the weights."""
    return [weight.to_local() if hasattr(weight, "to_local") else weight for weight in model.parameters()]


if __name__ == "__main__":
    folder, *sys.argv[1:] = sys.argv[1:]
    if os.environ.get("ACCELERATE_USE_CPU") != "true":
        use_cpu()
    torch.save(learn_and_write(), Path(folder) / f"{Processes().rank}.pt")
    if sys.argv[1:]:
        from clients.__main__ import main

        main()
