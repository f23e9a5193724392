"""Run the HTTP server in this process until it is told to stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import signal
import socket
from collections.abc import Awaitable, Callable

import uvicorn

from clients.errors import RefusedError
from index.workspace import Workspace
from serving.http.app import create_app
from serving.service import EngineOpener, Note, open_service, open_vllm
from serving.settings import ServingSettings

GRACE_S = 10  # how long requests in work may take to finish once the server is told to stop

OnReady = Callable[[str], Awaitable[bool]]  # told the address; returns whether to keep serving


def reserve_address(host: str, port: int) -> socket.socket:
    """Take an address before the engine starts, so that a taken one costs no half minute. Nobody can connect yet.

    Raises:
        RefusedError: the address is in use or not this machine's.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        reserved = socket.socket(family, kind, protocol)
        try:
            reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            reserved.bind(address)
        except OSError:
            reserved.close()
            raise
    except OSError as error:
        raise RefusedError(
            f"cannot listen on {host}:{port} ({error.strerror})", remedy="choose another --port"
        ) from error
    return reserved


def run_server(
    workspace: Workspace,
    settings: ServingSettings,
    reserved: socket.socket,
    *,
    on_ready: OnReady,
    note: Note,
    open_engine: EngineOpener = open_vllm,
) -> None:
    """Open the shop, serve it, and close everything again, on SIGINT and SIGTERM as well.

    A first signal lets requests in work finish; a second one does not.

    Raises:
        SoftrecError: the shop could not be opened; see `serving.service.open_service`.
    """
    with reserved, contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_serve(workspace, settings, reserved, on_ready, note, open_engine))


async def _serve(
    workspace: Workspace,
    settings: ServingSettings,
    reserved: socket.socket,
    on_ready: OnReady,
    note: Note,
    open_engine: EngineOpener,
) -> None:
    this = asyncio.current_task()
    assert this is not None  # we are a coroutine
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, this.cancel)
    async with open_service(workspace, settings, open_engine=open_engine, note=note) as service:
        app = create_app(contextlib.nullcontext(service), max_body_bytes=settings.max_body_bytes)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S
        )
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # the signals are handled above, from before the engine starts
        serving = asyncio.create_task(server.serve(sockets=[reserved]))
        try:
            while not (server.started or serving.done()):
                await asyncio.sleep(0.02)
            # What is loaded now stays, 700,000 objects with torch and vLLM: looking through all of them for garbage
            # would stop every request for half a second, now and then
            gc.collect()
            gc.freeze()
            if await on_ready(_url(reserved)):
                await asyncio.wait([serving])
        finally:
            gc.unfreeze()  # else extension modules complain of leaks at exit
            server.should_exit = True
            await serving


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if bound.family == socket.AF_INET else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
