"""`softrec diagnose`: what a training run tells of itself."""

from __future__ import annotations

import shlex
from pathlib import Path

from clients.errors import RefusedError
from clients.pages.run_page import write_run_page
from clients.tables import say, show_table, write_json
from index.artifact import MANIFEST, write_file
from index.workspace import Workspace
from training.adapter import Adapter, read_adapter
from training.report.curves import DARK, draw_curves
from training.report.diagnosis import PAPER_RATIO, Diagnosis, read_diagnosis
from training.report.distilled_signs import DistilledSigns
from training.report.failure_signs import FailureSign
from training.report.finished_run import columns_of, for_shop, read_run
from training.report.rank_correlation import RankCorrelation


def diagnose_adapter(root: Path, name: str = "soft", json_path: Path | None = None) -> Diagnosis:
    """Print what is known of an adapter's training; draw it in `reports/run-<name>.png` and, as a page, `.html`.

    Args:
        root: the workspace.
        name: of the adapter.
        json_path: where the diagnosis goes as JSON too.

    Raises:
        MissingArtifactError: the adapter is not trained yet.
        RefusedError: the name leads nowhere, or to something that was not trained as an adapter.
        CorruptArtifactError: the adapter keeps no figures per epoch.
    """
    workspace = Workspace.open(root)
    adapter = _read(workspace, name)
    diagnosis = read_diagnosis(adapter)
    if diagnosis is None:
        from training.recipes.soft.reconstruction import (
            reconstruct,  # needs torch; a diagnosis that was stored does not
        )

        diagnosis = reconstruct(workspace, adapter)
    write_json(json_path, {"adapter_id": adapter.adapter_id, **diagnosis.to_json()})
    _show(adapter, diagnosis, shlex.quote(str(root)))
    draw_run(workspace, adapter, diagnosis)
    return diagnosis


def draw_run(workspace: Workspace, adapter: Adapter, diagnosis: Diagnosis) -> None:
    """Write `reports/run-<name>.png` and `.html`, and say where they are."""
    run = read_run(adapter, windows=diagnosis.windows)
    picture, page = (workspace.reports_dir / f"run-{adapter.name}.{kind}" for kind in ("png", "html"))
    light = draw_curves(run)
    write_file(picture, light)
    shop = shlex.quote(str(workspace.root))
    write_run_page(page, adapter, run, diagnosis, shop=shop, light=light, dark=draw_curves(run, DARK))
    say(f"curves: {picture}", f"page: {page}")


def show_sign(sign: FailureSign, shop: str) -> None:
    """Print one sign with its remedy, whose commands name the shop."""
    say(f"{sign.level}: {sign.code}: {sign.seen} (threshold: {sign.threshold})")
    say(f"  {for_shop(sign.remedy, shop)}")


def _read(workspace: Workspace, name: str) -> Adapter:
    if name in ("base", "popularity"):
        raise RefusedError(f"{name} was not trained as an adapter: it has no run", remedy="name an adapter")
    if not (workspace.adapter_dir(name) / MANIFEST).is_file():
        from clients.commands.evaluate import adapters_named  # needs torch, and only a refusal needs it

        adapters_named(workspace, [name])
    return read_adapter(workspace.adapter_dir(name))


def _show(adapter: Adapter, diagnosis: Diagnosis, shop: str) -> None:
    windows = diagnosis.windows.get("validation")
    columns = columns_of(diagnosis.epochs)
    show_table(
        [{name: _figure(row.get(name)) for name in columns} for row in diagnosis.epochs],
        title=f"{adapter.adapter_id}: epoch {diagnosis.best_epoch} of {len(diagnosis.epochs)} is published",
    )
    say(f"losses in nats per token or title; HR@10 over {windows or 'an unknown number of'} validation windows")
    if diagnosis.distilled:
        _show_distilled(diagnosis.distilled)
    if diagnosis.losses:
        show_table(
            [
                {
                    "unit": loss.unit,
                    "distilled": loss.distilled,
                    "true": loss.real,
                    "ratio": loss.ratio,
                    "the paper's": PAPER_RATIO,
                }
                for loss in diagnosis.losses
            ],
            title="Mean loss over the first epoch",
        )
    if diagnosis.correlation:
        say(_describe_correlation(diagnosis.correlation))
    for sign in diagnosis.signs:
        show_sign(sign, shop)
    if not diagnosis.signs:
        say("no known sign of failure")
    for text in diagnosis.unknown:
        say(f"not known: {for_shop(text, shop)}")


def _show_distilled(distilled: DistilledSigns) -> None:
    show_table(
        [
            {
                "titles": sign.label,
                "share": sign.share,
                "n": sign.n,
                "beside it": "; ".join(f"{label} {share:.4f}" for label, share in sign.beside.items())
                or "no chance level: nothing drawn from the catalog is off it",
            }
            for sign in distilled.signs
        ],
        title=f"The {distilled.n} distilled titles",
    )
    say(*(f"left out: {note}" for note in distilled.notes))


def _describe_correlation(correlation: RankCorrelation) -> str:
    what = f"rank correlation of d_t with validation loss, n = {correlation.n}"
    if correlation.rho is None or correlation.chance is None:
        return f"{what}: none; {correlation.note}"
    return f"{what}: {correlation.rho:+.2f}; unrelated numbers give 0 ± {correlation.chance:.2f}; {correlation.note}"


def _figure(value: float | None) -> float | int | str:
    """A figure of an epoch; nothing where it was not computed."""
    return "" if value is None else value
