"""The README's commands, as a new user would type them, on a small shop: real training, real vLLM, real HTTP."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from clients.demo_shop import write_demo_shop

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```bash\n(.*?)```", README, flags=re.DOTALL)


def commands_of(block: str) -> list[str]:
    return [command for line in block.splitlines() if (command := line.split(" #")[0].strip())]


def on_free_port(text: str, url: str) -> str:
    """A README's text whose server is at `url`; a client that names none is told where."""
    moved = text.replace("http://127.0.0.1:8000", url).replace("--port 8000", f"--port {url.rpartition(':')[2]}")
    return f"{moved} --url {url}" if moved.startswith("softrec recommend") else moved


START, BUILD, SERVE, ASK = (commands_of(block) for block in BLOCKS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the user stands: items.csv, interactions.csv and users.parquet, as the README assumes."""
    folder = tmp_path_factory.mktemp("user")
    write_demo_shop(folder, users=80)
    pq.write_table(pa.table({"user_id": ["1", "2", "42", "nobody"]}), folder / "users.parquet")
    return folder


def run(command: str, folder: Path) -> str:
    """Run one line with the `softrec` of this environment; its output, or the failure with it."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        shlex.split(command), cwd=folder, env={**os.environ, "PATH": path}, capture_output=True, text=True, timeout=540
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(folder: Path) -> dict[str, str]:
    """What each command that builds printed."""
    return {command: run(command, folder) for command in BUILD}


@pytest.fixture(scope="module")
def server(folder: Path, built: dict[str, str]) -> Iterator[str]:
    """The README's server, on a port that is free."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        url = f"http://127.0.0.1:{probe.getsockname()[1]}"
    (command,) = SERVE
    arguments = [str(Path(sys.executable).with_name("softrec")), *shlex.split(on_free_port(command, url))[1:]]
    with subprocess.Popen(arguments, cwd=folder, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        ready = process.stdout.readline()
        try:
            assert url in ready, ready
            yield url
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(timeout=60) == 0


def test_the_readme_says_what_make_and_ci_run():
    assert START == ["make demo", "make test"]
    assert "make test" in (ROOT / ".ci" / "run").read_text()


def test_the_build_commands_run_and_leave_the_workspace_of_the_architecture(folder, built):
    shop = folder / "shop"
    for name in ("softrec.toml", "catalog.parquet", "interactions.parquet", "distilled.parquet", "index/active"):
        assert (shop / name).is_file(), name
    for name in ("base", "adapters/sft", "adapters/soft"):
        assert (shop / name / "manifest.json").is_file(), name
    evaluation = json.loads((shop / "reports" / "evaluation.json").read_text())
    assert evaluation[0]["method"] == "popularity"
    ranked = {(row["method"], row["ranking"]) for row in evaluation[1:]}
    assert ranked >= {(name, ranking) for name in ("sft", "soft") for ranking in ("l2", "likelihood", "fusion")}
    assert sum(row["served"] for row in evaluation) == 2
    assert {"HR@1", "HR@50", "NDCG@10", "HR@10_low", "HR@10_high", "users", "decoding", "ranking"} <= set(evaluation[1])
    assert (shop / "reports" / "compare-sft-soft.html").is_file()


def test_asking_works(folder, server):
    outputs = {
        command.split()[1 if command.startswith("softrec") else 0]: run(on_free_port(command, server), folder)
        for command in ASK
    }
    assert "adapter: s" in outputs["recommend"]  # sft@… or soft@…, by user 42's arm
    answer = json.loads(outputs["curl"])
    assert answer["degraded"] == ["unknown_history"]  # no film of that name in the demo's shop: labelled, not an error
    rows = pq.read_table(folder / "recs.parquet").to_pylist()
    assert {row["user_id"] for row in rows} == {"1", "2", "42", "nobody"}
    assert {row["source"] for row in rows if row["user_id"] == "nobody"} == {"popularity"}
    assert all(row["adapter_id"].startswith("soft@") for row in rows if row["user_id"] == "42")


def test_the_python_example_runs(folder, server):
    (example,) = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", on_free_port(example, server)], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 5


def test_a_command_out_of_order_names_the_one_that_comes_first(folder, tmp_path):
    softrec = str(Path(sys.executable).with_name("softrec"))
    for command, message in (
        (["index", "nowhere"], "softrec init"),
        (["serve", "nowhere"], "softrec init"),
        (["train", "soft", "nowhere"], "softrec init"),
    ):
        done = subprocess.run([softrec, *command], cwd=tmp_path, capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stdout) == (2, "")
        assert message in done.stderr
        assert len(done.stderr.splitlines()) == 1


def kill_once(arguments: list[str], *, seen: str) -> None:
    """Start `softrec ARGUMENTS` and SIGKILL it as soon as a line with `seen` came out."""
    softrec = str(Path(sys.executable).with_name("softrec"))
    with subprocess.Popen(
        [softrec, *arguments], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        assert process.stdout is not None
        lines = []
        for line in process.stdout:
            lines.append(line)
            if seen in line:
                process.kill()
                break
    assert process.returncode == -signal.SIGKILL, "".join(lines)


def test_killing_a_step_and_running_it_again_works(folder, tmp_path):
    """SIGKILL while base and adapter are trained: nothing half-made can be loaded, and the step runs again."""
    softrec = str(Path(sys.executable).with_name("softrec"))
    shop = tmp_path / "shop"
    files = ["--items", str(folder / "items.csv"), "--interactions", str(folder / "interactions.csv")]
    subprocess.run([softrec, "init", str(shop), *files], check=True, capture_output=True, timeout=60)
    quick = ["--set", "max_epochs=1", "--set", "train_windows=128", "--set", "validation_windows=16"]
    for step, seen, artifact in (
        (["base", str(shop), *quick[2:]], "pre-train the stand-in base: started", shop / "base"),
        (["train", "sft", str(shop), *quick], "epoch 1: started", shop / "adapters" / "sft"),
    ):
        kill_once(step, seen=seen)
        assert not artifact.exists()
        refused = subprocess.run([softrec, "serve", str(shop)], capture_output=True, text=True, timeout=120)
        assert (refused.returncode, len(refused.stderr.splitlines())) == (2, 1), refused.stderr
        subprocess.run([softrec, *step], check=True, capture_output=True, timeout=400)
        assert (artifact / "manifest.json").is_file()
        assert not list(artifact.parent.glob(f".{artifact.name}.draft-*"))
