"""A training run: its curves, its page, its signs of failure."""

from __future__ import annotations

import shlex

from clients.pages.run_page import write_run_page
from clients.tables import say
from index.artifact import write_file
from index.workspace import Workspace
from training.adapter import Adapter
from training.report.curves import DARK, draw_curves
from training.report.diagnosis import Diagnosis
from training.report.failure_signs import FailureSign
from training.report.finished_run import for_shop, read_run


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
