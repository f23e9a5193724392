"""Processes that must not outlive their server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from serving.engine.kill_with_parent import KillWithParent

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
ROOT = Path(__file__).parents[2]


def wait_for(process_gone: Path) -> None:
    end = time.monotonic() + 20
    while process_gone.exists() and time.monotonic() < end:
        state = (process_gone / "stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # dead; nobody has asked for its status yet
            return
        time.sleep(0.02)
    assert not process_gone.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd is Linux's")
def test_a_watched_process_dies_with_a_killed_watcher() -> None:
    watched = subprocess.Popen(SLEEP)
    code = (
        f"import time; from serving.engine.kill_with_parent import KillWithParent; "
        f"r = KillWithParent([{watched.pid}]); print(1, flush=True); time.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert server.stdout is not None
    server.stdout.readline()
    server.kill()
    server.wait()
    server.stdout.close()
    assert watched.wait(20) == -signal.SIGKILL


def test_dismissed_it_kills_nothing() -> None:
    watched = subprocess.Popen(SLEEP)
    reaper = KillWithParent([watched.pid])
    reaper.dismiss()
    reaper.dismiss()
    assert watched.poll() is None
    watched.kill()
    watched.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel's parent-death signal is Linux's")
def test_the_embedded_redis_dies_with_a_killed_server() -> None:
    code = (
        "import time; from serving.events.embedded_redis import EmbeddedRedis; r = EmbeddedRedis(); "
        "print(r._process.pid, flush=True); time.sleep(60)"
    )
    server = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, cwd=ROOT)
    assert server.stdout is not None
    redis = int(server.stdout.readline())
    server.kill()
    server.wait()
    server.stdout.close()
    wait_for(Path(f"/proc/{redis}"))
