"""Settings: from the environment, overridden by the command line, refused by name."""

import pytest

from serving.errors import SettingsError
from serving.settings import ServingSettings, read_settings


def test_environment_and_overrides() -> None:
    environ = {"SOFTREC_MAX_WAITING": "3", "SOFTREC_ARMS": "a, b", "SOFTREC_WEIGHTS": "0.25,0.75", "OTHER_X": "1"}
    settings = read_settings(environ, max_waiting=None, timeout_ms=7)
    assert (settings.max_waiting, settings.timeout_ms) == (3, 7)
    assert (settings.arms, settings.weights) == (("a", "b"), (0.25, 0.75))
    assert read_settings({}) == ServingSettings()


def test_an_empty_variable_is_an_unset_one_but_an_empty_experiment_is_none() -> None:
    assert read_settings({"SOFTREC_ARMS": "", "SOFTREC_MAX_RUNNING": ""}).arms == ("sft", "soft")
    assert read_settings({}).experiment == "sft-vs-soft"
    assert read_settings({"SOFTREC_EXPERIMENT": ""}).experiment is None


def test_an_unknown_variable_is_refused_with_a_guess() -> None:
    with pytest.raises(
        SettingsError, match=r"SOFTREC_MAX_WAITNG is not a setting \(did you mean SOFTREC_MAX_WAITING\?\)"
    ):
        read_settings({"SOFTREC_MAX_WAITNG": "3", "SOFTREC_Q": ""})
    with pytest.raises(SettingsError, match=r"SOFTREC_Q is not a setting; see"):
        read_settings({"SOFTREC_Q": ""})


def test_the_platforms_own_variables_stand_in() -> None:
    environ = {"REDIS_URL": "redis://a", "DATABASE_URL": "postgresql+psycopg://b"}
    assert read_settings(environ).redis_url == "redis://a"
    assert read_settings(environ | {"SOFTREC_REDIS_URL": "redis://c"}).redis_url == "redis://c"
    assert read_settings(environ).database_url == "postgresql+psycopg://b"


def test_bad_values_are_named_together() -> None:
    with pytest.raises(SettingsError, match=r"SOFTREC_TIMEOUT_MS='soon'.*SOFTREC_MAX_RUNNING='0'"):
        read_settings({"SOFTREC_MAX_RUNNING": "0", "SOFTREC_TIMEOUT_MS": "soon"})


@pytest.mark.parametrize("mode", ["exact", "beam", "sample_n"])
def test_a_decoding_that_is_offline_only_is_refused(mode: str) -> None:
    with pytest.raises(SettingsError, match="'greedy' or 'constrained_beam'") as caught:
        read_settings({"SOFTREC_DECODING": mode})
    assert str(caught.value).count("SOFTREC_DECODING") == 1


def test_every_setting_is_described() -> None:
    assert all(len(field.description or "") > 10 for field in ServingSettings.model_fields.values())
