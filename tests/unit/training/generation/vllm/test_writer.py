"""What vLLM's process inherits, and what is said where there is no vLLM. The engine itself: tests/integration."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest
import torch

from training.errors import TrainingError
from training.generation.vllm.engine import EngineOptions
from training.generation.vllm.writer import VllmWriter, engine_environment

CPU, TMP = torch.device("cpu"), Path("/tmp/here")


def test_the_engine_is_no_part_of_the_trainers_process_group():
    environ = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "3"}
    chosen = engine_environment(environ, CPU, TMP)
    assert not {"RANK", "WORLD_SIZE", "MASTER_ADDR"} & chosen.keys()
    assert chosen["OMP_NUM_THREADS"] == "3"
    assert chosen["TMPDIR"] == "/tmp/here"
    assert "RANK" in environ


def test_the_engine_starts_no_process_and_what_else_the_operator_set_stays():
    chosen = engine_environment({"VLLM_ENABLE_V1_MULTIPROCESSING": "1", "VLLM_LOGGING_LEVEL": "INFO"}, CPU, TMP)
    assert chosen["VLLM_ENABLE_V1_MULTIPROCESSING"] == "0"
    assert chosen["VLLM_LOGGING_LEVEL"] == "INFO"


@pytest.mark.parametrize(
    ("visible", "device", "expected"), [(None, "cuda:1", "1"), ("4,6", "cuda:1", "6"), ("4,6", "cuda", "4")]
)
def test_the_engine_sees_the_trainers_gpu_alone(visible, device, expected):
    """The index counts among the visible ones, as it does for torch."""
    environ = {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    assert engine_environment(environ, torch.device(device), TMP)["CUDA_VISIBLE_DEVICES"] == expected


def test_a_missing_vllm_is_named_with_a_remedy(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    options = EngineOptions("fp32", max_model_len=64, max_lora_rank=8, merge=True, device=CPU)
    with pytest.raises(TrainingError, match=r"vLLM is not installed; pip install 'softrec\[cpu\]'"):
        VllmWriter.open(TMP, options)
