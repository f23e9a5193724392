"""What was launched but cannot be trained with is refused, with the launch file that can."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from accelerate.commands.config.config_args import load_config_from_file
from accelerate.utils import DistributedType
from torch.distributed.fsdp import CPUOffloadPolicy, OffloadPolicy

from training.errors import TrainingError
from training.parallel import processes
from training.parallel.processes import Processes, check_launch

LAUNCH = processes.__file__.replace("processes.py", "launch")


def accelerator(kind: DistributedType, *, count: int = 2, **plugins: Any) -> Any:
    state = SimpleNamespace(**{name: SimpleNamespace(**fields) for name, fields in plugins.items()})
    return SimpleNamespace(distributed_type=kind, num_processes=count, state=state)


def fsdp(version: int, *, offload: OffloadPolicy | None = None, on_main_only: bool = False) -> Any:
    plugin = {"fsdp_version": version, "cpu_ram_efficient_loading": on_main_only, "cpu_offload": offload}
    return accelerator(DistributedType.FSDP, fsdp_plugin=plugin)


def zero(stage: int, offload: str) -> Any:
    plugin = {"zero_stage": stage, "offload_optimizer_device": offload}
    return accelerator(DistributedType.DEEPSPEED, deepspeed_plugin=plugin)


@pytest.fixture(autouse=True)
def two_processes(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")


@pytest.mark.parametrize(
    "launch",
    [
        accelerator(DistributedType.MULTI_CPU),
        accelerator(DistributedType.MULTI_GPU),
        fsdp(2, offload=OffloadPolicy()),
        zero(2, "none"),
    ],
)
def test_what_the_launch_files_ask_for_is_taken(launch):
    check_launch(launch)


@pytest.mark.parametrize(
    ("launch", "message"),
    [
        (
            accelerator(DistributedType.NO, count=1),
            r"2 processes were launched, but accelerate sees 1: each would train alone; .*ACCELERATE_USE_CPU=true",
        ),
        (fsdp(1), r"fsdp_version: 1 was asked for, but only 2 is supported; see training/parallel/launch/fsdp\.yaml"),
        (fsdp(2, offload=CPUOffloadPolicy()), "fsdp_offload_params: true was asked for, but only false is supported"),
        (fsdp(2, on_main_only=True), "fsdp_cpu_ram_efficient_loading: true was asked for, but only false"),
        (
            zero(3, "none"),
            r"ZeRO stage 3 .*only stages 1 and 2 .*/launch/deepspeed\.yaml; fsdp\.yaml shards",
        ),
        (zero(2, "cpu"), r"ZeRO stage 2 with the optimizer on cpu .* without offloading are supported"),
        (accelerator(DistributedType.MEGATRON_LM), r"MEGATRON_LM was asked for"),
    ],
)
def test_anything_else_is_refused(launch, message):
    with pytest.raises(TrainingError, match=message):
        check_launch(launch)


def test_fsdp_that_accelerate_turns_into_ddp_is_refused(monkeypatch):
    """As on a CPU, where accelerate says nothing."""
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    with pytest.raises(TrainingError, match=r"FSDP was asked for.*on several GPUs only.*/launch/ddp\.yaml"):
        check_launch(accelerator(DistributedType.MULTI_CPU))


def test_one_process_shares_with_nobody(monkeypatch):
    monkeypatch.delenv("WORLD_SIZE")
    alone = Processes()
    assert (alone.count, alone.rank, alone.is_main, alone.layout) == (1, 0, True, "1")
    assert alone.gather(alone.share([3, 1, 2])) == [3, 1, 2]
    assert alone.on_main(lambda: 4) == 4
    assert alone.sum([1.5, 2.0]) == [1.5, 2.0]


@pytest.mark.parametrize(("name", "kind"), [("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("deepspeed", "DEEPSPEED")])
def test_launch_files_are_what_accelerate_reads(name, kind):
    """accelerate refuses a key that it does not know."""
    config = load_config_from_file(f"{LAUNCH}/{name}.yaml")
    assert config.distributed_type == kind
    assert config.mixed_precision == "no"
