"""Lists of alphas and ablations: what is read, what is refused, what it changes."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from training.adapter import check_adapter_name
from training.errors import SettingError
from training.recipes import variants
from training.recipes.methods import SOFT
from training.recipes.soft.settings import SoftSettings
from training.recipes.variants import Variant, whole_method
from training.settings import TrainSettings

TINY = SoftSettings()
FULL = whole_method(SOFT)
ABLATIONS = variants.parse_ablations(SOFT, "")
ALPHAS = st.floats(min_value=0, exclude_min=True, allow_infinity=False)


def alpha_variants(alphas: tuple[float, ...] | list[float]) -> list[Variant]:
    return variants.sweep_variants(SOFT, alphas)


def parse_alphas(text: str) -> tuple[float, ...]:
    return variants.parse_values(SOFT, text)


def parse_ablations(text: str) -> tuple[str, ...]:
    return variants.parse_ablations(SOFT, text)


def ablation_variants(updates: int) -> dict[str, Variant]:
    return dict(zip(ABLATIONS, variants.ablation_variants(SOFT, ABLATIONS, updates), strict=True))


def differing(a: TrainSettings, b: TrainSettings) -> set[str]:
    return {setting.name for setting in fields(a) if getattr(a, setting.name) != getattr(b, setting.name)}


@given(ALPHAS)
def test_the_name_of_an_alpha_gives_the_very_number_back(alpha: float):
    """So different alphas have different names."""
    [variant] = alpha_variants([alpha])
    assert float(variant.name.removeprefix("soft-alpha-").replace("_", ".")) == alpha
    assert variant.settings(TINY) == replace(TINY, curriculum_alpha=alpha)


@given(st.lists(ALPHAS, min_size=1, unique=True))
def test_what_is_read_has_a_name_that_is_allowed(alphas: list[float]):
    text = ", ".join(map(str, alphas))
    try:
        read = parse_alphas(text)
    except SettingError as error:
        assume("fewer digits" not in str(error))
        raise
    assert read == tuple(alphas)
    assert all(check_adapter_name(variant.name) for variant in alpha_variants(read))


def test_no_list_means_the_papers_alphas():
    assert parse_alphas(" ") == (0.1, 1.0, 10.0, 100.0)


def test_the_papers_alphas_have_the_names_that_the_docs_show():
    names = [variant.name for variant in alpha_variants(parse_alphas("0.1,1,10,100"))]
    assert names == ["soft-alpha-0_1", "soft-alpha-1", "soft-alpha-10", "soft-alpha-100"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("1,,2", "alpha '' is not a number"),
        ("1,ten", "alpha 'ten' is not a number"),
        ("0", "must be positive and finite, got 0"),
        ("1,-0.5", "must be positive and finite, got -0.5"),
        ("nan", "must be positive and finite, got nan"),
        ("1e999", "must be positive and finite, got 1e999"),
        ("1,10,1.0", "alpha 1 is listed twice"),
        ("1.2345678901234567e-05", "too long for an adapter's name; give fewer digits"),
    ],
)
def test_an_alpha_that_cannot_be_is_one_line_with_the_remedy(text: str, message: str):
    with pytest.raises(SettingError, match=message) as caught:
        parse_alphas(text)
    assert caught.value.remedy
    assert "\n" not in str(caught.value)


def test_every_ablation_differs_from_the_full_soft_in_its_part_alone():
    """An epoch of 13 updates, of which 13 // 4 = 3 go between two measurements of d_t."""
    changed = {name: differing(variant.settings(TINY), TINY) for name, variant in ablation_variants(13).items()}
    fixed = {name: {"schedule"} for name in ("no-sa", "no-sd", "linear", "step")}
    assert changed == fixed | {"distance-steps": {"distance_every"}, "distance-minilm": {"distance_encoder"}}
    assert FULL.settings(TINY) == TINY
    settings = [variant.settings(TINY) for variant in ablation_variants(13).values()]
    assert [one.schedule for one in settings[:4]] == ["distilled", "real", "linear", "step"]
    assert settings[4].distance_every == 3


def test_an_epoch_of_fewer_than_four_updates_is_measured_before_each():
    assert ablation_variants(3)["distance-steps"].changes == {"distance_every": 1}


def test_names_of_ablations_do_not_depend_on_the_shop():
    assert tuple(ablation_variants(1000)) == ABLATIONS
    names = [variant.name for variant in (FULL, *ablation_variants(1000).values())]
    assert all(map(check_adapter_name, names))
    assert len(set(names)) == len(names)


def test_no_list_means_all_ablations():
    assert parse_ablations("") == ABLATIONS
    assert parse_ablations("step, no-sa") == ("step", "no-sa")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("no_sd", "unknown ablation 'no_sd'; did you mean no-sd?"),
        ("no-sa,liner", "unknown ablation 'liner'; did you mean linear?"),
        ("no-sa,,step", "unknown ablation ''; choose from no-sa, no-sd, linear"),
        ("everything", "choose from no-sa, no-sd, linear, step, distance-steps, distance-minilm"),
        ("step,step", "ablation step is listed twice"),
    ],
)
def test_an_ablation_that_cannot_be_is_one_line_with_the_remedy(text: str, message: str):
    with pytest.raises(SettingError) as caught:
        parse_ablations(text)
    assert message in str(caught.value)


def test_a_schedule_that_ignores_the_distance_has_no_alpha_to_tune_and_no_part_to_lose():
    SOFT.check_variants(TINY)
    with pytest.raises(SettingError, match=r"'linear' looks neither at d_t nor at alpha; --set schedule=adaptive"):
        SOFT.check_variants(replace(TINY, schedule="linear"))
