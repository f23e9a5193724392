"""Runs as training leaves them behind, with figures that are easy to follow by hand."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from index.artifact import write_artifact
from index.workspace import Workspace
from tests.tiny_shop import TEMPLATE
from training.adapter import (
    ADAPTER_KIND,
    Adapter,
    AdapterFacts,
    Decoding,
    GoldenPrompt,
    read_adapter,
    write_adapter_files,
)
from training.recipes.soft.settings import SoftSettings
from training.report.finished_run import FinishedRun, Row
from training.settings import TrainSettings

WINDOWS = {"train": 400, "validation": 100, "test": 100}
SETTINGS = TrainSettings().to_json()
SOFT_SETTINGS = SoftSettings().to_json()


def sft_run(*hr10: float, **settings: Any) -> FinishedRun:
    """One epoch per HR@10. Losses: 2.0, 1.9, ... per token and ten times that per title; validation 3.0, 2.9, ..."""
    history = [
        {
            "epoch": epoch,
            "loss": 2.1 - epoch / 10,
            "loss_real": 2.1 - epoch / 10,
            "loss_real_per_title": 21.0 - epoch,
            "train_s": 10.0,
            "validation_hr10": value,
            "validation_loss": 3.1 - epoch / 10,
        }
        for epoch, value in enumerate(hr10, start=1)
    ]
    return FinishedRun(
        "sft@1", "sft", SETTINGS | settings, history, log_of(history), WINDOWS, changed(SETTINGS, settings)
    )


def soft_run(*epochs: tuple[float, float, float], **settings: Any) -> FinishedRun:
    """One epoch per (d_t / d_0, tau, HR@10), d_0 being 4. Loss on distilled titles: 1.0, 0.9, ... per token."""
    history = []
    for epoch, (ratio, tau, value) in enumerate(epochs, start=1):
        row = {"epoch": epoch, "d_t": 4 * ratio, "d_ratio": ratio, "tau": tau, "loss": 1.1 - epoch / 10}
        if tau > 0:
            row |= {"loss_distilled": 1.1 - epoch / 10, "loss_distilled_per_title": 6.0}
        if tau < 1:
            row |= {"loss_real": 2.1 - epoch / 10, "loss_real_per_title": 21.0 - epoch}
        row |= {"train_s": 10.0, "validation_hr10": value, "validation_loss": 3.1 - epoch / 10}
        history.append(row)
    return FinishedRun(
        "soft@1", "soft", SOFT_SETTINGS | settings, history, log_of(history), WINDOWS, changed(SOFT_SETTINGS, settings)
    )


def changed(preset: Mapping[str, Any], settings: Mapping[str, Any]) -> tuple[str, ...]:
    return tuple(name for name, value in settings.items() if preset[name] != value)


def log_of(history: Sequence[Row], *, updates: int = 4) -> list[Row]:
    """The log of such a run: per epoch a measurement of d_t where there is one, the updates, and the epoch's row."""
    log: list[Row] = []
    for row in history:
        plan = {name: row[name] for name in ("d_t", "d_ratio", "tau") if name in row}
        losses = {name: value for name, value in row.items() if name.startswith("loss")}
        begin = (row["epoch"] - 1) * updates
        if plan:
            log.append({"event": "distance", "epoch": row["epoch"], "step": begin, **plan})
        log += [
            {"event": "update", "epoch": row["epoch"], "step": begin + at, **plan, **losses}
            for at in range(1, updates + 1)
        ]
        log.append({"event": "epoch", **row})
    return log


def publish(
    workspace: Workspace,
    name: str,
    run: FinishedRun,
    *,
    parents: Sequence[str] = (),
    catalog_digest: str = "",
    training_data: str = "",
    diagnosis: Mapping[str, Any] | None = None,
) -> Adapter:
    """Put a run into an adapter's folder, without weights."""
    facts = AdapterFacts(
        method=run.method,
        base_name="stand-in",
        base_digest="b" * 64,
        tokenizer_digest="t" * 64,
        catalog_digest=catalog_digest,
        training_data=training_data,
        split="time",
        template=TEMPLATE,
        decoding=Decoding("greedy", 40),
        lora_rank=8,
        code_version="test",
        parents=tuple(parents),
        settings=run.settings,
        metrics=run.best,
        changed_settings=tuple(run.changed),
    )
    with write_artifact(workspace.adapter_dir(name), kind=ADAPTER_KIND) as draft:
        _write_rows(draft.path / "history.jsonl", run.history)
        _write_rows(draft.path / "metrics.jsonl", run.log)
        if diagnosis is not None:
            (draft.path / "diagnosis.json").write_text(json.dumps(diagnosis), encoding="utf-8")
        write_adapter_files(draft, facts, [GoldenPrompt((1,), (2,), -1.0, -2.0)])
    return read_adapter(workspace.adapter_dir(name))


def _write_rows(path: Path, rows: Sequence[Row]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
