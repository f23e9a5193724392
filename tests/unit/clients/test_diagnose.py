"""`softrec diagnose` on adapters as training publishes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from clients.commands.diagnose import diagnose_adapter
from clients.errors import RefusedError
from index.errors import CorruptArtifactError, MissingArtifactError
from index.workspace import ShopSettings, Workspace
from tests.finished_runs import publish, sft_run, soft_run
from tests.tiny_shop import tiny_catalog
from training.recipes.soft.signs import explain_soft
from training.report.diagnosis import diagnose
from training.report.distilled_signs import describe_distilled

SFT = sft_run(0.1, 0.3, 0.2)
SOFT = soft_run((1.0, 1.0, 0.1), (0.8, 0.7, 0.4), (0.7, 0.6, 0.2))
TITLES, TRUTHS = ["Tetris", "Doom", "Doom", "Dom"], ["Tetris", "Myst", "Doom", "Pong"]
DIAGNOSIS = explain_soft(SOFT, parent=SFT, distilled=describe_distilled(TITLES, TRUTHS, tiny_catalog()))


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    """Without catalog, log and base: a stored diagnosis needs none of them."""
    return Workspace.create(tmp_path / "my shop", ShopSettings())


def test_what_the_run_stored_is_shown_drawn_and_written(shop: Workspace, capsys: pytest.CaptureFixture[str]):
    adapter = publish(shop, "soft", SOFT, parents=["sft@1"], diagnosis=DIAGNOSIS.to_json())
    assert diagnose_adapter(shop.root, json_path=shop.root / "out.json") == DIAGNOSIS
    content = json.loads((shop.root / "out.json").read_text())
    assert content["adapter_id"] == adapter.adapter_id
    assert content["distilled"]["signs"][0]["n"] == 4
    assert (shop.reports_dir / "run-soft.png").read_bytes().startswith(b"\x89PNG")
    assert adapter.adapter_id in (shop.reports_dir / "run-soft.html").read_text()
    shown = capsys.readouterr().out
    assert "epoch 2 of 3 is published" in shown
    assert "HR@10 over 100 validation windows" in shown
    assert "random pair" in shown
    assert "off_catalog" in shown  # one title of four
    assert "not known" not in shown


@pytest.mark.parametrize("stored", [None, {"format": "of the future"}])
def test_an_adapter_of_another_version_is_refused_with_the_command(shop: Workspace, stored: dict[str, Any] | None):
    publish(shop, "sft", SFT, diagnosis=stored)
    with pytest.raises(CorruptArtifactError, match=r"diagnosis\.json.*softrec train sft"):
        diagnose_adapter(shop.root, "sft")


def test_without_a_name_it_is_the_last_methods_that_the_shop_has(shop: Workspace):
    publish(shop, "sft", SFT, diagnosis=diagnose(SFT).to_json())
    publish(shop, "zeta", SFT, diagnosis=diagnose(SFT).to_json())
    assert diagnose_adapter(shop.root).method == "sft"
    publish(shop, "soft", SOFT, diagnosis=DIAGNOSIS.to_json())
    assert diagnose_adapter(shop.root).method == "soft"


def test_a_name_that_leads_nowhere_is_refused_with_the_way(shop: Workspace):
    with pytest.raises(MissingArtifactError, match="softrec train soft"):
        diagnose_adapter(shop.root)
    with pytest.raises(RefusedError, match="base was not trained"):
        diagnose_adapter(shop.root, "base")
    publish(shop, "soft-a10", SOFT)
    with pytest.raises(RefusedError, match="did you mean soft-a10"):
        diagnose_adapter(shop.root, "soft-a1")
