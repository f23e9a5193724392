"""Every error as `application/problem+json` (RFC 9457): one table, one shape."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException

from serving.errors import (
    AdapterForbiddenError,
    CatalogConflictError,
    CatalogUnwritableError,
    DeadlineError,
    EngineHungError,
    EngineUnavailableError,
    InvalidItemError,
    ItemChangesForbiddenError,
    NoSuchItemError,
    NotReadyError,
    OverloadedError,
    ServingError,
    StoreUnavailableError,
    UnknownAdapterError,
)
from serving.schema import FieldProblem, Problem

MEDIA_TYPE = "application/problem+json"

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class ProblemKind:
    """How one kind of error looks to a caller."""

    status: int
    code: str
    title: str
    retryable: bool = False


BY_EXCEPTION: dict[type[Exception], ProblemKind] = {
    OverloadedError: ProblemKind(503, "overloaded", "Too many requests", retryable=True),
    NotReadyError: ProblemKind(503, "not_ready", "Not ready", retryable=True),
    EngineUnavailableError: ProblemKind(503, "engine_unavailable", "Engine unavailable", retryable=True),
    EngineHungError: ProblemKind(503, "engine_hung", "Engine hung", retryable=True),
    StoreUnavailableError: ProblemKind(503, "store_unavailable", "Event store unavailable", retryable=True),
    DeadlineError: ProblemKind(504, "deadline_exceeded", "Deadline exceeded", retryable=True),
    AdapterForbiddenError: ProblemKind(403, "adapter_forbidden", "Adapter override forbidden"),
    UnknownAdapterError: ProblemKind(422, "unknown_adapter", "Unknown adapter"),
    ItemChangesForbiddenError: ProblemKind(403, "item_changes_forbidden", "Item changes forbidden"),
    NoSuchItemError: ProblemKind(404, "unknown_item", "Unknown item"),
    InvalidItemError: ProblemKind(422, "invalid_item", "Invalid item"),
    CatalogConflictError: ProblemKind(409, "catalog_conflict", "Catalog conflict"),
    CatalogUnwritableError: ProblemKind(503, "catalog_unwritable", "Catalog not writable", retryable=True),
    RequestValidationError: ProblemKind(422, "invalid_request", "Invalid request"),
}

BY_STATUS: dict[int, ProblemKind] = {
    400: ProblemKind(400, "bad_request", "Bad request"),
    404: ProblemKind(404, "not_found", "Not found"),
    405: ProblemKind(405, "method_not_allowed", "Method not allowed"),
    413: ProblemKind(413, "body_too_large", "Request body too large"),
    415: ProblemKind(415, "unsupported_media_type", "Request body must be JSON"),
}

INTERNAL = ProblemKind(500, "internal_error", "Internal server error")

RETRY_AFTER_S = 1

_MOST_ECHOED = 200  # characters of a request's own text that a problem repeats
_JSON = re.compile(r"application/([^/;]+\+)?json")


def problem_response(
    kind: ProblemKind,
    *,
    detail: str,
    request_id: str,
    errors: Sequence[FieldProblem] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    """Build the response of one problem."""
    problem = Problem(
        title=kind.title,
        status=kind.status,
        detail=detail,
        code=kind.code,
        retryable=kind.retryable,
        request_id=request_id,
        errors=list(errors),
    )
    return Response(problem.model_dump_json(), kind.status, headers=dict(headers or {}), media_type=MEDIA_TYPE)


def describe_problems() -> dict[int | str, dict[str, Any]]:
    """Return OpenAPI's `responses`: every status that a route may answer with."""
    kinds = [*BY_EXCEPTION.values(), *BY_STATUS.values(), INTERNAL]
    return {
        status: {
            "description": "; ".join(f"`{kind.code}`: {kind.title}" for kind in kinds if kind.status == status),
            "content": {MEDIA_TYPE: {"schema": {"$ref": "#/components/schemas/Problem"}}},
        }
        for status in sorted({kind.status for kind in kinds})
    }


def install_problems(app: FastAPI) -> None:
    """Make every error of the app a problem."""
    app.add_exception_handler(ServingError, _on_serving_error)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_bug)


def request_id_of(request: Request) -> str:
    """Return the id that the server gave this request."""
    return str(request.scope["softrec.request_id"])


async def _on_serving_error(request: Request, error: Exception) -> Response:
    kind = BY_EXCEPTION.get(type(error), INTERNAL)
    headers = {}
    if kind.status == 503:
        headers["Retry-After"] = str(error.retry_after_s if isinstance(error, OverloadedError) else RETRY_AFTER_S)
    errors = []
    if isinstance(error, AdapterForbiddenError | UnknownAdapterError):
        errors = [FieldProblem(path="body.adapter", reason=str(error))]
    if kind.status >= 500:
        _log.warning("%s: %s", kind.code, error)
    return problem_response(kind, detail=str(error), request_id=request_id_of(request), errors=errors, headers=headers)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    of_body = any(problem["loc"][:1] == ("body",) for problem in error.errors())
    if of_body and not _JSON.fullmatch(request.headers.get("content-type", "").partition(";")[0].strip().lower()):
        detail = "send the header content-type: application/json"
        return problem_response(BY_STATUS[415], detail=detail, request_id=request_id_of(request))
    errors = [
        FieldProblem(
            path=_cut(".".join(str(part) for part in problem["loc"])),
            reason=_cut(str(problem["msg"]).removeprefix("Value error, ")),  # pydantic's prefix to our messages
        )
        for problem in error.errors()[:20]
    ]
    detail = "; ".join(f"{problem.path}: {problem.reason}" for problem in errors[:3])
    return problem_response(
        BY_EXCEPTION[RequestValidationError], detail=detail, request_id=request_id_of(request), errors=errors
    )


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    kind = BY_STATUS.get(error.status_code, ProblemKind(error.status_code, "http_error", "Request failed"))
    detail = f"{request.method} {_cut(request.url.path)}: {_cut(str(error.detail))}"
    return problem_response(kind, detail=detail, request_id=request_id_of(request), headers=error.headers)


async def _on_bug(request: Request, error: Exception) -> Response:
    # Starlette raises the exception again after this answer, so the server's log has the traceback. It also sends the
    # answer outside our middleware, so this sets the id's header.
    request_id = request_id_of(request)
    return problem_response(
        INTERNAL,
        detail="an unexpected error; the server's log has its traceback",
        request_id=request_id,
        headers={"X-Request-Id": request_id},
    )


def _cut(text: str) -> str:
    return text if len(text) <= _MOST_ECHOED else f"{text[: _MOST_ECHOED - 1]}…"
