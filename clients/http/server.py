"""Run the HTTP server in this process until a signal stops it."""

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

GRACE_S = 10  # for running requests to finish after the first signal

OnReady = Callable[[str], Awaitable[bool]]  # receives the address; returns whether to keep serving


def reserve_address(host: str, port: int) -> socket.socket:
    """Bind an address before the engine starts, so that a conflict shows at once. It refuses connections until then.

    Raises:
        RefusedError: the address is in use or does not belong to this machine.
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
    """Open the workspace, serve it until SIGINT or SIGTERM, and close everything.

    After a first signal running requests may finish; after a second they may not.

    Raises:
        SoftrecError: the workspace cannot be opened; see `serving.service.open_service`.
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
    assert this is not None  # a coroutine always has a task
    for name in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(name, this.cancel)
    async with open_service(workspace, settings, open_engine=open_engine, note=note) as service:
        app = create_app(contextlib.nullcontext(service), max_body_bytes=settings.max_body_bytes)
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=GRACE_S
        )
        server = uvicorn.Server(config)
        server.capture_signals = contextlib.nullcontext  # the handlers above work before the engine starts
        serving = asyncio.create_task(server.serve(sockets=[reserved]))
        try:
            while not (server.started or serving.done()):
                await asyncio.sleep(0.02)
            # The 700,000 objects loaded by now stay, torch's and vLLM's: a full collection over them would stop every
            # request for half a second
            gc.collect()
            gc.freeze()
            if await on_ready(_url(reserved)):
                await asyncio.wait([serving])
        finally:
            gc.unfreeze()  # else extension modules report leaks at exit
            server.should_exit = True
            await serving


def _url(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    if host in ("0.0.0.0", "::"):
        host = "127.0.0.1" if bound.family == socket.AF_INET else "::1"
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
