"""A base in 4 bits trains as its dequantized twin would, before a validation and after. Where bitsandbytes is."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.random_llama import random_llama
from tests.shop import SETTINGS
from training.errors import SettingError
from training.model.batches import Sample, collate
from training.model.four_bit import four_bit_config
from training.model.language_model import add_lora, completion_log_probs, load_base

SAMPLES = [Sample((1, 2, 3), ((4, 5, 6), (7, 8))), Sample((9, 10), ((11,), (12, 13, 14)))]


def saved_base(folder: Path, **changes: int) -> Path:
    random_llama(64, **({"hidden_size": 64, "intermediate_size": 128} | changes)).save_pretrained(folder)
    return folder


def gradients(model: Any) -> dict[str, torch.Tensor]:
    model.train()
    model.zero_grad()
    completion_log_probs(model, collate(SAMPLES, pad_id=0)).sum().backward()
    return {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.requires_grad}


def with_lora(base: Any) -> Any:
    model = add_lora(base, SETTINGS)
    torch.manual_seed(1)
    for name, weight in model.named_parameters():
        if "lora_B" in name:  # zero at first, and then nothing behind it gets a gradient
            weight.data.normal_(0, 0.05)
    return model


def test_it_trains_as_its_dequantized_twin_and_goes_on_so_after_a_validation(tmp_path):
    bitsandbytes = pytest.importorskip("bitsandbytes")
    folder = saved_base(tmp_path)
    base = load_base(folder, precision="fp32", quantization="4bit")
    twin = load_base(folder, precision="fp32")
    for name, module in base.named_modules():
        if isinstance(module, bitsandbytes.nn.Linear4bit):
            whole = bitsandbytes.functional.dequantize_4bit(module.weight.data, module.weight.quant_state)
            twin.get_submodule(name).weight.data.copy_(whole)
    model, expected = with_lora(base), gradients(with_lora(twin))
    first = gradients(model)
    model.eval()
    with torch.inference_mode():
        completion_log_probs(model, collate(SAMPLES, pad_id=0))
    again = gradients(model)
    for name, gradient in expected.items():
        torch.testing.assert_close(first[name], gradient)
        torch.testing.assert_close(again[name], first[name], rtol=0, atol=0)


def test_a_base_whose_rows_bitsandbytes_gets_wrong_on_the_cpu_is_refused(tmp_path):
    pytest.importorskip("bitsandbytes")
    folder = saved_base(tmp_path, intermediate_size=96)
    with pytest.raises(SettingError, match=r"down_proj has rows of 96, no multiple of .* block of 64; --set"):
        load_base(folder, precision="fp32", quantization="4bit")


def test_without_bitsandbytes_it_says_how_to_get_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(SettingError, match="4bit needs bitsandbytes, which is not installed; pip install bitsandbytes"):
        four_bit_config(torch.float32)
