"""A sweep and an ablation on a small shop: the same runs as one by one, each done once, the best one published."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from clients.commands.ablate import ablate_method
from clients.commands.sweep import sweep_method
from index.workspace import Workspace
from tests.shop import SETTINGS, add_index
from training.adapter import Adapter, read_adapters
from training.progress import Silence
from training.recipes.methods import SOFT, train
from training.recipes.soft.distance import DistanceProbe

SMALL = replace(
    SETTINGS, train_windows=64, validation_windows=12, test_windows=12, distance_samples=2, beams=2, golden_prompts=2
)
CHANGES = [f"{name}={getattr(SMALL, name)}" for name in SMALL.changed]


@pytest.fixture(scope="module", autouse=True)
def falling_distance() -> Iterator[None]:
    """d_t is 4, 2, 4/3, 1, ... in every run: so small a model's own d_t hardly falls, and then alpha does nothing."""

    def distance(probe: DistanceProbe) -> float:
        vars(probe).setdefault("measured", []).append(None)
        return 4 / len(vars(probe)["measured"])

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(DistanceProbe, "distance", distance)
        yield


@pytest.fixture(scope="module")
def shop(trained_shop: Workspace, tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy with base, index and SFT adapter."""
    root: Path = tmp_path_factory.mktemp("sweep") / "shop"
    shutil.copytree(trained_shop.root, root)
    shutil.rmtree(root / "adapters" / "soft")
    return Workspace.open(root)


@pytest.fixture(scope="module")
def swept(shop: Workspace) -> dict[str, Adapter]:
    """What a sweep over two alphas leaves."""
    sweep_method(shop.root, "1,100", assignments=CHANGES)
    return read_adapters(shop.adapters_dir)


@pytest.fixture(scope="module")
def ablated(shop: Workspace, swept: dict[str, Adapter]) -> dict[str, Adapter]:
    """What an ablation leaves that takes the settings of the swept `soft`."""
    ablate_method(shop.root, "no-sa,no-sd,distance-steps")
    return read_adapters(shop.adapters_dir)


@pytest.fixture
def trains_nothing(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def train_again(*_: object, name: str, **__: object) -> None:
        raise AssertionError(f"{name} was trained again")

    monkeypatch.setattr("training.recipes.variant_runs.train", train_again)


def rows_of(adapter: Adapter, file: str = "history.jsonl") -> list[dict[str, Any]]:
    """The figures, without the time they took."""
    lines = (adapter.path / file).read_text(encoding="utf-8").splitlines()
    return [{name: value for name, value in json.loads(line).items() if name != "train_s"} for line in lines]


def weights_of(adapter: Adapter) -> bytes:
    return (adapter.path / "adapter_model.safetensors").read_bytes()


def test_a_sweep_is_the_same_as_training_one_by_one(shop: Workspace, swept: dict[str, Adapter]):
    """One adapter per alpha, none of them touched by the runs before it."""
    assert set(swept) == {"sft", "soft", "soft-alpha-1", "soft-alpha-100"}
    grounder = add_index(shop)
    single = train(SOFT, shop, replace(SMALL, curriculum_alpha=100.0), grounder, Silence(), name="single")
    try:
        assert weights_of(single) == weights_of(swept["soft-alpha-100"])
        assert rows_of(single) == rows_of(swept["soft-alpha-100"])
        assert single.facts.settings == swept["soft-alpha-100"].facts.settings
        other = rows_of(swept["soft-alpha-1"])
        assert rows_of(single)[0] == other[0]  # tau is 1 before the first update, whatever alpha is
        assert rows_of(single)[1]["validation_loss"] != other[1]["validation_loss"]
    finally:
        shutil.rmtree(single.path)


def test_the_best_by_validation_is_published_as_soft(shop: Workspace, swept: dict[str, Adapter]):
    """On equal HR@10 the lower loss decides."""
    metrics = {name: swept[name].facts.metrics for name in ("soft-alpha-1", "soft-alpha-100")}
    best = min(metrics, key=lambda name: (-metrics[name]["validation_hr10"], metrics[name]["validation_loss"]))
    report = json.loads((shop.reports_dir / "sweep.json").read_text(encoding="utf-8"))
    assert [row["validation_loss"] for row in report["variants"]] == [
        figures["validation_loss"] for figures in metrics.values()
    ]
    assert report["best"] == best
    assert swept["soft"].digest == swept[best].digest
    assert swept["soft"].adapter_id == report["published"]
    assert report["spread"]["windows"] == 12


@pytest.mark.usefixtures("trains_nothing")
def test_a_second_sweep_trains_nothing_and_comes_to_the_same(shop: Workspace, swept: dict[str, Adapter]):
    report = (shop.reports_dir / "sweep.json").read_bytes()
    outcomes = sweep_method(shop.root, "1,100", assignments=CHANGES)
    assert [outcome.adapter.digest for outcome in outcomes] == [
        swept[name].digest for name in ("soft-alpha-1", "soft-alpha-100")
    ]
    assert (shop.reports_dir / "sweep.json").read_bytes() == report


def test_without_sa_no_true_title_is_learned_and_without_sd_no_distilled_one(ablated: dict[str, Adapter]):
    for file in ("history.jsonl", "metrics.jsonl"):
        learned = {
            name: {loss for row in rows_of(ablated[name], file) for loss in row if loss.startswith("loss_")}
            for name in ("soft-no-sa", "soft-no-sd")
        }
        assert {name.removesuffix("_per_title") for name in learned["soft-no-sa"]} == {"loss_distilled"}
        assert {name.removesuffix("_per_title") for name in learned["soft-no-sd"]} == {"loss_real"}
    taus = {name: {row["tau"] for row in rows_of(ablated[name])} for name in ("soft-no-sa", "soft-no-sd")}
    assert taus == {"soft-no-sa": {1.0}, "soft-no-sd": {0.0}}


def test_the_distance_is_measured_four_times_an_epoch(ablated: dict[str, Adapter]):
    """64 windows in updates of 8: 8 updates, so every second one."""
    steps = ablated["soft-distance-steps"]
    assert steps.facts.settings["distance_every"] == 2
    assert steps.facts.settings["curriculum_alpha"] == ablated["soft"].facts.settings["curriculum_alpha"]
    measured = [row["step"] for row in rows_of(steps, "metrics.jsonl") if row["event"] not in ("update", "epoch")]
    assert measured == [0, 2, 4, 6, 8, 10, 12, 14]


def test_the_full_soft_is_the_shops_own_and_all_are_measured_beside_it(shop: Workspace, ablated: dict[str, Adapter]):
    assert ablated["soft-full"].digest == ablated["soft"].digest
    report = json.loads((shop.reports_dir / "ablation.json").read_text(encoding="utf-8"))
    variants = ["soft-full", "soft-no-sa", "soft-no-sd", "soft-distance-steps"]
    assert [row["name"] for row in report["variants"]] == variants
    assert [row["method"] for row in report["evaluations"]] == ["popularity", "sft", *variants]
    assert set(report["minus_full"]) == {"popularity", "sft", *variants} - {"soft-full"}
    [full, no_sa] = [row["HR@10"] for row in report["evaluations"] if row["method"] in ("soft-full", "soft-no-sa")]
    [difference] = [row for row in report["minus_full"]["soft-no-sa"] if row["metric"] == "HR@10"]
    assert difference["difference"] == pytest.approx(no_sa - full)
    assert difference["difference_low"] <= difference["difference"] <= difference["difference_high"]


@pytest.mark.usefixtures("trains_nothing", "ablated")
def test_a_second_ablation_trains_nothing_and_may_test_on_more_windows(
    shop: Workspace, capsys: pytest.CaptureFixture[str]
):
    """An ablation that the settings already are is the full SOFT, and is left out."""
    outcomes = ablate_method(shop.root, "no-sd", assignments=["test_windows=20"])
    assert [outcome.variant.name for outcome in outcomes] == ["soft-full", "soft-no-sd"]
    shown = capsys.readouterr()
    assert "20 test windows" in shown.out
    assert "it is not trained again" in shown.err
