"""The HTTP application: `create_app` puts a service behind routes. The service starts when the server does."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from starlette.middleware import Middleware

from serving.http.middleware import BodyLimit, RequestIds
from serving.http.problems import describe_problems, install_problems
from serving.http.routes import router
from serving.schema import Problem
from serving.service import Service

TITLE = "softrec"
VERSION = "1"  # of the API


def create_app(service: AbstractAsyncContextManager[Service], *, max_body_bytes: int = 8 << 20) -> FastAPI:
    """Build the application.

    Args:
        service: entered when the server starts and left when it stops; `serving.service.open_service(...)`, or
            `contextlib.nullcontext(service)` for one that is open already.
        max_body_bytes: a longer request body gets 413.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service as app.state.service:
            yield

    app = FastAPI(
        title=TITLE,
        version=VERSION,
        lifespan=lifespan,
        middleware=[Middleware(RequestIds), Middleware(BodyLimit, max_body_bytes=max_body_bytes)],
        responses=describe_problems(),
        docs_url=None,  # FastAPI's pages load scripts from a CDN: broken offline, and a stranger's code online
        redoc_url=None,
    )
    app.include_router(router)
    install_problems(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's generated description, with our Problem instead of FastAPI's error model."""
    if app.openapi_schema is None:
        document = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = document["components"]["schemas"]
        schemas.pop("HTTPValidationError", None)
        schemas.pop("ValidationError", None)
        problem = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas |= problem.pop("$defs", {})
        schemas["Problem"] = problem
        app.openapi_schema = document
    return app.openapi_schema
