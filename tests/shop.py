"""A small shop for tests, made by the product's own steps."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from clients.commands.index import open_index
from clients.demo_shop import write_demo_shop
from index.catalog.catalog import write_catalog
from index.ranking.grounding import Grounder
from index.tables.interactions import read_interactions, write_interactions
from index.tables.items import read_items
from index.workspace import ShopSettings, Workspace
from training.progress import Silence
from training.recipes.method import Method
from training.recipes.methods import SOFT
from training.recipes.soft.settings import SoftSettings
from training.recipes.stand_in import StandInSettings, train_stand_in
from training.settings import spell

# small enough for a test, large enough to learn something
# of SOFT; a method without these knobs takes the common ones
SETTINGS = replace(
    SoftSettings(),
    train_windows=160,
    validation_windows=24,
    test_windows=40,
    max_epochs=2,
    batch_size=8,
    micro_batch_size=8,
    warmup_steps=2,
    learning_rate=1e-2,
    distance_samples=16,
)
STAND_IN = StandInSettings(vocabulary=1024, hidden=64, layers=2, heads=2, max_tokens=100_000)


def settings_arguments(method: Method = SOFT, **changes: object) -> list[str]:
    """SETTINGS, changed, as `--set` takes them."""
    default = method.settings().to_json()
    chosen = {**method.settings.taken_from(SETTINGS).to_json(), **changes}
    pairs = [f"{name}={spell(value)}" for name, value in chosen.items() if value != default[name]]
    return [argument for pair in pairs for argument in ("--set", pair)]


def import_demo_shop(root: Path, *, users: int = 120) -> Workspace:
    """Catalog and log of a small demo shop."""
    source = root / "source"
    write_demo_shop(source, users=users)
    workspace = Workspace.create(root, ShopSettings(noun="title", verb="enjoyed"))
    catalog, _ = read_items(source / "items.csv", rejects_path=workspace.rejects_dir / "items.csv")
    log, _ = read_interactions(
        source / "interactions.csv", catalog, rejects_path=workspace.rejects_dir / "interactions.csv"
    )
    write_catalog(workspace.catalog_path, catalog)
    write_interactions(workspace.interactions_path, log)
    return workspace


def add_base(workspace: Workspace) -> None:
    """A stand-in base that trains in seconds."""
    train_stand_in(workspace, SETTINGS, Silence(), stand_in=STAND_IN)


def add_index(workspace: Workspace) -> Grounder:
    """The index, with the real sentence-transformers encoder."""
    return open_index(workspace, Silence()).grounder
