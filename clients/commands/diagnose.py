"""`softrec diagnose`: explain a training run."""

from __future__ import annotations

import shlex
from pathlib import Path

from clients.choices import BASE, POPULARITY, adapters_named, published_names
from clients.errors import RefusedError
from clients.tables import say, show_table, write_json
from clients.views.run import draw_run, show_sign
from index.workspace import Workspace
from training.adapter import Adapter, read_adapter
from training.recipes.methods import main_adapter
from training.report.diagnosis import PAPER_RATIO, Diagnosis, read_diagnosis
from training.report.distilled_signs import DistilledSigns
from training.report.finished_run import columns_of, for_shop


def diagnose_adapter(root: Path, name: str = "", json_path: Path | None = None) -> Diagnosis:
    """Print what is known of an adapter's training; draw it in `reports/run-<name>.png` and, as a page, `.html`.

    Args:
        root: the workspace.
        name: of the adapter; empty: the last method's that the shop has.
        json_path: where the diagnosis goes as JSON too.

    Raises:
        MissingArtifactError: the adapter is not trained yet.
        RefusedError: the name leads nowhere, or to something that was not trained as an adapter.
        CorruptArtifactError: the adapter keeps no diagnosis, or one of another version.
    """
    workspace = Workspace.open(root)
    name = name or main_adapter(published_names(workspace))
    if name in (BASE, POPULARITY):
        raise RefusedError(f"{name} was not trained as an adapter: it has no run", remedy="name an adapter")
    adapters_named(workspace, [name])
    adapter = read_adapter(workspace.adapter_dir(name))
    diagnosis = read_diagnosis(adapter)
    write_json(json_path, {"adapter_id": adapter.adapter_id, **diagnosis.to_json()})
    _show(adapter, diagnosis, shlex.quote(str(root)))
    draw_run(workspace, adapter, diagnosis)
    return diagnosis


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


def _figure(value: float | None) -> float | int | str:
    """A figure of an epoch; nothing where it was not computed."""
    return "" if value is None else value
