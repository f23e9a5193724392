"""Two CPU processes against one, by the product's own launch files and commands; killed and stopped on the way.

An update's gradient is a sum over its windows; two processes, each with half of them, add in another order than one.
Float32 rounds such sums differently in the seventh digit. Adam divides by the gradient's own size, so where that is
nearly zero the difference grows from update to update: 1e-5 of a loss is asked for after a run's few dozen.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
from safetensors.torch import load_file

from index.ranking.grounding import Grounder
from index.workspace import Workspace
from tests import parallel_updates
from tests.shop import SETTINGS, add_index, settings_arguments
from training.adapter import read_adapter
from training.progress import Silence
from training.recipes.methods import SFT, find_method, train

ROOT = Path(__file__).parents[2]
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
ON_CPU = {"ACCELERATE_USE_CPU": "true"}
# 81 windows in updates of 8: the last one has a single window, and one process nothing to do
CHANGES: dict[str, Any] = {"train_windows": 81, "micro_batch_size": 2, "checkpoint_every": 3}


def accelerate(config: str) -> list[str]:
    config_path = str(ROOT / "training" / "parallel" / "launch" / config)
    return ["-m", "accelerate.commands.launch", "--config_file", config_path, "--main_process_port", "0"]


@contextmanager
def launched(arguments: list[str], **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A launcher with its processes; none of them is left when the context closes."""
    process = subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill(family(process))
        process.communicate()


def family(process: subprocess.Popen[str]) -> list[psutil.Process]:
    """A launcher and what it started; a launcher gives each of its processes a session of its own."""
    try:
        parent = psutil.Process(process.pid)
        return [parent, *parent.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=30)


def finish(process: subprocess.Popen[str]) -> str:
    said, _ = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return said


def rows_of(log: Path) -> list[dict[str, Any]]:
    """A run's log without the time that it took; a line that is being written does not count."""
    lines = log.read_text().splitlines(keepends=True) if log.is_file() else []
    rows = [json.loads(line) for line in lines if line.endswith("\n")]
    return [{name: value for name, value in row.items() if name != "train_s"} for row in rows]


def wait_for_updates(process: subprocess.Popen[str], log: Path, n: int) -> None:
    while sum(row["event"] == "update" for row in rows_of(log)) < n:
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.01)


@dataclass
class Story:
    """What was seen of two processes that were killed in SFT, stopped in SOFT, and came to the end.

    Attributes:
        killed: the log of SFT when all processes were killed.
        stopped: the log of SOFT when they had ended after SIGTERM.
        said: what the launch that SIGTERM ended said.
        left: processes that outlived it.
        went_on: what the last launch said.
    """

    shop: Workspace
    grounder: Grounder
    killed: list[dict[str, Any]]
    stopped: list[dict[str, Any]]
    exit_code: int
    said: str
    left: list[psutil.Process]
    went_on: str

    def log(self, name: str) -> list[dict[str, Any]]:
        return rows_of(self.shop.adapter_dir(name) / "metrics.jsonl")


@pytest.fixture(scope="module")
def story(based_shop: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Story:
    root = tmp_path_factory.mktemp("processes") / "shop"
    shutil.copytree(based_shop.root, root)
    shop = Workspace.open(root)
    grounder = add_index(shop)
    command = ["-m", "clients", "train", "soft", str(root), *settings_arguments(**CHANGES)]
    with launched([*TORCHRUN, *command], **ON_CPU) as process:
        wait_for_updates(process, shop.run_dir("sft") / "metrics.jsonl", 8)
        kill(family(process))
    killed = rows_of(shop.run_dir("sft") / "metrics.jsonl")
    with launched([*TORCHRUN, *command], **ON_CPU) as process:
        wait_for_updates(process, shop.run_dir("soft") / "metrics.jsonl", 5)
        members = family(process)
        process.send_signal(signal.SIGTERM)
        said, _ = process.communicate(timeout=60)
    stopped = rows_of(shop.run_dir("soft") / "metrics.jsonl")
    left = [member for member in members if member.is_running()]
    with launched([*accelerate("ddp.yaml"), *command], **ON_CPU) as last:
        went_on = finish(last)
    return Story(shop, grounder, killed, stopped, process.returncode, said, left, went_on)


def test_two_processes_that_are_killed_go_on_to_the_same_rows(story):
    """What was logged after the last checkpoint, before the kill, happened again: to the last bit."""
    assert len(story.killed) >= 8
    assert story.log("sft")[: len(story.killed)] == story.killed


def test_sigterm_to_the_launcher_saves_and_leaves_no_process(story):
    assert story.exit_code != 0
    assert "stopped by SIGTERM; the run is saved" in story.said
    assert story.left == []
    updates = sum(row["event"] == "update" for row in story.stopped)
    assert f"epoch 1, {updates} updates done" in story.went_on
    assert story.log("soft")[: len(story.stopped)] == story.stopped


def test_only_one_process_publishes(story):
    assert {path.name for path in story.shop.adapters_dir.iterdir()} == {"sft", "soft"}
    assert not list((story.shop.root / "runs").glob("*"))
    assert story.went_on.count("adapter: soft@") == 1


def same_figures(ours: list[dict[str, Any]], theirs: list[dict[str, Any]]) -> bool:
    """Every loss, HR@10, d_t and tau to 1e-5; see the module's docstring. Gradient norms to 1e-3."""
    assert [row.keys() for row in ours] == [row.keys() for row in theirs]
    return all(
        row[name]
        == (pytest.approx(value, rel=1e-3 if name == "grad_norm" else 1e-5) if type(value) is float else value)
        for row, other in zip(ours, theirs, strict=True)
        for name, value in other.items()
    )


@pytest.mark.parametrize("name", ["sft", "soft"])
def test_two_processes_learn_what_one_learns(story, name, tmp_path):
    """SOFT from the same teacher and the same distilled titles: of two beams that score the same, rounding chooses."""
    root = tmp_path / "shop"
    shutil.copytree(story.shop.root, root)
    shop = Workspace.open(root)
    shutil.rmtree(shop.adapter_dir(name))
    alone = train(find_method(name), shop, replace(SETTINGS, **CHANGES), story.grounder, Silence())
    assert same_figures(story.log(name), rows_of(alone.path / "metrics.jsonl"))
    ours = read_adapter(story.shop.adapter_dir(name))
    log_probs = [golden.log_prob for golden in alone.golden]
    assert [golden.log_prob for golden in ours.golden] == pytest.approx(log_probs, rel=1e-4)


@pytest.fixture(scope="module")
def alone() -> dict[str, Any]:
    return parallel_updates.learn_and_write()


@pytest.mark.parametrize(
    ("config", "layout", "share"),
    [
        ("fsdp.yaml", "2 FSDP", 0.5),
        pytest.param(
            "deepspeed.yaml",
            "2 DEEPSPEED",
            1.0,
            marks=pytest.mark.skipif(find_spec("deepspeed") is None, reason="deepspeed is not installed"),
        ),
    ],
)
def test_a_divided_model_learns_and_writes_what_a_whole_one_does(config, layout, share, alone, story, tmp_path):
    """FSDP halves what a process holds; titles, updates, a restored state and a published adapter stay the same."""
    shutil.copytree(story.shop.root, tmp_path / "shop")
    shop = Workspace.open(tmp_path / "shop")
    shutil.rmtree(shop.adapter_dir("sft"))
    softrec = ["train", "sft", str(shop.root), *settings_arguments(SFT, **CHANGES)]
    program = [*accelerate(config), "-m", "tests.parallel_updates", str(tmp_path)]
    with launched([*program, *softrec], DS_ACCELERATOR="cpu") as process:
        finish(process)
    for rank in range(2):
        seen = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert seen["layout"] == layout
        assert seen["held"] == share * alone["held"]
        assert seen["titles"] == alone["titles"]
        assert same_figures(seen["figures"], alone["figures"])
        assert seen["bf16"][0]["loss"] == pytest.approx(alone["bf16"][0]["loss"], rel=1e-2)
        assert seen["resumed"] == seen["figures"][2:]
        assert seen["weights"].keys() == alone["weights"].keys()
        assert all(torch.equal(seen["resumed_weights"][name], weight) for name, weight in seen["weights"].items())
    assert same_figures(rows_of(shop.adapter_dir("sft") / "metrics.jsonl"), story.log("sft"))
    ours, theirs = (load_file(at.adapter_dir("sft") / "adapter_model.safetensors") for at in (shop, story.shop))
    assert {name: weight.shape for name, weight in ours.items()} == {name: theirs[name].shape for name in theirs}
    golden, expected = (read_adapter(at.adapter_dir("sft")).golden for at in (shop, story.shop))
    assert [a.log_prob for a in golden] == pytest.approx([b.log_prob for b in expected], rel=1e-4)
