"""The model in training: a base with LoRA, and its log-probabilities of completions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from training.errors import SettingError, TrainingError
from training.model.batches import Batch
from training.model.block_attention import IN_BLOCKS, check_exact_attention, no_mask
from training.model.four_bit import four_bit_config, make_exact_on_cpu
from training.model.losses import token_log_probs
from training.settings import Precision, Quantization, TrainSettings

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def load_base(
    path: Path, *, precision: Precision, quantization: Quantization | None = None, device: torch.device | str = "cpu"
) -> Any:
    """Load a causal language model from a folder. It attends by `training.model.block_attention`.

    Raises:
        SettingError: `quantization` is "4bit", and bitsandbytes is missing or cannot do this base here.
        TrainingError: the folder holds no such model, or one that cannot attend by sdpa.
    """
    from transformers import AutoModelForCausalLM

    dtype, device = DTYPES[precision], torch.device(device)
    # a quantized model is made where it is used, and must not be cast afterwards
    chosen = (
        {"quantization_config": four_bit_config(dtype), "device_map": {"": device}} if quantization == "4bit" else {}
    )
    try:
        model = AutoModelForCausalLM.from_pretrained(
            path, dtype=dtype, attn_implementation="sdpa", local_files_only=True, use_safetensors=True, **chosen
        )
    except (OSError, ValueError) as error:  # no weights, no model_type, an architecture without sdpa
        raise TrainingError(
            f"{path} cannot be loaded as a causal language model ({str(error).splitlines()[0]})",
            remedy="name a folder or hub model with config.json and safetensors of a decoder such as Llama",
        ) from error
    model.set_attn_implementation(IN_BLOCKS)
    check_exact_attention(model)
    model.generation_config = None  # nothing is inherited from it; decoding is training.generation.beam's
    if quantization is None:
        return model.to(device)
    if device.type == "cpu":
        make_exact_on_cpu(model)
    return model


def add_lora(base: Any, settings: TrainSettings) -> Any:
    """Put a fresh LoRA on the base (LoRA weights in fp32). The base's own weights are frozen.

    Raises:
        SettingError: `lora_modules` names nothing in this base.
    """
    from peft import LoraConfig, get_peft_model

    modules = settings.lora_modules
    config = LoraConfig(
        r=settings.lora_rank,
        lora_alpha=settings.lora_alpha,
        lora_dropout=settings.lora_dropout,
        target_modules="all-linear" if modules == "all-linear" else [name.strip() for name in modules.split(",")],
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(settings.seed)
    try:
        return get_peft_model(base, config)
    except ValueError as error:
        raise SettingError(
            f"lora_modules={modules!r} names no module of this base ({error})", remedy="--set lora_modules=all-linear"
        ) from error


def read_lora(base: Any, adapter_dir: Path) -> Any:
    """Put a published adapter on the base, for inference."""
    from peft import PeftModel

    return PeftModel.from_pretrained(base, adapter_dir).eval()


def read_merged(base: Any, adapter_dir: Path) -> Any:
    """Add a published adapter to the base's weights where that loses nothing: in float32, and a quarter faster.

    In bf16 the sum would be rounded to 8 bits and much of a young LoRA lost; there it stays beside the weights.
    """
    model = read_lora(base, adapter_dir)
    if next(base.parameters()).dtype != torch.float32:
        return model
    merged = model.merge_and_unload().eval()
    merged.generation_config = None
    return merged


class CompletionScorer(torch.nn.Module):
    """A causal language model as a module that scores completions.

    What learns is called through `forward`, since that is where DDP and FSDP do their work.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        """See `completion_log_probs`."""
        return completion_log_probs(self.model, batch)


def decoder(model: Any) -> tuple[Any, Any]:
    """Return (transformer without head, head) of a causal language model, with or without LoRA around it."""
    causal = model.get_base_model() if hasattr(model, "get_base_model") else model
    return causal.model, causal.lm_head


def completion_log_probs(model: Any, batch: Batch) -> Tensor:
    """Natural log-probability of every completion token, float32 [C].

    The head, whose logits are most of a step's memory at a large vocabulary, is applied at completion positions only.
    """
    transformer, head = decoder(model)
    hidden = transformer(
        input_ids=batch.input_ids,
        attention_mask=no_mask(batch.input_ids.device),
        position_ids=batch.position_ids,
        blocks=batch.blocks,
        use_cache=False,
    ).last_hidden_state  # [1, N, H]
    return token_log_probs(head(hidden[0, batch.at]), batch.labels)
