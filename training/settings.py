"""Every training setting, in one frozen object; presets, and `--set key=value`."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from training.errors import SettingError

Schedule = Literal["adaptive", "linear", "step", "distilled", "real"]
Precision = Literal["fp32", "bf16"]
Quantization = Literal["none", "4bit"]
GeneratorName = Literal["torch", "vllm"]

# what neither the weights nor the figures of a run depend on
IDLE = frozenset({"preset", "checkpoint_every", "report_to"})

CHOICES: Mapping[str, tuple[str, ...]] = {
    "precision": get_args(Precision),
    "quantization": get_args(Quantization),
    "schedule": get_args(Schedule),
    "generator": get_args(GeneratorName),
}


@dataclass(frozen=True)
class TrainSettings:
    """Settings of SFT and SOFT.

    Attributes:
        preset: the name of the preset these started from.
        train_windows, validation_windows, test_windows: most windows sampled from each part of the split.
        max_history: most titles in a prompt.
        min_history: fewest interactions before a target (see `training.data.windows.sliding_windows`). The paper's 10
            leaves a model that has never read a short history, and writes nothing for a new user.
        max_prompt_tokens, max_title_tokens: see `training.prompt.PromptTemplate`.
        seed: of sampling, initialisation and shuffling.
        lora_rank, lora_alpha, lora_dropout: LoRA's r, alpha and dropout share.
        lora_modules: comma-separated projections, or "all-linear".
        learning_rate: of AdamW; constant after the warm-up.
        warmup_steps: updates of linear warm-up.
        batch_size: windows per update; micro_batch_size of them at a time.
        max_epochs: at most so many passes; `patience` epochs without a better validation HR@10 end it sooner.
        max_grad_norm: gradients are scaled down to this norm.
        precision: of the base model and the activations; LoRA weights and the optimizer stay fp32.
        quantization: "4bit" holds the frozen base in 4-bit NormalFloat (QLoRA, arXiv:2305.14314); needs bitsandbytes.
        checkpoint_every: updates between two checkpoints of the run; decides what a kill costs, never what comes out.
        beams: beams of self-distillation and of the d_t probe; an epoch is chosen by greedy titles.
        length_penalty: beams are compared by log-probability / length ** length_penalty; 0 compares whole titles,
            1 favours long generic ones.
        decode_batch_size: prompts decoded at once.
        generator: what writes titles inside training (distillation, d_t, validation): "torch" or a vLLM engine.
        schedule: SOFT's curriculum (see `training.recipes.soft.curriculum`): "adaptive" is the paper's, the others its
        controls. curriculum_alpha: SOFT's alpha: how fast the distilled data's weight falls.
        distance_samples: M: training windows on which d_t is measured.
        distance_every: updates between two measurements of d_t within an epoch; 0: once, before each epoch.
        distance_encoder: what embeds titles for d_t: "base" (its last token), "minilm", or a sentence-transformers
            name or folder.
        report_to: trackers beside metrics.jsonl, comma-separated (see `training.loop.trackers`); "none": no other.
        golden_prompts: prompts stored with their log-probabilities, for the server's proof.
    """

    preset: str = "tiny"
    train_windows: int = 4096
    validation_windows: int = 512
    test_windows: int = 1000
    max_history: int = 10
    min_history: int = 1
    max_prompt_tokens: int = 768
    max_title_tokens: int = 64
    seed: int = 0
    lora_rank: int = 8
    lora_alpha: int = 16
    lora_dropout: float = 0.0
    lora_modules: str = "all-linear"
    learning_rate: float = 3e-3
    warmup_steps: int = 20
    batch_size: int = 32
    micro_batch_size: int = 32
    max_epochs: int = 3
    patience: int = 2
    max_grad_norm: float = 1.0
    precision: Precision = "fp32"
    quantization: Quantization = "none"
    checkpoint_every: int = 50
    beams: int = 4
    length_penalty: float = 0.0
    decode_batch_size: int = 64
    generator: GeneratorName = "torch"
    schedule: Schedule = "adaptive"
    curriculum_alpha: float = 1.0
    distance_samples: int = 256
    distance_every: int = 0
    distance_encoder: str = "base"
    golden_prompts: int = 8
    report_to: str = "none"

    def __post_init__(self) -> None:
        positive = (
            "train_windows validation_windows test_windows max_history min_history max_prompt_tokens max_title_tokens "
            "lora_rank lora_alpha learning_rate batch_size micro_batch_size max_epochs patience max_grad_norm beams "
            "decode_batch_size curriculum_alpha distance_samples golden_prompts checkpoint_every"
        )
        for name in positive.split():
            if not getattr(self, name) > 0:
                raise SettingError(f"{name} must be positive, got {getattr(self, name)}")
        if not 0 <= self.lora_dropout < 1:
            raise SettingError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}")
        for name in ("warmup_steps", "seed", "distance_every"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, choices in CHOICES.items():
            if getattr(self, name) not in choices:
                raise SettingError(f"{name} must be one of {', '.join(choices)}, got {getattr(self, name)!r}")
        if self.generator == "vllm" and self.quantization != "none":
            raise SettingError(
                "generator=vllm writes titles with the whole base, not with a 4-bit one", remedy="--set generator=torch"
            )
        if self.min_history > self.max_history:
            raise SettingError(f"min_history {self.min_history} exceeds max_history {self.max_history}")
        if self.batch_size % self.micro_batch_size:
            raise SettingError(
                f"batch_size {self.batch_size} is no multiple of micro_batch_size {self.micro_batch_size}"
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


PRESETS: Mapping[str, TrainSettings] = {
    # The stand-in base on a CPU. The paper's own preset does not move a model this small.
    "tiny": TrainSettings(),
    # SOFT, arXiv:2505.20771, section 4.1: Llama-3.2-3B on a GPU.
    "paper": TrainSettings(
        preset="paper",
        min_history=10,
        lora_modules="q_proj,v_proj",
        lora_dropout=0.05,
        learning_rate=1e-4,
        batch_size=256,
        micro_batch_size=16,
        max_epochs=7,
        precision="bf16",
        decode_batch_size=32,
        max_prompt_tokens=2048,
        max_title_tokens=128,
    ),
}


def resolve_settings(preset: str, assignments: Sequence[str] = ()) -> TrainSettings:
    """Start from a preset and apply `key=value` assignments.

    Raises:
        SettingError: an unknown preset or key (with the nearest known one), or a value of the wrong type.

    Example:
        >>> resolve_settings("tiny", ["max_epochs=2"]).max_epochs
        2
    """
    if preset not in PRESETS:
        raise SettingError(f"unknown preset {preset!r}", remedy=f"choose one of {', '.join(PRESETS)}")
    return restore_settings(PRESETS[preset].to_json(), assignments)


def restore_settings(stored: Mapping[str, Any], assignments: Sequence[str] = ()) -> TrainSettings:
    """Rebuild the settings that a manifest stored (`TrainSettings.to_json`) and apply `key=value` assignments.

    Raises:
        SettingError: they come from another version of softrec, or an assignment is wrong.
    """
    try:
        settings = TrainSettings(**stored)
    except TypeError as error:
        raise SettingError(f"stored settings are not of this version ({error})", remedy="train again") from error
    return replace(settings, **dict(_parse_assignment(text, settings) for text in assignments))


def _parse_assignment(text: str, settings: TrainSettings) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    name = name.strip()
    known = [setting.name for setting in fields(settings) if setting.name != "preset"]
    if not equals:
        raise SettingError(f"--set takes key=value, got {text!r}")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise SettingError(f"unknown setting {name!r}", remedy=hint)
    current = getattr(settings, name)
    try:
        parsed: Any = type(current)(value.strip())
    except ValueError as error:
        raise SettingError(f"{name} takes {_kind(current)}, got {value!r}") from error
    return name, parsed


def _kind(value: object) -> str:
    return {int: "a whole number", float: "a number"}.get(type(value), "text")
