"""Which variants are trained again, which is the best, and what chance has to do with it; without any training."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from index.errors import MismatchError
from index.workspace import ShopSettings, Workspace
from tests.finished_runs import publish, sft_run, soft_run
from tests.notes import Notes
from training.adapter import Adapter, read_adapter
from training.errors import TrainingError
from training.recipes import variant_runs
from training.recipes.method import Method
from training.recipes.methods import SOFT
from training.recipes.soft.settings import SoftSettings
from training.recipes.variant_runs import (
    Outcome,
    best_outcome,
    check_names_free,
    measure_spread,
    publish_as,
    train_variants,
)
from training.recipes.variants import sweep_variants, whole_method

TINY = SoftSettings()
FULL = whole_method(SOFT)
DATA = SimpleNamespace(split=SimpleNamespace(validation=[None] * 100))
GROUNDER = SimpleNamespace(encoder=SimpleNamespace(fingerprint=""))
VARIANTS = sweep_variants(SOFT, [1.0, 10.0])


def fake_run(settings: SoftSettings):
    """Two epochs; the second is the best."""
    return soft_run((1.0, 1.0, 0.1), (0.8, 0.7, 0.4), **settings.to_json())


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    workspace = Workspace.create(tmp_path / "shop", ShopSettings())
    publish(workspace, "sft", sft_run(0.1, 0.3))
    return workspace


@pytest.fixture
def train(shop: Workspace, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[list[str], list[str]]]:
    """Train the variants by publishing a made-up run; returns the names that were trained, and what was said."""
    trained: list[str] = []

    def train_one(
        method: Method, workspace: Workspace, settings: SoftSettings, *_: object, name: str, dataset: object
    ) -> Adapter:
        assert dataset is DATA  # loaded once, for all
        trained.append(name)
        return publish(
            workspace, name, fake_run(settings), parents=[read_adapter(shop.adapter_dir(method.teacher)).adapter_id]
        )

    monkeypatch.setattr(variant_runs, "train", train_one)
    monkeypatch.setattr(variant_runs, "check_trained_on", lambda adapter, dataset: None)

    def train(settings: SoftSettings = TINY, variants=VARIANTS) -> tuple[list[str], list[str]]:
        trained.clear()
        notes = Notes()
        outcomes = train_variants(shop, SOFT, variants, settings, DATA, GROUNDER, notes)
        assert [outcome.variant for outcome in outcomes] == list(variants)
        assert {outcome.validation_windows for outcome in outcomes} == {100}
        return list(trained), notes.said

    return train


def outcome(variant_at: int, hr10: float, loss: float = 2.0, *, windows: int = 100) -> Outcome:
    variant = VARIANTS[variant_at]
    adapter = SimpleNamespace(facts=SimpleNamespace(settings=variant.settings(TINY).to_json()))
    return Outcome(variant, adapter, 1, 2, hr10, loss, windows, {"tau": 0.5})


def test_a_variant_that_is_there_is_not_trained_again(train):
    assert train()[0] == ["soft-alpha-1", "soft-alpha-10"]
    trained, said = train()
    assert trained == []
    assert sum("was trained so before: it is not trained again" in text for text in said) == 2


def test_only_what_is_missing_is_trained(shop, train):
    train()
    (shop.adapter_dir("soft-alpha-10") / "manifest.json").unlink()
    assert train()[0] == ["soft-alpha-10"]


def test_another_setting_trains_them_again_and_says_which(train):
    train()
    trained, said = train(replace(TINY, learning_rate=1e-3))
    assert trained == ["soft-alpha-1", "soft-alpha-10"]
    assert sum("is replaced: it was trained with another learning_rate" in text for text in said) == 2


def test_a_setting_that_decides_no_weight_trains_nothing(train):
    train()
    assert train(replace(TINY, checkpoint_every=7, test_windows=5000))[0] == []


def test_another_teacher_trains_them_again(shop, train):
    train()
    publish(shop, "sft", sft_run(0.2, 0.3))
    trained, said = train()
    assert len(trained) == 2
    assert any("it was made with sft@" in text for text in said)


def test_another_base_or_split_trains_them_again(train, monkeypatch):
    train()

    def refuse(adapter: Adapter, dataset: object) -> None:
        raise MismatchError("its prompt", expected="a", found="b", remedy="train it again")

    monkeypatch.setattr(variant_runs, "check_trained_on", refuse)
    trained, said = train()
    assert len(trained) == 2
    assert any(text.endswith("is replaced: its prompt: expected a, found b") for text in said)


def test_the_shops_soft_stands_in_for_a_variant_that_would_be_the_same(shop, train):
    parents = [read_adapter(shop.adapter_dir("sft")).adapter_id]
    soft = publish(shop, "soft", fake_run(TINY), parents=parents)
    assert train(variants=[FULL])[0] == []
    assert read_adapter(shop.adapter_dir("soft-full")).digest == soft.digest
    assert train(replace(TINY, seed=1), [FULL])[0] == ["soft-full"]


def test_outcomes_are_those_of_the_published_epoch(shop, train):
    train()
    first, _ = train_variants(shop, SOFT, VARIANTS, TINY, DATA, GROUNDER, Notes())
    assert (first.epoch, first.epochs, first.validation_hr10, dict(first.figures)) == (
        2,
        2,
        0.4,
        {"tau": 0.7, "d_ratio": 0.8},
    )
    assert first.to_json()["adapter_id"] == read_adapter(shop.adapter_dir("soft-alpha-1")).adapter_id


def test_a_second_name_has_the_same_digest_and_replaces_what_had_it(shop):
    first = publish(shop, "soft-alpha-1", fake_run(TINY))
    publish(shop, "soft", fake_run(replace(TINY, seed=1)))
    published = publish_as(shop, first, "soft")
    assert (published.name, published.digest) == ("soft", first.digest)
    assert read_adapter(shop.adapter_dir("soft")).facts == first.facts
    names = {path.name for path in shop.adapters_dir.iterdir()}
    assert names == {"sft", "soft", "soft-alpha-1"}


def test_an_adapter_of_another_method_is_not_replaced(shop):
    check_names_free(shop, SOFT, ["soft", "soft-alpha-1"])
    publish(shop, "soft-alpha-1", sft_run(0.1))
    with pytest.raises(TrainingError, match=r"soft-alpha-1 holds an adapter of method sft.*rename or remove it"):
        check_names_free(shop, SOFT, ["soft", "soft-alpha-1"])


def test_an_adapter_that_cannot_be_read_is_not_replaced(shop):
    adapter = publish(shop, "soft-alpha-1", fake_run(TINY))
    (adapter.path / "history.jsonl").write_text("")
    with pytest.raises(TrainingError, match=r"changed since it was written .*; remove .*soft-alpha-1 and run this"):
        check_names_free(shop, SOFT, ["soft-alpha-1"])


def test_the_best_has_the_highest_hit_rate_then_the_lower_loss_then_the_smaller_alpha():
    small, large = 0, 1
    assert best_outcome([outcome(small, 0.1), outcome(large, 0.2, 9.0)], "curriculum_alpha").variant is VARIANTS[large]
    assert (
        best_outcome([outcome(small, 0.2, 2.1), outcome(large, 0.2, 2.0)], "curriculum_alpha").variant
        is VARIANTS[large]
    )
    assert best_outcome([outcome(large, 0.2), outcome(small, 0.2)], "curriculum_alpha").variant is VARIANTS[small]


def test_the_spread_stands_beside_what_chance_gives():
    """p = 0.1 over 100 windows: standard error sqrt(0.1 * 0.9 / 100) = 0.03; of a difference sqrt(2) * 0.03 = 0.0424,

    times 1.96 is 0.0832.
    """
    spread = measure_spread([outcome(0, 0.08), outcome(1, 0.12)])
    assert spread.width == pytest.approx(0.04)
    assert spread.standard_error == pytest.approx(0.03)
    assert spread.by_chance == pytest.approx(1.95996 * math.sqrt(2) * 0.03, rel=1e-4)
    assert spread.windows == 100
