"""A throw-away Postgres for the tests: a cluster of its own in a temporary folder, on a Unix socket, without a port."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
import uuid
from pathlib import Path

import psycopg
import pytest

_START_TIMEOUT_S = 60.0
# What makes a database survive a power cut, which no test needs
_SETTINGS = ("listen_addresses=", "fsync=off", "synchronous_commit=off", "full_page_writes=off")


def find_programs() -> Path:
    """Return the folder of `initdb` and `postgres`; skip the test, with the command that installs them, without one."""
    initdb = shutil.which("initdb")
    folders = [Path(initdb).resolve().parent] if initdb else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not folders:
        pytest.skip("NO POSTGRES: its statements are NOT tested. Install it: requirements/system.sh postgresql")
    return folders[-1]


class PostgresServer:
    """A running Postgres. It ends with this process, however that ends. Whoever reaches its socket may do anything."""

    def __init__(self, programs: Path) -> None:
        """Make a cluster with the programs of a folder and start it; return when it answers."""
        # pytest's tmp_path is closed to other users, and Postgres does not run as root
        self._folder = Path(tempfile.mkdtemp(prefix="softrec-postgres-"))
        self._programs = programs
        self._process: subprocess.Popen[bytes] | None = None
        self._launch = ["setpriv", "--pdeathsig=INT"]
        try:
            if os.geteuid() == 0:
                user = pwd.getpwnam("postgres")
                os.chown(self._folder, user.pw_uid, user.pw_gid)
                self._launch += [f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups"]
            options = ["--pgdata=data", "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale"]
            subprocess.run(
                [*self._launch, str(programs / "initdb"), *options, "--no-sync"],
                cwd=self._folder, stdin=subprocess.DEVNULL, capture_output=True, check=True,
            )  # fmt: skip
            self.start()
        except BaseException:
            self.close()
            raise

    def make_database(self) -> str:
        """Make an empty database; return its URL."""
        name = f"test_{uuid.uuid4().hex}"
        with self.connect() as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return f"postgresql://postgres@/{name}?host={self._folder}"

    def connect(self) -> psycopg.Connection:
        """Return a connection of the superuser, which commits every statement."""
        return psycopg.connect(host=str(self._folder), user="postgres", autocommit=True)

    def start(self) -> None:
        """Start the server; return when it answers."""
        settings = [f"-c{setting}" for setting in (f"unix_socket_directories={self._folder}", *_SETTINGS)]
        with (self._folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self._launch, str(self._programs / "postgres"), "-D", "data", *settings],
                cwd=self._folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        end = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                return self.connect().close()
            except psycopg.OperationalError:
                if self._process.poll() is not None or time.monotonic() > end:
                    raise RuntimeError(f"Postgres did not start:\n{(self._folder / 'log').read_text()}") from None
                time.sleep(0.01)

    def stop(self) -> None:
        """Stop the server; open connections break. Safe to call twice."""
        if self._process is not None:
            self._process.send_signal(signal.SIGINT)  # its fast shutdown
            try:
                self._process.wait(30)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()
            self._process = None

    def close(self) -> None:
        """Stop the server and remove its folder. Safe to call twice."""
        self.stop()
        shutil.rmtree(self._folder)
