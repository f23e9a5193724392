"""See to it that a process does not outlive this one, even if this one is killed.

vLLM's engine process notices a regular shutdown only: after `kill -9` of the server, or an out-of-memory kill, it would
stay, with its gigabyte. A small interpreter waits on a pipe that ends when we do, and then kills it.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence

_SCRIPT = """
import os, signal, sys
watched = []
for pid in sys.argv[1:]:
    try:
        watched.append(os.pidfd_open(int(pid)))  # stays that process, even if its number is given to another
    except ProcessLookupError:
        pass
print("watching", flush=True)
if sys.stdin.buffer.read() != b"all is well":
    for process in watched:
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


class KillWithParent:
    """Kills processes when this process is gone. Linux; elsewhere it does nothing."""

    def __init__(self, pids: Sequence[int]) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        if sys.platform == "linux" and pids:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _SCRIPT, *map(str, pids)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C is for the server, not for this
            )
            assert self._process.stdout is not None
            self._process.stdout.readline()

    def dismiss(self) -> None:
        """End without killing anything. Safe to call twice."""
        if self._process is not None:
            self._process.communicate(b"all is well")
            self._process = None
