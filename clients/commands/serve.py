"""`softrec serve`: every adapter of the shop over HTTP."""

from __future__ import annotations

import os
from pathlib import Path

from clients.http.server import reserve_address, run_server
from clients.progress import open_progress
from clients.tables import say
from index.workspace import Workspace
from serving.settings import read_settings


def serve_shop(root: Path, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM. Settings come from SOFTREC_* variables; see `serving.settings`.

    Raises:
        SoftrecError: something is missing, wrong or taken.
    """
    workspace = Workspace.open(root)
    settings = read_settings(os.environ)
    progress = open_progress()

    async def announce(url: str) -> bool:
        say(f"ready: {url}   try: softrec recommend --user ID --url {url}   stop: Ctrl-C")
        return True

    run_server(workspace, settings, reserve_address(host, port), on_ready=announce, note=progress.note)
    say("stopped")
