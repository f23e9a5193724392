"""From trained LoRA weights to an artifact that can prove itself."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from index.artifact import write_artifact
from index.workspace import Workspace
from training.adapter import (
    ADAPTER_KIND,
    Adapter,
    AdapterFacts,
    Decoding,
    GoldenPrompt,
    check_adapter_name,
    read_adapter,
    write_adapter_files,
)
from training.data.dataset import Dataset
from training.errors import DivergedError
from training.loop.fit import FitResult
from training.measure.calibration import Calibration
from training.measure.mode_choice import Trial, describe_trials
from training.model.batches import Sample, collate
from training.model.language_model import completion_log_probs, load_base, read_lora
from training.report.diagnosis import DIAGNOSIS, Diagnosis
from training.report.finished_run import HISTORY, METRICS, columns_of
from training.settings import TrainSettings


def publish_adapter(
    workspace: Workspace,
    name: str,
    model: Any,
    dataset: Dataset,
    settings: TrainSettings,
    result: FitResult,
    *,
    method: str,
    mode: Trial,
    trials: Sequence[Trial],
    calibration: Calibration | None,
    index_encoder: str,
    parents: Sequence[str],
    diagnosis: Diagnosis,
    log: Path,
) -> Adapter:
    """Write `adapters/<name>/` whole or not at all, and read it back.

    Args:
        mode: how it will be served: the winner of `trials`, whose figures go into the manifest.
        calibration: of the distance beyond which a title is a hallucination.
        diagnosis: of the run; its figures go into the manifest beside those of the best epoch.
        log: the run's metrics.jsonl, copied into the folder.

    Raises:
        DivergedError: a weight is not finite, or all updates are zero: the adapter would do nothing.
    """
    check_adapter_name(name)
    _check_weights(model)
    facts = AdapterFacts(
        method=method,
        base_name=dataset.base.name,
        base_digest=dataset.base.digest,
        tokenizer_digest=dataset.base.tokenizer.digest,
        catalog_digest=dataset.catalog.digest,
        training_data=dataset.split.training_data,
        split=workspace.settings.split,
        template=dataset.renderer.template,
        decoding=Decoding(mode.decoding, dataset.renderer.max_new_tokens, mode.width),
        lora_rank=settings.lora_rank,
        code_version=version("softrec"),
        parents=tuple(parents),
        settings=settings.to_json(),
        changed_settings=settings.changed,
        index_encoder=index_encoder,
        metrics={
            **result.best,
            **diagnosis.metrics(),
            **describe_trials(trials, mode),
            **({"calibration_accuracy": calibration.accuracy} if calibration else {}),
        },
        ranking=mode.ranking,
        hallucination_distance=calibration.threshold if calibration else None,
    )
    with write_artifact(workspace.adapter_dir(name), kind=ADAPTER_KIND) as draft:
        model.peft_config["default"].base_model_name_or_path = dataset.base.name  # no machine's path
        # not left to state_dict(), at which FSDP shards the weights again
        learned = {name: weight.detach() for name, weight in model.named_parameters() if weight.requires_grad}
        model.save_pretrained(draft.path, save_embedding_layers=False, state_dict=learned)  # True would ask the hub
        if settings.quantization is not None:  # golden prompts prove it on the base that is served: the whole one
            base = load_base(dataset.base.path, precision=settings.precision, device=next(model.parameters()).device)
            model = read_lora(base, draft.path)
        golden = golden_prompts(model, dataset, settings.golden_prompts)
        (draft.path / "README.md").write_text(_model_card(name, facts, result), encoding="utf-8")
        _write_history(draft.path / HISTORY, result.history)
        content = json.dumps(diagnosis.to_json(), indent=2, ensure_ascii=False, allow_nan=False)
        (draft.path / DIAGNOSIS).write_text(content, encoding="utf-8")
        shutil.copyfile(log, draft.path / METRICS)
        write_adapter_files(draft, facts, golden)
    return read_adapter(workspace.adapter_dir(name))


def golden_prompts(model: Any, dataset: Dataset, n: int) -> list[GoldenPrompt]:
    """Log-probabilities of true validation titles, with the adapter and without it."""
    windows = dataset.split.validation[:n]
    titles = dataset.titles(windows)
    samples = dataset.samples(windows, titles)
    with_adapter = summed_log_probs(model, samples)
    with model.disable_adapter():
        bare = summed_log_probs(model, samples)
    return [
        GoldenPrompt(sample.prompt_ids, sample.completions[0], log_prob, base_log_prob)
        for sample, log_prob, base_log_prob in zip(samples, with_adapter, bare, strict=True)
    ]


def summed_log_probs(model: Any, samples: Sequence[Sample]) -> list[float]:
    """Log-probability of each sample's only completion."""
    model.eval()
    batch = collate(samples, pad_id=0, device=next(model.parameters()).device)
    with torch.inference_mode():
        log_probs = completion_log_probs(model, batch)
        sums = torch.zeros(len(samples), device=log_probs.device).index_add_(0, batch.owner, log_probs)
    return [float(value) for value in sums]


def _check_weights(model: Any) -> None:
    updates = {name: weight.detach() for name, weight in model.named_parameters() if "lora_B" in name}
    if bad := [name for name, weight in updates.items() if not torch.isfinite(weight).all()]:
        raise DivergedError(f"{bad[0]} is not finite; nothing is published", remedy="lower the learning rate")
    if not any(weight.any() for weight in updates.values()):
        raise DivergedError(
            "every LoRA update is zero: the adapter would do nothing; nothing is published",
            remedy="check that lora_modules names modules of this base, and that the learning rate is not 0",
        )


def _write_history(path: Path, history: Sequence[dict[str, float]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in history), encoding="utf-8")


def _model_card(name: str, facts: AdapterFacts, result: FitResult) -> str:
    columns = columns_of(result.history)
    cells = ([f"{row[name]:.4g}" if name in row else "" for name in columns] for row in result.history)
    table = [columns, ["---"] * len(columns), *cells]
    lines = "\n".join("| " + " | ".join(line) + " |" for line in table)
    parents = ", ".join(facts.parents) or "none"
    return f"""---
library_name: peft
tags: [lora, softrec, {facts.method}]
---
# {name}

A LoRA adapter that writes the title of the next {facts.template.noun}, trained with softrec {facts.code_version}
({facts.method}).

- base model: {facts.base_name} (`{facts.base_digest[:12]}`); LoRA rank {facts.lora_rank}
- catalog: `{facts.catalog_digest[:12]}`; split: {facts.split}
- made with adapters: {parents}
- decoding: {facts.decoding.mode}, width {facts.decoding.width}, at most {facts.decoding.max_new_tokens} tokens
- ranking: {facts.ranking.mode} (what won on validation)

Epoch {result.best_epoch} is the published one (best validation HR@10).

{lines}

It writes titles of this catalog for histories of this shop; it knows nothing else, and repeats what is popular there.
"""
