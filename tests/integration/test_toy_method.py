"""A method that is one file and one entry of METHODS: trained, swept, looked ahead at, evaluated, diagnosed, served."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from typer.testing import CliRunner

from clients.cli import app
from index.catalog.catalog import read_catalog
from index.workspace import Workspace
from serving.schema import RecommendRequest
from serving.service import open_service
from serving.settings import ServingSettings
from tests.fake_engine import FakeEngine
from tests.shop import settings_arguments
from tests.toy_method import TOY
from training.adapter import Adapter, read_adapter
from training.base_model import BaseModel
from training.recipes.methods import METHODS

SETS = settings_arguments(TOY, train_windows=48, validation_windows=12, test_windows=12, golden_prompts=2, max_epochs=1)


@pytest.fixture(scope="module", autouse=True)
def listed() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("training.recipes.methods.METHODS", (*METHODS, TOY))
        yield


@pytest.fixture(scope="module")
def shop(trained_shop: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the trained shop with the toy's adapter, trained from the command line."""
    root: Path = tmp_path_factory.mktemp("toy") / "shop"
    shutil.copytree(trained_shop.root, root)
    assert "adapter: toy@" in softrec("train", "toy", root, *SETS, "--set", "sharpness=0.3")
    return Workspace.open(root)


def softrec(*arguments: object) -> str:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.output


def test_it_is_trained_with_its_own_settings(shop: Workspace):
    facts = read_adapter(shop.adapter_dir("toy")).facts
    assert (facts.method, facts.parents, facts.settings["sharpness"]) == ("toy", (), 0.3)
    assert "sharpness" in facts.changed_settings
    assert "schedule" not in facts.settings


def test_a_wrong_setting_is_refused_with_the_nearest(shop: Workspace):
    result = CliRunner().invoke(app, ["train", "toy", str(shop.root), "--set", "sharpnes=1"])
    assert result.exit_code == 2
    assert "did you mean sharpness?" in result.stderr
    result = CliRunner().invoke(app, ["train", "toi", str(shop.root)])
    assert "did you mean toy?" in result.stderr


def test_it_is_looked_ahead_at(shop: Workspace, tmp_path: Path):
    softrec("train", "toy", shop.root, "--dry-run", "--json", tmp_path / "dry.json", *SETS)
    content = json.loads((tmp_path / "dry.json").read_text())
    assert content["method"] == "toy"
    assert [part["what"] for part in content["parts"]] == ["updates", "validation"]


def test_it_is_evaluated_and_diagnosed(shop: Workspace):
    softrec("evaluate", shop.root, "toy", "--ranking", "l2")
    rows = json.loads((shop.reports_dir / "evaluation.json").read_text())
    assert {row["method"] for row in rows} == {"popularity", "toy"}
    assert "toy@" in softrec("diagnose", shop.root)  # the last method's, where none is named


def test_its_own_setting_is_swept_and_its_parts_are_taken_away(shop: Workspace):
    softrec("sweep", shop.root, "--values", "0.25", *SETS)
    assert json.loads((shop.reports_dir / "sweep.json").read_text())["best"] == "toy-sharpness-0_25"
    softrec("ablate", shop.root)
    report = json.loads((shop.reports_dir / "ablation.json").read_text())
    assert [row["name"] for row in report["variants"]] == ["toy-full", "toy-flat"]


async def test_it_is_served_and_answers_by_default(shop: Workspace):
    async def open_engine(base: BaseModel, adapters: Sequence[Adapter], _: ServingSettings) -> FakeEngine:
        ids = base.renderer(adapters[0].facts.template).completion_ids("Zork")
        return GoldenEngine({adapter.adapter_id: lambda prompt: ids for adapter in adapters}, adapters)

    liked = read_catalog(shop.catalog_path).items[0].item_id
    async with open_service(shop, ServingSettings(adapters=("sft", "toy")), open_engine=open_engine) as service:
        asked = RecommendRequest(history=[liked], k=3)
        answer = await service.recommender.recommend(asked, request_id="r", record=False)
    assert answer.adapter == read_adapter(shop.adapter_dir("toy")).adapter_id
    assert len(answer.items) == 3


class GoldenEngine(FakeEngine):
    """Knows the adapters' golden prompts, as the engine does that serves the weights they were measured with."""

    def __init__(self, writers, adapters: Sequence[Adapter]) -> None:
        super().__init__(writers)
        self._adapters = {adapter.adapter_id: adapter for adapter in adapters}

    async def log_prob(self, prompt_ids, completion_ids, *, adapter_id):
        chosen = [self._adapters[adapter_id]] if adapter_id else self._adapters.values()
        [found, *_] = [
            golden
            for adapter in chosen
            for golden in adapter.golden
            if (golden.prompt_ids, golden.completion_ids) == (tuple(prompt_ids), tuple(completion_ids))
        ]
        return found.log_prob if adapter_id else found.base_log_prob
