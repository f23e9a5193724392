"""The settings that every training method has, in one frozen object; presets, and `--set key=value`.

A method's own settings are a dataclass on top of `TrainSettings`, in the method's folder.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, Self, TypeVar, Union, get_args, get_origin, get_type_hints

from training.errors import SettingError

Precision = Literal["fp32", "bf16"]
Quantization = Literal["4bit"]
GeneratorName = Literal["torch", "vllm"]
NONE = "none"  # how a person writes None

# what neither the weights nor the figures of a run depend on
IDLE = frozenset({"preset", "checkpoint_every", "report_to"})

S = TypeVar("S", bound="TrainSettings")


@dataclass(frozen=True)
class TrainSettings:
    """Settings that every method has.

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
            None: the base is held as `precision` says.
        checkpoint_every: updates between two checkpoints of the run; decides what a kill costs, never what comes out.
        beams: width of a free beam search, as a method asks for one; an epoch is chosen by greedy titles.
        length_penalty: beams are compared by log-probability / length ** length_penalty; 0 compares whole titles,
            1 favours long generic ones.
        decode_batch_size: prompts decoded at once.
        generator: what writes titles inside training: "torch" or a vLLM engine.
        report_to: trackers beside metrics.jsonl, comma-separated (see `training.loop.trackers`); None: no other.
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
    quantization: Quantization | None = None
    checkpoint_every: int = 50
    beams: int = 4
    length_penalty: float = 0.0
    decode_batch_size: int = 64
    generator: GeneratorName = "torch"
    golden_prompts: int = 8
    report_to: str | None = None

    def __post_init__(self) -> None:
        self._check_positive(
            *("train_windows", "validation_windows", "test_windows", "max_history", "min_history"),
            *("max_prompt_tokens", "max_title_tokens", "lora_rank", "lora_alpha", "learning_rate", "batch_size"),
            *("micro_batch_size", "max_epochs", "patience", "max_grad_norm", "beams", "decode_batch_size"),
            *("golden_prompts", "checkpoint_every"),
        )
        if not 0 <= self.lora_dropout < 1:
            raise SettingError(f"lora_dropout must be in [0, 1), got {self.lora_dropout}")
        for name in ("warmup_steps", "seed"):
            if getattr(self, name) < 0:
                raise SettingError(f"{name} must not be negative, got {getattr(self, name)}")
        for name, hint in get_type_hints(type(self)).items():
            kind, value = _without_none(hint), getattr(self, name)
            if get_origin(kind) is Literal and value not in _values(hint):
                allowed = ", ".join(map(spell, _values(hint)))
                raise SettingError(f"{name} must be one of {allowed}, got {value!r}")
        if self.generator == "vllm" and self.quantization is not None:
            raise SettingError(
                "generator=vllm writes titles with the whole base, not with a 4-bit one", remedy="--set generator=torch"
            )
        if self.min_history > self.max_history:
            raise SettingError(f"min_history {self.min_history} exceeds max_history {self.max_history}")
        if self.batch_size % self.micro_batch_size:
            raise SettingError(
                f"batch_size {self.batch_size} is not a multiple of micro_batch_size {self.micro_batch_size}"
            )

    def _check_positive(self, *names: str) -> None:
        for name in names:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise SettingError(f"{name} must be positive, got {value}")

    @classmethod
    def presets(cls) -> Mapping[str, Self]:
        """The defaults to start from, by name: a method's own settings have one default, unless it overrides this."""
        return {
            # The stand-in base on a CPU. The paper's own preset does not move a model this small.
            "tiny": cls(),
            # SOFT, arXiv:2505.20771, section 4.1: Llama-3.2-3B on a GPU.
            "paper": cls(
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

    @classmethod
    def taken_from(cls, settings: TrainSettings) -> Self:
        """The settings of this class with the values of another's; what the other lacks keeps its default."""
        names = (setting.name for setting in fields(cls) if hasattr(settings, setting.name))
        return cls(**{name: getattr(settings, name) for name in names})

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the settings that differ from the preset's."""
        preset = self.presets().get(self.preset)
        return tuple(name for name, value in self.to_json().items() if preset is None or getattr(preset, name) != value)

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def resolve_settings(kind: type[S], preset: str, assignments: Sequence[str] = ()) -> S:
    """Start from a preset and apply `key=value` assignments.

    Args:
        kind: the method's settings class.

    Raises:
        SettingError: an unknown preset or key (with the nearest known one), or a value of the wrong type.

    Example:
        >>> resolve_settings(TrainSettings, "tiny", ["max_epochs=2", "report_to=none"]).max_epochs
        2
    """
    presets = kind.presets()
    if preset not in presets:
        raise SettingError(f"unknown preset {preset!r}", remedy=f"choose one of {', '.join(presets)}")
    return _assign(presets[preset], assignments)


def restore_settings(kind: type[S], stored: Mapping[str, Any], assignments: Sequence[str] = ()) -> S:
    """Rebuild the settings that a manifest stored (`TrainSettings.to_json`) and apply `key=value` assignments.

    Raises:
        SettingError: they come from another version of softrec, or an assignment is wrong.
    """
    if set(stored) != {setting.name for setting in fields(kind)}:
        odd = sorted(set(stored) ^ {setting.name for setting in fields(kind)})
        raise SettingError(f"stored settings are not of this version ({', '.join(odd)})", remedy="train again")
    return _assign(kind(**stored), assignments)


def spell(value: object) -> str:
    """Write a setting's value as `--set` reads it.

    Example:
        >>> spell(None), spell(0.5)
        ('none', '0.5')
    """
    return NONE if value is None else str(value)


def _assign(settings: S, assignments: Sequence[str]) -> S:
    return replace(settings, **dict(_parse_assignment(text, type(settings)) for text in assignments))


def _parse_assignment(text: str, kind: type[TrainSettings]) -> tuple[str, Any]:
    name, equals, value = (part.strip() for part in text.partition("="))
    known = [setting.name for setting in fields(kind) if setting.name != "preset"]
    if not equals:
        raise SettingError(f"--set takes key=value, got {text!r}")
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {near[0]}?" if near else f"known: {', '.join(known)}"
        raise SettingError(f"unknown setting {name!r}", remedy=hint)
    hint_of_type = get_type_hints(kind)[name]
    if value == NONE and type(None) in get_args(hint_of_type):
        return name, None
    number = _without_none(hint_of_type)
    try:
        return name, number(value) if number in (int, float) else value
    except ValueError as error:
        raise SettingError(f"{name} takes {_describe(hint_of_type)}, got {value!r}") from error


def _without_none(hint: Any) -> Any:
    """`int` of `int | None`."""
    if get_origin(hint) in (Union, types.UnionType):
        [kind] = [part for part in get_args(hint) if part is not type(None)]
        return kind
    return hint


def _values(hint: Any) -> tuple[Any, ...]:
    """What a `Literal[...]` or `Literal[...] | None` allows."""
    none = (None,) if type(None) in get_args(hint) else ()
    return (*none, *get_args(_without_none(hint)))


def _describe(hint: Any) -> str:
    kind = {int: "a whole number", float: "a number"}[_without_none(hint)]
    return f"{kind} or {NONE}" if type(None) in get_args(hint) else kind
