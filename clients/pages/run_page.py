"""A training run on one page: its card, its curves, what is wrong with it and what to do."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from pathlib import Path

from clients.pages.pages import render_page
from index.artifact import write_file
from training.adapter import Adapter
from training.report.diagnosis import PAPER_RATIO, Diagnosis
from training.report.finished_run import FinishedRun, columns_of, for_shop


def write_run_page(
    path: Path,
    adapter: Adapter,
    run: FinishedRun,
    diagnosis: Diagnosis,
    *,
    shop: str,
    light: bytes,
    dark: bytes,
) -> None:
    """Write the page.

    Args:
        shop: the workspace as one types it in a shell; goes into the remedies' commands.
        light, dark: the run's curves as PNG, for readers of light and of dark pages.
    """
    page = render_page(
        "run.html",
        name=adapter.name,
        method=adapter.facts.method,
        card=describe_run(adapter, run),
        signs=[(sign, for_shop(sign.remedy, shop)) for sign in diagnosis.signs],
        light=_as_address(light),
        dark=_as_address(dark),
        diagnosis=diagnosis,
        paper_ratio=PAPER_RATIO,
        columns=columns_of(diagnosis.epochs),
        unknown=[for_shop(text, shop) for text in diagnosis.unknown],
    )
    write_file(path, page)


def describe_run(adapter: Adapter, run: FinishedRun) -> dict[str, str]:
    """The run's card: label to value, in the order of showing."""
    facts = adapter.facts
    changed = run.changed_settings
    training_s = sum(float(row.get("train_s", 0.0)) for row in run.history)
    return {
        "adapter": adapter.adapter_id,
        "written": f"{adapter.created} by softrec {facts.code_version}",
        "method": facts.method,
        "parents": ", ".join(facts.parents) or "none",
        "base": f"{facts.base_name} ({facts.base_digest[:12]}), LoRA rank {facts.lora_rank}",
        "catalog": facts.catalog_digest[:12],
        "windows": _describe_windows(run.windows) + f", split by {facts.split}",
        f"unlike preset {facts.settings.get('preset', '')}": ", ".join(
            f"{name} {value}" for name, value in changed.items()
        )
        or "nothing",
        "epochs": f"{run.best_epoch} of {len(run.history)} is published",
        "time": f"{training_s:.0f} s of updates; writing titles for validation and d_t comes on top",
    }


def _describe_windows(windows: Mapping[str, int]) -> str:
    parts = [
        f"{part} {windows[part]}" + (f" of {available}" if (available := windows.get(f"{part}_available")) else "")
        for part in ("train", "validation", "test")
        if part in windows
    ]
    return ", ".join(parts) or "not known"


def _as_address(png: bytes) -> str:
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
