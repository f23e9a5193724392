"""Fixtures shared by all tests. Threads are set before anything heavy is imported: two cores, one job or two of one."""

from __future__ import annotations

import os

os.environ.setdefault("OMP_NUM_THREADS", "2")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

from pathlib import Path

import pytest
from hypothesis import settings

from index.workspace import Workspace
from training.adapter import Adapter

settings.register_profile("suite", deadline=None, max_examples=50)  # a loaded machine is not a bug
settings.load_profile("suite")


@pytest.fixture(scope="session")
def based_shop(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A small shop with catalog, log and a stand-in base. Read only."""
    from tests.shop import add_base, import_demo_shop

    workspace = import_demo_shop(tmp_path_factory.mktemp("based") / "shop")
    add_base(workspace)
    return workspace


@pytest.fixture(scope="session")
def trained_shop(based_shop: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """The same with index, SFT and SOFT adapters. Read only."""
    import shutil

    from tests.shop import SETTINGS, add_index
    from training.progress import Silence
    from training.recipes.methods import SFT, SOFT, train

    root: Path = tmp_path_factory.mktemp("trained") / "shop"
    shutil.copytree(based_shop.root, root)
    workspace = Workspace.open(root)
    grounder = add_index(workspace)
    train(SFT, workspace, SETTINGS, grounder, Silence())
    train(SOFT, workspace, SETTINGS, grounder, Silence())
    return workspace


@pytest.fixture(scope="session")
def trained_adapters(trained_shop: Workspace) -> dict[str, Adapter]:
    from training.adapter import read_adapters

    return read_adapters(trained_shop.adapters_dir)
