"""The adapter artifact: PEFT weights, a manifest, golden prompts, a model card. Imports neither torch nor transformers.

    adapters/soft/
      adapter_config.json, adapter_model.safetensors   plain PEFT; `vllm serve --lora-modules` loads the folder too
      golden.json                                      prompts with log-probabilities: the server's proof of effect
      history.jsonl, metrics.jsonl                     one line of figures per epoch; and per update
      diagnosis.json                                   what the run tells of itself, beside chance levels
      README.md                                        the model card
      manifest.json                                    written last: method, base, prompt, catalog, settings, metrics

An adapter's id is `name@digest`: names are aliases, and a changed file is another id.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from index.artifact import MANIFEST, Draft, read_manifest
from index.errors import CorruptArtifactError, MismatchError, SoftrecError
from index.ranking.ranking_spec import BY_DISTANCE, RankingSpec
from training.prompt import PromptTemplate

ADAPTER_KIND = "adapter"
GOLDEN = "golden.json"

DecodingMode = Literal["greedy", "constrained_beam"]


@dataclass(frozen=True)
class Decoding:
    """How titles are written with this adapter; nothing is inherited from the model's own generation settings.

    Attributes:
        mode: "greedy", one title; "constrained_beam", the best titles that the catalog holds.
        max_new_tokens: longest title, its closing quote and end token included.
        width: beams; 1 for greedy.

    Raises:
        ValueError: a mode that no server decodes by.
    """

    mode: DecodingMode
    max_new_tokens: int
    width: int = 1

    def __post_init__(self) -> None:
        if self.mode not in get_args(DecodingMode):
            raise ValueError(f"decoding mode {self.mode!r}, not one of {', '.join(get_args(DecodingMode))}")


@dataclass(frozen=True)
class GoldenPrompt:
    """A prompt and a completion whose log-probability is known.

    Attributes:
        log_prob: natural logarithm of the completion's probability after the prompt, base with adapter.
        base_log_prob: the same for the bare base.
    """

    prompt_ids: tuple[int, ...]
    completion_ids: tuple[int, ...]
    log_prob: float
    base_log_prob: float


@dataclass(frozen=True)
class AdapterFacts:
    """What an adapter must be used with, and how it came about. The manifest's body.

    Attributes:
        method: "sft", "soft", ...
        training_data: `DataSplit.training_data` of the split it was trained on.
        lora_rank: the largest rank among its modules; an engine must allow it.
        parents: ids of the adapters it was made with (SOFT: the SFT adapter that wrote the distilled titles).
        settings: every resolved training setting, the method's own among them.
        changed_settings: names of those that differ from their preset's.
        metrics: validation and training figures of the published epoch.
        index_encoder: fingerprint of the encoder of the index by which that epoch was chosen; empty without one.
        ranking: how catalog rows are ranked by the titles written; together with `decoding` the mode that won on
            validation.
        hallucination_distance: an L2 distance to the catalog beyond which a freely written title counts as a
            hallucination (see `training.measure.calibration`); None: never.
    """

    method: str
    base_name: str
    base_digest: str
    tokenizer_digest: str
    catalog_digest: str
    training_data: str
    split: str
    template: PromptTemplate
    decoding: Decoding
    lora_rank: int
    code_version: str
    parents: tuple[str, ...]
    settings: Mapping[str, Any]
    metrics: Mapping[str, float]
    changed_settings: tuple[str, ...] = ()
    index_encoder: str = ""
    ranking: RankingSpec = BY_DISTANCE
    hallucination_distance: float | None = None

    def hallucination_distance_in(self, encoder_fingerprint: str) -> float | None:
        """The calibrated distance, where distances are those of this encoder; None where another one measures."""
        return self.hallucination_distance if encoder_fingerprint == self.index_encoder else None


@dataclass(frozen=True)
class Adapter:
    """A published adapter, read back and verified byte by byte."""

    name: str
    path: Path
    digest: str
    created: str
    facts: AdapterFacts
    golden: tuple[GoldenPrompt, ...]

    @property
    def adapter_id(self) -> str:
        return f"{self.name}@{self.digest[:12]}"


def check_adapter_name(name: str) -> str:
    """Return the name, or refuse one that could not be a folder, a metric label and a URL part alike."""
    if not re.fullmatch(r"[a-z][a-z0-9_-]{0,31}", name):
        raise SoftrecError(
            f"adapter name {name!r} is not allowed", remedy="use a-z, 0-9, _ and -, starting with a letter, at most 32"
        )
    return name


def write_adapter_files(draft: Draft, facts: AdapterFacts, golden: Sequence[GoldenPrompt]) -> None:
    """Put the manifest's body and the golden prompts into a draft that already holds the PEFT files."""
    if not golden:
        raise ValueError("an adapter without golden prompts could not prove itself")
    lines = [asdict(prompt) for prompt in golden]
    (draft.path / GOLDEN).write_text(json.dumps(lines), encoding="utf-8")
    draft.body.update(asdict(facts))


def read_adapter(directory: Path) -> Adapter:
    """Read one adapter and verify its digests.

    Raises:
        MissingArtifactError, CorruptArtifactError, MismatchError: see `index.artifact.read_manifest`. Weights that are
            not safetensors are refused even where the manifest does not name them: PEFT would unpickle them.
    """
    # a variant's name begins with its method's: soft-alpha-10
    command = f"softrec train {directory.name.partition('-')[0]} {directory.parent.parent}"
    manifest = read_manifest(directory, kind=ADAPTER_KIND, command=command)
    if pickles := sorted(path.name for path in directory.glob("adapter_model.*") if path.suffix != ".safetensors"):
        raise CorruptArtifactError(
            directory,
            f"weights must be safetensors, found {', '.join(pickles)}",
            remedy="remove what is not safetensors",
        )
    try:
        body = dict(manifest.body)
        body["template"] = PromptTemplate.from_json(body["template"])
        body["decoding"] = Decoding(**body["decoding"])
        body["parents"] = tuple(body["parents"])
        body["changed_settings"] = tuple(body["changed_settings"])
        body["ranking"] = RankingSpec.from_json(body["ranking"])
        facts = AdapterFacts(**body)
        golden = tuple(
            GoldenPrompt(tuple(line.pop("prompt_ids")), tuple(line.pop("completion_ids")), **line)
            for line in json.loads((directory / GOLDEN).read_bytes())
        )
    except (KeyError, TypeError, ValueError) as error:
        raise CorruptArtifactError(
            directory / MANIFEST, f"not an adapter's manifest ({error})", remedy=f"make it again with `{command}`"
        ) from error
    return Adapter(directory.name, directory, manifest.digest, manifest.created, facts, golden)


def read_adapters(adapters_dir: Path) -> dict[str, Adapter]:
    """Read every finished adapter under a folder, by name. Unfinished ones (no manifest) do not count."""
    folders = sorted(adapters_dir.glob("*/")) if adapters_dir.is_dir() else []
    return {
        folder.name: read_adapter(folder)
        for folder in folders
        if not folder.name.startswith(".") and (folder / MANIFEST).is_file()
    }


def check_adapter(
    adapter: Adapter,
    *,
    base_digest: str,
    tokenizer_digest: str,
    catalog_digest: str,
    earlier_catalogs: Collection[str] = (),
) -> None:
    """Refuse an adapter that was trained for another base, tokenizer or catalog.

    Args:
        earlier_catalogs: digests of catalogs that were folded into this one; an adapter of theirs is not refused.

    Raises:
        MismatchError: naming both values.
    """
    remedy = f"train it again with `softrec train {adapter.facts.method} {adapter.path.parent.parent}`"
    for what, expected, found in (
        ("base model", base_digest, adapter.facts.base_digest),
        ("tokenizer", tokenizer_digest, adapter.facts.tokenizer_digest),
        ("catalog", catalog_digest, adapter.facts.catalog_digest),
    ):
        if expected != found and not (what == "catalog" and found in earlier_catalogs):
            raise MismatchError(
                f"adapter {adapter.adapter_id}: digest of its {what}",
                expected=expected[:12],
                found=found[:12],
                remedy=remedy,
            )
