"""Assignment: GrowthBook's own vectors, sticky, and of the asked shares."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving.errors import SettingsError
from serving.experiments.assignment import ArmsExperiment, bucket, fnv32a, plan_experiment


@pytest.mark.parametrize(("text", "expected"), [("", 0x811C9DC5), ("a", 0xE40C292C), ("foobar", 0xBF9CF968)])
def test_fnv32a_equals_the_published_vectors(text: str, expected: int) -> None:
    assert fnv32a(text) == expected


@pytest.mark.parametrize(
    ("seed", "unit", "expected"),
    [
        ("seed", "a", 0.0505),
        ("seed", "b", 0.2696),
        ("foo", "ab", 0.2575),
        ("foo", "def", 0.2019),
        ("89123klj", "8952klfjas09ujkasdf", 0.124),
        ("90850943850283058242805", "123", 0.7516),
        ("()**(%$##$%#$#", '___)((*":&', 0.0128),
    ],
)
def test_bucket_equals_growthbooks_vectors(seed: str, unit: str, expected: float) -> None:
    assert bucket(seed, unit) == expected


@given(st.text(min_size=1), st.lists(st.floats(0.1, 1), min_size=2, max_size=5))
def test_every_user_has_exactly_one_arm_always(user_id: str, raw: list[float]) -> None:
    arms = tuple(f"arm{number}" for number in range(len(raw)))
    experiment = ArmsExperiment("e", arms, tuple(weight / sum(raw) for weight in raw))
    try:
        user_id.encode()
    except UnicodeEncodeError:
        return  # lone surrogates never pass the schema
    assert experiment.assign(user_id) in arms
    assert experiment.assign(user_id) == experiment.assign(user_id)


def test_shares_follow_the_weights() -> None:
    """10 000 users, share 0.3: standard deviation sqrt(0.3 * 0.7 / 10000) = 0.0046; five of them are 0.023."""
    experiment = ArmsExperiment("e", ("a", "b"), (0.3, 0.7))
    share = sum(experiment.assign(f"user-{number}") == "a" for number in range(10_000)) / 10_000
    assert share == pytest.approx(0.3, abs=0.023)


def test_another_experiment_shuffles_anew() -> None:
    """Independent halves agree on half of the users."""
    first, second = (ArmsExperiment(name, ("a", "b"), (0.5, 0.5)) for name in ("x", "y"))
    agree = sum(first.assign(str(n)) == second.assign(str(n)) for n in range(10_000)) / 10_000
    assert agree == pytest.approx(0.5, abs=0.025)


def test_an_experiment_needs_its_arms_served() -> None:
    assert plan_experiment("e", ("sft", "soft"), (), served=["soft"]) is None
    assert plan_experiment(None, ("sft", "soft"), (), served=["sft", "soft"]) is None
    with pytest.raises(SettingsError, match=r"arm sft is not served; served: soft; set SOFTREC_ARMS"):
        plan_experiment("e", ("sft", "soft"), (), served=["soft"], arms_are_chosen=True)
    assert plan_experiment("e", ("soft",), (), served=["soft"], arms_are_chosen=True) is None
    assert plan_experiment(None, ("sft", "soft"), (), served=["soft"], arms_are_chosen=True) is None
    planned = plan_experiment("e", ("sft", "soft"), (), served=["soft", "sft"])
    assert planned == ArmsExperiment("e", ("sft", "soft"), (0.5, 0.5))
    with pytest.raises(SettingsError, match="one weight per arm"):
        plan_experiment("e", ("sft", "soft"), (0.5, 0.6), served=["soft", "sft"])
    with pytest.raises(SettingsError, match="twice"):
        plan_experiment("e", ("sft", "sft"), (), served=["sft"])
