"""Processes that must not outlive their server."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from index.kill_with_parent import KillWithParent

SLEEP = [sys.executable, "-c", "import time; time.sleep(60)"]
ROOT = Path(__file__).parents[2]


def watch_and_die(watched: list[subprocess.Popen[bytes]]) -> None:
    """Run a process that watches others and is killed at once."""
    code = (
        "import os, sys; from index.kill_with_parent import KillWithParent; "
        "killer = KillWithParent([int(pid) for pid in sys.argv[1:]]); os.kill(os.getpid(), 9)"
    )
    pids = [str(process.pid) for process in watched]
    assert subprocess.run([sys.executable, "-c", code, *pids], cwd=ROOT, check=False).returncode == -signal.SIGKILL


def wait_for(process_gone: Path) -> None:
    end = time.monotonic() + 20
    while process_gone.exists() and time.monotonic() < end:
        state = (process_gone / "stat").read_text().rpartition(")")[2].split()[0]
        if state == "Z":  # dead; nobody has asked for its status yet
            return
        time.sleep(0.02)
    assert not process_gone.exists()


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd is Linux's")
def test_all_watched_processes_die_with_a_watcher_that_is_killed_at_once() -> None:
    watched = [subprocess.Popen(SLEEP) for _ in range(2)]
    watch_and_die(watched)
    assert [process.wait(20) for process in watched] == [-signal.SIGKILL] * 2


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd is Linux's")
def test_a_process_that_is_gone_does_not_keep_another_from_being_watched() -> None:
    gone, watched = subprocess.Popen([sys.executable, "-c", ""]), subprocess.Popen(SLEEP)
    gone.wait()
    watch_and_die([gone, watched])
    assert watched.wait(20) == -signal.SIGKILL


def test_dismissed_it_kills_nothing() -> None:
    watched = subprocess.Popen(SLEEP)
    killer = KillWithParent([watched.pid])
    killer.dismiss()
    killer.dismiss()
    assert watched.poll() is None
    watched.kill()
    watched.wait()


@pytest.mark.skipif(sys.platform != "linux", reason="pidfd is Linux's")
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
