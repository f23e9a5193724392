"""Kill child processes when this process is gone, even by `kill -9` or for lack of memory.

vLLM's engine notices only a regular shutdown of its server, and a Redis notices nothing: they would stay, with their
gigabytes. A small interpreter holds a pidfd of each and the other end of a socket; when the socket ends, it kills them.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from collections.abc import Sequence

_MOST = 64  # processes of one watcher

_SCRIPT = f"""
import signal, socket, sys
ours = socket.socket(fileno=int(sys.argv[1]))
_, watched, _, _ = socket.recv_fds(ours, 1, {_MOST})
if not ours.recv(1):
    for process in watched:
        try:
            signal.pidfd_send_signal(process, signal.SIGKILL)
        except ProcessLookupError:
            pass
"""


class KillWithParent:
    """Watches children of this process from its construction on. Linux only; elsewhere it does nothing.

    Args:
        pids: at most 64 children that were not waited for yet.
    """

    def __init__(self, pids: Sequence[int]) -> None:
        self._watcher: subprocess.Popen[bytes] | None = None
        processes: list[int] = []
        try:
            for pid in pids if sys.platform == "linux" else ():
                with contextlib.suppress(ProcessLookupError, PermissionError):  # gone, or forbidden in this container
                    processes.append(os.pidfd_open(pid))  # stays that process, even if its number is given to another
            if processes:
                self._start_watcher(processes)
        finally:
            for process in processes:
                os.close(process)

    def dismiss(self) -> None:
        """Let the children live on without this process. Safe to call twice."""
        if self._watcher is not None:
            with self._socket, contextlib.suppress(BrokenPipeError):
                self._socket.sendall(b"-")
            self._watcher.wait()
            self._watcher = None

    def _start_watcher(self, processes: list[int]) -> None:
        self._socket, theirs = socket.socketpair()
        socket.send_fds(self._socket, [b"+"], processes)  # they wait in the socket until the watcher is up
        with theirs:
            self._watcher = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _SCRIPT, str(theirs.fileno())],
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for this process, not for the watcher
            )
