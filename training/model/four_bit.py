"""The base in 4-bit NormalFloat (QLoRA, arXiv:2305.14314, section 3): NF4 weights, doubly quantized, frozen."""

from __future__ import annotations

import importlib.util
from typing import Any

import torch

from training.errors import SettingError


def four_bit_config(dtype: torch.dtype) -> Any:
    """The configuration with which transformers quantizes while it loads; products are computed in `dtype`.

    Raises:
        SettingError: bitsandbytes is not installed.
    """
    from transformers import BitsAndBytesConfig

    if importlib.util.find_spec("bitsandbytes") is None:
        raise SettingError(
            "quantization=4bit needs bitsandbytes, which is not installed",
            remedy="pip install bitsandbytes, or --set quantization=none",
        )
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        bnb_4bit_quant_storage=dtype,  # FSDP shards tensors of one dtype only
    )


def make_exact_on_cpu(model: Any) -> None:
    """Keep bitsandbytes' CPU backend from computing something else than the quantized weights.

    Seen in 0.50.2. After the first forward in eval mode it repacks the weights for inference, and what is trained
    afterwards gets no gradient through them; that is switched off. And rows that are no multiple of its block of 64
    are dequantized with wrong scales (24 % off instead of 9 %); such a base is refused.

    Raises:
        SettingError: naming the first module whose rows are no multiple of the block.
    """
    from bitsandbytes.nn import Linear4bit

    for name, module in model.named_modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False
            if module.in_features % module.weight.blocksize:
                raise SettingError(
                    f"quantization=4bit on the CPU: {name} has rows of {module.in_features}, "
                    f"no multiple of bitsandbytes' block of {module.weight.blocksize}",
                    remedy="--set quantization=none, or train on a GPU",
                )
