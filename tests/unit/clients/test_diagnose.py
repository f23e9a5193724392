"""`softrec diagnose` on adapters as training publishes them, and as earlier versions did."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.commands.diagnose import diagnose_adapter
from clients.errors import RefusedError
from index.catalog.catalog import write_catalog
from index.errors import MissingArtifactError
from index.workspace import ShopSettings, Workspace
from tests.finished_runs import SETTINGS, publish, sft_run, soft_run
from tests.tiny_shop import tiny_catalog
from training.adapter import Adapter
from training.data.dataset import load_split
from training.report.diagnosis import diagnose
from training.report.distilled_signs import describe_distilled
from training.settings import restore_settings

SFT = sft_run(0.1, 0.3, 0.2)
SOFT = soft_run((1.0, 1.0, 0.1), (0.8, 0.7, 0.4), (0.7, 0.6, 0.2))
TITLES, TRUTHS = ["Tetris", "Doom", "Doom", "Dom"], ["Tetris", "Myst", "Doom", "Pong"]


@pytest.fixture
def shop(tmp_path: Path) -> Workspace:
    """A catalog of 7 titles, a log of 20 users with 3 interactions each, and distilled titles of the SFT adapter."""
    workspace = Workspace.create(tmp_path / "my shop", ShopSettings())
    write_catalog(workspace.catalog_path, tiny_catalog())
    log = [(f"u{user}", f"i{1 + (user + at) % 8}", 100 * user + at) for user in range(20) for at in range(3)]
    users, items, times = zip(*log, strict=True)
    columns = {"user_id": users, "item_id": items, "timestamp": times, "rating": np.full(len(log), np.nan, np.float32)}
    pq.write_table(pa.table(columns), workspace.interactions_path)
    return workspace


def publish_older(shop: Workspace, name: str, run: object = None, **facts: object) -> Adapter:
    """As a version published that kept neither log nor diagnosis."""
    run = run or (SFT if name == "sft" else SOFT)
    _, split = load_split(shop, restore_settings(SETTINGS))
    known = {"catalog_digest": tiny_catalog().digest, "training_data": split.training_data}
    return publish(shop, name, run, keeps_log=False, **(known | facts))


def write_distilled(shop: Workspace, teacher: str) -> None:
    table = pa.table({"target": TRUTHS, "title": TITLES})
    pq.write_table(table.replace_schema_metadata({b"softrec": json.dumps({"teacher": teacher})}), shop.distilled_path)


def test_what_the_run_stored_is_shown_drawn_and_written(shop: Workspace, capsys: pytest.CaptureFixture[str]):
    """Nothing else of the workspace is asked for: catalog and log may be gone."""
    stored = diagnose(SOFT, parent=SFT, distilled=describe_distilled(TITLES, TRUTHS, tiny_catalog()))
    adapter = publish(shop, "soft", SOFT, parents=["sft@1"], diagnosis=stored.to_json())
    shop.catalog_path.unlink()
    shop.interactions_path.unlink()
    diagnosis = diagnose_adapter(shop.root, json_path=shop.root / "out.json")
    assert diagnosis == stored
    content = json.loads((shop.root / "out.json").read_text())
    assert content["adapter_id"] == adapter.adapter_id
    assert content["distilled"]["signs"][0]["n"] == 4
    assert (shop.reports_dir / "run-soft.png").read_bytes().startswith(b"\x89PNG")
    assert adapter.adapter_id in (shop.reports_dir / "run-soft.html").read_text()
    shown = capsys.readouterr().out
    assert "epoch 2 of 3 is published" in shown
    assert "HR@10 over 100 validation windows" in shown
    assert "random pair" in shown
    assert "not known" not in shown


def test_an_older_adapter_is_explained_from_what_is_still_there(shop: Workspace):
    sft = publish_older(shop, "sft")
    write_distilled(shop, sft.adapter_id)
    publish_older(shop, "soft", parents=[sft.adapter_id])
    diagnosis = diagnose_adapter(shop.root)
    assert diagnosis.unknown == ()
    assert diagnosis.distilled == describe_distilled(TITLES, TRUTHS, tiny_catalog())
    assert [loss.ratio for loss in diagnosis.losses] == [0.5, 0.3]
    assert diagnosis.windows["validation"] + diagnosis.windows["test"] < diagnosis.windows["train"]
    assert [sign.code for sign in diagnosis.signs] == ["off_catalog"]  # one title of four


def test_what_is_gone_is_named_with_what_brings_it_back(shop: Workspace, capsys: pytest.CaptureFixture[str]):
    """SFT was trained again, so parent and distilled titles are another's; and the log has grown since."""
    sft = publish_older(shop, "sft")
    publish_older(shop, "soft", parents=[sft.adapter_id], training_data="other")
    again = publish_older(shop, "sft", sft_run(0.2, 0.1))
    write_distilled(shop, again.adapter_id)
    diagnosis = diagnose_adapter(shop.root)
    assert (diagnosis.distilled, diagnosis.losses, dict(diagnosis.windows)) == (None, (), {})
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("not known: ")]
    assert len(lines) == 3
    assert "the log or its split has changed" in lines[0]
    assert f"{sft.adapter_id} was replaced by {again.adapter_id}" in lines[1]
    assert f"distilled.parquet is {again.adapter_id}'s" in lines[2]
    assert all(f"`softrec train soft '{shop.root}' --preset tiny`" in line for line in lines[1:])


def test_an_empty_workspace_still_shows_the_epochs(shop: Workspace, capsys: pytest.CaptureFixture[str]):
    publish_older(shop, "soft", parents=["sft@1"])
    shop.catalog_path.unlink()
    diagnosis = diagnose_adapter(shop.root)
    assert len(diagnosis.unknown) == 3
    assert "sft@1 is gone" in capsys.readouterr().out
    assert diagnosis.best_epoch == 2


def test_a_diagnosis_of_another_version_is_made_anew(shop: Workspace):
    publish(shop, "sft", SFT, diagnosis={"format": "of the future"})
    assert diagnose_adapter(shop.root, "sft").epochs == tuple(SFT.history)


def test_sft_has_no_parent_to_miss(shop: Workspace):
    publish_older(shop, "sft", replace(SFT, name="sft"))
    assert diagnose_adapter(shop.root, "sft").unknown == ()


def test_a_name_that_leads_nowhere_is_refused_with_the_way(shop: Workspace):
    with pytest.raises(MissingArtifactError, match="softrec train soft"):
        diagnose_adapter(shop.root)
    with pytest.raises(RefusedError, match="base was not trained"):
        diagnose_adapter(shop.root, "base")
    publish_older(shop, "soft-a10", SOFT)
    with pytest.raises(RefusedError, match="did you mean soft-a10"):
        diagnose_adapter(shop.root, "soft-a1")
