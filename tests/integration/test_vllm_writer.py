"""Titles by vLLM in training: the real engine on the CPU with a small shop, beside `training.generation.beam`."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch

from index.workspace import Workspace
from tests.shop import SETTINGS
from training.data.dataset import Dataset, load_dataset
from training.errors import TrainingError
from training.generation.beam import generate
from training.generation.generation import Generation
from training.generation.vllm.engine import EngineOptions
from training.generation.vllm.writer import VllmWriter
from training.model.language_model import load_base, read_lora
from training.progress import Silence

# other float32 kernels than torch's: measured 4e-6 on titles of 18 tokens, 7e-5 on titles of 66
NATS = 1e-4


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """For the engines: two threads on two busy cores mostly wait for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="module")
def dataset(trained_shop: Workspace) -> Dataset:
    return load_dataset(trained_shop, SETTINGS, Silence())


@pytest.fixture(scope="module")
def models(trained_shop: Workspace, dataset: Dataset) -> dict[str, Any]:
    """The base, bare and with each adapter."""
    adapted = {
        name: read_lora(load_base(dataset.base.path, precision="fp32"), trained_shop.adapter_dir(name))
        for name in ("sft", "soft")
    }
    return adapted | {"base": load_base(dataset.base.path, precision="fp32").eval()}


@pytest.fixture(scope="module")
def task(dataset: Dataset) -> dict[str, Any]:
    """100 prompts of many lengths, and how to continue them: some titles end within 8 tokens, some do not."""
    windows = [*dataset.split.validation, *dataset.split.test, *dataset.split.train][:100]
    return {"prompts": dataset.prompts(windows), "max_new_tokens": 8, "end_id": dataset.renderer.end_id}


@pytest.fixture(scope="module")
def expected(models, task) -> dict[tuple[str, int], list[Generation]]:
    return {(name, beams): generate(models[name], beams=beams, **task) for name in models for beams in (1, 4)}


def options(dataset: Dataset, *, merge: bool) -> EngineOptions:
    longest = SETTINGS.max_prompt_tokens + dataset.renderer.max_new_tokens
    device = torch.device("cpu")
    return EngineOptions("fp32", longest, SETTINGS.lora_rank, merge, device, kv_cache_bytes=64 << 20)


@pytest.fixture(scope="module", params=[True, False], ids=["merged", "beside"])
def writer(dataset: Dataset, request: pytest.FixtureRequest) -> Iterator[VllmWriter]:
    before = set(psutil.Process().children(recursive=True))
    with VllmWriter.open(dataset.base.path, options(dataset, merge=request.param)) as opened:
        yield opened
    opened.close()  # once more
    assert_nothing_is_left(before)


def assert_nothing_is_left(before: set[psutil.Process]) -> None:
    """No process but multiprocessing's own, which it keeps to the end."""
    left = set(psutil.Process().children(recursive=True)) - before
    assert [process for process in left if "resource_tracker" not in " ".join(process.cmdline())] == []


def assert_same(found: list[Generation], expected: list[Generation]) -> None:
    """The same titles, except near ties, which rounding may turn."""
    same = [(one, other) for one, other in zip(found, expected, strict=True) if one.ids == other.ids]
    assert len(same) >= 0.99 * len(expected)
    for one, other in same:
        assert one.log_prob == pytest.approx(other.log_prob, abs=NATS)
        assert one.is_finished == other.is_finished


@pytest.mark.parametrize("beams", [1, 4])
def test_writes_what_each_model_writes_one_after_the_other(writer, models, task, expected, beams):
    for name in ("sft", "base", "soft", "sft"):
        done: list[int] = []
        found = writer.generate(models[name], beams=beams, advance=done.append, **task)
        assert sum(done) == len(found) == 100
        assert_same(found, expected[name, beams])
    titles = [[generation.ids for generation in expected[name, beams]] for name in models]
    assert titles[0] != titles[1] != titles[2] != titles[0]  # or the engine could have kept one model's weights


def test_takes_the_weights_as_they_are_now(writer, models, task, expected):
    """The same model, learning on: its LoRA is halved in place."""
    learning = [weight for name, weight in models["soft"].named_parameters() if "lora_B" in name]
    with torch.no_grad():
        for weight in learning:
            weight.mul_(0.5)
        found = writer.generate(models["soft"], beams=1, **task)
        assert_same(found, generate(models["soft"], beams=1, **task))
        for weight in learning:
            weight.mul_(2.0)  # exact
    assert [generation.ids for generation in found] != [generation.ids for generation in expected["soft", 1]]


def test_a_prompt_too_long_for_the_engine_is_refused_before_it(writer, models, task, expected):
    longest = writer._max_model_len
    with pytest.raises(TrainingError, match=f"prompt 1 has {longest} tokens .* opened for 1 to {longest} in all"):
        writer.generate(models["sft"], beams=1, **task | {"prompts": [[5], [5] * longest]})
    with pytest.raises(TrainingError, match="prompt 0 has 0 tokens"):
        writer.generate(models["sft"], beams=1, **task | {"prompts": [[]]})
    assert writer.generate(models["sft"], beams=1, **task | {"prompts": []}) == []
    assert_same(writer.generate(models["sft"], beams=1, **task), expected["sft", 1])


def test_an_engine_that_is_killed_is_named(writer, models, task):
    """The last test of this engine."""
    os.kill(writer._process.pid, signal.SIGKILL)
    with pytest.raises(TrainingError, match="vLLM engine's process ended with exit code -9; train with --generator"):
        writer.generate(models["sft"], beams=1, **task)


def test_an_engine_that_does_not_start_says_why_and_leaves_nothing(dataset):
    too_long = dataclasses.replace(options(dataset, merge=True), max_model_len=10**6)
    before = set(psutil.Process().children(recursive=True))
    with pytest.raises(TrainingError, match=r"the vLLM engine failed: .*max_model_len"):
        VllmWriter.open(dataset.base.path, too_long)
    assert_nothing_is_left(before)


TRAINING = """
import sys
from pathlib import Path
import torch
from training.model.language_model import load_base
from training.generation.vllm.engine import EngineOptions
from training.generation.vllm.writer import VllmWriter

if __name__ == "__main__":
    base = Path(sys.argv[1])
    options = EngineOptions("fp32", 200, 8, True, torch.device("cpu"), kv_cache_bytes=64 << 20)
    with VllmWriter.open(base, options) as writer:
        writer.generate(
            load_base(base, precision="fp32"), [[5]] * 10_000, beams=4, max_new_tokens=60, end_id=1,
            advance=lambda done: print(writer._process.pid, flush=True),
        )
"""


def test_an_engine_at_work_does_not_outlive_training_that_is_killed(dataset, tmp_path):
    training = subprocess.Popen(
        [sys.executable, "-W", "ignore", "-c", TRAINING, str(dataset.base.path)],
        cwd=Path(__file__).parents[2],
        env={**os.environ, "TMPDIR": str(tmp_path)},  # what the killed leave behind
        stdout=subprocess.PIPE,
    )
    engine = psutil.Process(int(training.stdout.readline()))
    training.kill()
    training.communicate()
    engine.wait(timeout=30)
