"""`softrec sweep` and `softrec ablate` as far as they go without training anything."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from clients.commands.ablate import ablate_method
from clients.commands.sweep import _say_what_counts, _show_spread, sweep_method
from clients.views.outcomes import show_outcomes
from index.errors import MissingArtifactError, SoftrecError
from index.workspace import ShopSettings, Workspace
from tests.finished_runs import publish, sft_run, soft_run
from training.adapter import GoldenPrompt
from training.recipes.methods import SOFT
from training.recipes.soft.settings import SoftSettings
from training.recipes.variant_runs import Outcome
from training.recipes.variants import sweep_variants

TINY = SoftSettings()


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    """Without catalog, log and base: whatever got as far as training would ask for them."""
    return Workspace.create(tmp_path / "shop", ShopSettings())


def outcomes_of(*shares: float, windows: int = 512) -> list[Outcome]:
    """One outcome per share, of alphas 1, 10, 100, ..."""
    variants = sweep_variants(SOFT, [10.0**at for at in range(len(shares))])
    return [
        Outcome(
            variant,
            SimpleNamespace(
                adapter_id=f"{variant.name}@0",
                golden=(GoldenPrompt((1,), (2,), -share, -1.0),),
                facts=SimpleNamespace(settings=variant.settings(TINY).to_json()),
            ),
            *(2, 3, share, 2.5, windows, {"tau": 0.7, "d_ratio": 0.9}),
        )
        for variant, share in zip(variants, shares, strict=True)
    ]


@pytest.mark.parametrize(
    ("alphas", "assignments", "message"),
    [
        ("ten", [], "alpha 'ten' is not a number; list positive numbers, as in --values 0.1,1,10,100"),
        ("1,0", [], "alpha must be positive and finite, got 0; list positive numbers"),
        ("1,1", [], "alpha 1 is listed twice; list positive numbers"),
        ("1", ["curriculum_alpha=3"], "curriculum_alpha is what a sweep tries out; list its values in --values"),
        ("1", ["schedule=linear"], "schedule 'linear' looks neither at d_t nor at alpha; --set schedule=adaptive"),
        ("1", ["max_epoch=3"], "unknown setting 'max_epoch'; did you mean max_epochs?"),
    ],
)
def test_a_sweep_that_cannot_be_is_refused_before_anything_is_made(
    shop: Workspace, alphas: str, assignments: list[str], message: str
):
    with pytest.raises(SoftrecError, match=r"^[^\n]*$") as caught:
        sweep_method(shop.root, alphas, assignments=assignments)
    assert message in str(caught.value)
    assert [path.name for path in shop.root.iterdir()] == ["softrec.toml"]


@pytest.mark.parametrize(
    ("only", "assignments", "message"),
    [
        ("no_sa", [], "unknown ablation 'no_sa'; did you mean no-sa?"),
        ("", ["schedule=step"], "schedule 'step' looks neither at d_t nor at alpha; --set schedule=adaptive"),
    ],
)
def test_an_ablation_that_cannot_be_is_refused_before_anything_is_made(
    shop: Workspace, only: str, assignments: list[str], message: str
):
    with pytest.raises(SoftrecError, match=r"^[^\n]*$") as caught:
        ablate_method(shop.root, only, assignments=assignments)
    assert message in str(caught.value)
    assert [path.name for path in shop.root.iterdir()] == ["softrec.toml"]


@pytest.mark.parametrize("name", ["soft", "soft-alpha-0_1"])
def test_a_sweep_does_not_write_over_another_methods_adapter(shop: Workspace, name: str):
    publish(shop, name, sft_run(0.1))
    with pytest.raises(SoftrecError, match=rf"{name} holds an adapter of method sft.*rename or remove it"):
        sweep_method(shop.root, "0.1,1")


def test_an_ablation_does_not_write_over_another_methods_adapter(shop: Workspace):
    publish(shop, "soft-no-sa", sft_run(0.1))
    with pytest.raises(SoftrecError, match=r"soft-no-sa holds an adapter of method sft"):
        ablate_method(shop.root, "no-sa")
    with pytest.raises(MissingArtifactError):  # the name is not needed: it gets as far as the catalog
        ablate_method(shop.root, "no-sd")


def test_an_ablation_takes_the_shops_own_settings_unless_a_preset_is_named(shop: Workspace):
    publish(shop, "soft", soft_run((1.0, 1.0, 0.1), schedule="linear"))
    with pytest.raises(SoftrecError, match=r"schedule 'linear' looks neither"):
        ablate_method(shop.root)
    with pytest.raises(MissingArtifactError):
        ablate_method(shop.root, preset="tiny")


def test_the_table_names_each_adapter_with_its_figures(capsys: pytest.CaptureFixture[str]):
    show_outcomes(outcomes_of(0.03, 0.05), title="Validation")
    shown = capsys.readouterr().out
    for text in ("alpha 10", "soft-alpha-10@0", "0.0500", "2.5000", "2 of 3", "0.7000", "0.9000"):
        assert text in shown


def test_variants_that_came_out_the_same_are_named(capsys: pytest.CaptureFixture[str]):
    """Epoch 1 is on distilled titles alone; where it is the published one, alpha had no say."""
    show_outcomes(outcomes_of(0.03, 0.05, 0.03), title="Validation")
    assert "\nsoft-alpha-1, soft-alpha-100: the same weights, since" in capsys.readouterr().out


def test_a_spread_within_chance_is_called_that(capsys: pytest.CaptureFixture[str]):
    """p = 0.04 over 512 windows: standard error sqrt(0.04 * 0.96 / 512) = 0.00866."""
    report = _show_spread(SOFT, outcomes_of(0.03, 0.05), "shop")
    shown = capsys.readouterr().out
    assert "spread of HR@10 (largest - smallest): 0.0200" in shown
    assert "standard error of one such share of 512 windows is 0.0087" in shown
    assert "may be chance" in shown
    assert report["spread"]["width"] == pytest.approx(0.02)
    assert report["swings"] is None


def test_a_spread_beyond_chance_is_a_failure_sign_with_a_remedy(capsys: pytest.CaptureFixture[str]):
    report = _show_spread(SOFT, outcomes_of(0.03, 0.15), "'my shop'")
    shown = capsys.readouterr().out
    assert "warning: alpha_swings: validation HR@10 goes from 0.0300 at alpha 1 to 0.1500 at alpha 10" in shown
    assert "`softrec train soft 'my shop' --set curriculum_alpha=10 --set seed=1`" in shown
    assert report["swings"]["code"] == "alpha_swings"


def test_runs_without_a_hit_have_nothing_to_choose_by(capsys: pytest.CaptureFixture[str]):
    assert _show_spread(SOFT, outcomes_of(0.0, 0.0), "shop")["swings"] is None
    assert "no run had a hit, so this says nothing" in capsys.readouterr().out


def test_one_alpha_has_no_spread_and_is_no_best(capsys: pytest.CaptureFixture[str]):
    assert _show_spread(SOFT, outcomes_of(0.03), "shop") == {"spread": None, "swings": None}
    _say_what_counts(SOFT, 1, "shop")
    assert capsys.readouterr().out == (
        "what counts is the test windows: `softrec evaluate shop sft soft`, `softrec compare shop sft soft`\n"
    )
