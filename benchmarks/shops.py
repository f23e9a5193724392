"""Shops for benchmarks that were given none."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clients.commands.index import open_index
from clients.commands.init import init_shop
from clients.demo_shop import write_demo_shop
from index.workspace import Workspace
from training.progress import Silence
from training.recipes.methods import SFT, train
from training.recipes.stand_in import StandInSettings, train_stand_in
from training.settings import TrainSettings


def train_demo_shop(root: Path, *, quick: bool) -> Workspace:
    """Make the demo's shop with a stand-in base, an index and an SFT adapter of one epoch."""
    source = root / "source"
    write_demo_shop(source, users=120 if quick else 600)
    workspace = init_shop(
        root, items=source / "items.csv", interactions=source / "interactions.csv", noun="title", verb="enjoyed"
    )
    settings = replace(TrainSettings(), train_windows=256 if quick else 2048, max_epochs=1)
    train_stand_in(workspace, settings, Silence(), stand_in=StandInSettings(max_tokens=100_000 if quick else 600_000))
    train(SFT, workspace, settings, open_index(workspace, Silence()).grounder, Silence())
    return workspace
