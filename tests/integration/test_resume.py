"""SIGKILL and SIGTERM in the middle of `softrec train soft`; the same command goes on to the unbroken run's numbers."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from index.workspace import Workspace
from tests.shop import settings_arguments
from training.adapter import Adapter, read_adapter

UPDATES = 20  # 160 windows in updates of 8, per epoch


@pytest.fixture
def shop(trained_shop: Workspace, tmp_path: Path) -> Workspace:
    """The shop with its SFT adapter and index; SOFT is to be trained."""
    shutil.copytree(trained_shop.root, tmp_path / "shop")
    shop = Workspace.open(tmp_path / "shop")
    shutil.rmtree(shop.adapter_dir("soft"))
    return shop


def start(shop: Workspace) -> subprocess.Popen[str]:
    settings = settings_arguments(checkpoint_every=7)
    command = [sys.executable, "-m", "clients", "train", "soft", str(shop.root), *settings]
    return subprocess.Popen(command, env={**os.environ}, stderr=subprocess.PIPE, text=True)


def stop_after(shop: Workspace, updates: int, number: signal.Signals) -> tuple[int, str]:
    """Start, wait until so many updates are logged, send the signal; (exit code, standard error)."""
    log = shop.run_dir("soft") / "metrics.jsonl"
    with start(shop) as process:
        while not log.is_file() or log.read_text().count('"event": "update"') < updates:
            assert process.poll() is None, process.stderr and process.stderr.read()
            time.sleep(0.01)
        process.send_signal(number)
        _, said = process.communicate(timeout=60)
    return process.returncode, said


def finish(shop: Workspace) -> str:
    with start(shop) as process:
        _, said = process.communicate(timeout=120)
    assert process.returncode == 0, said
    return said


def rows_of(adapter: Adapter) -> list[dict[str, Any]]:
    rows = [json.loads(line) for line in (adapter.path / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "train_s"} for row in rows]


def assert_same(shop: Workspace, expected: Adapter) -> None:
    found = read_adapter(shop.adapter_dir("soft"))
    assert rows_of(found) == rows_of(expected)
    assert found.golden == expected.golden
    ours, theirs = (load_file(adapter.path / "adapter_model.safetensors") for adapter in (found, expected))
    assert all((ours[name] == theirs[name]).all() for name in theirs)
    assert not shop.run_dir("soft").exists()


def test_sigkill_in_both_epochs_changes_no_number(shop, trained_adapters):
    code, _ = stop_after(shop, 10, signal.SIGKILL)
    assert code == -signal.SIGKILL
    assert not shop.adapter_dir("soft").exists()
    stop_after(shop, UPDATES + 5, signal.SIGKILL)
    assert "going on from" in finish(shop)
    assert_same(shop, trained_adapters["soft"])


def test_sigterm_saves_first_and_says_what_goes_on(shop, trained_adapters):
    """Exit code 143 = 128 + SIGTERM; every update that was logged is kept."""
    code, said = stop_after(shop, 10, signal.SIGTERM)
    assert code == 128 + signal.SIGTERM
    assert said.splitlines()[-1].startswith("softrec: stopped by SIGTERM; the run is saved; the same command goes on")
    logged = (shop.run_dir("soft") / "metrics.jsonl").read_text().count('"event": "update"')
    assert f"{logged} updates done" in finish(shop)
    assert_same(shop, trained_adapters["soft"])
