"""What can go wrong between a person or program and softrec.

SoftrecError
└── ClientError
    ├── RefusedError              the command line will not do this; says why and how to insist
    ├── UnreachableError          no answer: connection refused or broken, or the wait ran out
    ├── UnreadableAnswerError     an answer that is not softrec's; carries its status and beginning
    └── ProblemError              the server said no (RFC 9457); carries the problem and its status
        ├── InvalidRequestError   400, 405, 413, 415, 422: the request itself; `problem.errors` names the fields
        ├── ForbiddenError        401, 403: not allowed to ask that
        ├── NotFoundError         404
        ├── ConflictError         409: what lies on the server's disk is not what it serves
        ├── QuotaExceededError    429: the caller's quota; carries `retry_after_s`
        ├── UnavailableError      503: the server's capacity, or not ready yet; carries `retry_after_s`
        ├── DeadlineError         504: not answered within `timeout_ms`
        └── ServerFailedError     any other status: a fault of the server
"""

from __future__ import annotations

from index.errors import SoftrecError
from serving.schema import Problem


class ClientError(SoftrecError):
    """Asking softrec for something did not work."""


class RefusedError(ClientError):
    """The command line will not do this without confirmation."""


class UnreachableError(ClientError):
    """No answer came, after every attempt that the retry policy allows."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(f"no answer from {url} ({reason})", remedy="start it with `softrec serve`, or name its --url")
        self.url = url


class UnreadableAnswerError(ClientError):
    """Something answered, but not in softrec's terms: another server, a proxy, or another version."""

    def __init__(self, url: str, status: int, beginning: str) -> None:
        super().__init__(
            f"{url} answered {status} with something that is not softrec's: {beginning!r}",
            remedy="check that the address is a softrec server of this version",
        )
        self.url = url
        self.status = status


class ProblemError(ClientError):
    """The server refused, and said why.

    Attributes:
        problem: the body as sent; `problem.code` is what a program looks at.
        retry_after_s: what the server asked to wait, in seconds, or None.
    """

    def __init__(self, problem: Problem, *, retry_after_s: float | None = None) -> None:
        fields = [f"{at.path}: {at.reason}" for at in problem.errors if at.reason not in problem.detail]
        detail = problem.detail + (f" [{'; '.join(fields)}]" if fields else "")
        super().__init__(f"{problem.status} {problem.code}: {detail}")
        self.problem = problem
        self.retry_after_s = retry_after_s

    @property
    def status(self) -> int:
        return self.problem.status


class InvalidRequestError(ProblemError):
    """The request is wrong; sending it again changes nothing."""


class ForbiddenError(ProblemError):
    """The caller may not ask that."""


class NotFoundError(ProblemError):
    """What the request names does not exist."""


class ConflictError(ProblemError):
    """The server cannot change what it serves, for its disk holds something else."""


class QuotaExceededError(ProblemError):
    """The caller has used up its quota for now."""


class UnavailableError(ProblemError):
    """The server is full, or not ready yet."""


class DeadlineError(ProblemError):
    """The answer took longer than was allowed."""


class ServerFailedError(ProblemError):
    """The server has a fault."""


_BY_STATUS: dict[int, type[ProblemError]] = {
    400: InvalidRequestError,
    401: ForbiddenError,
    403: ForbiddenError,
    404: NotFoundError,
    405: InvalidRequestError,
    409: ConflictError,
    413: InvalidRequestError,
    415: InvalidRequestError,
    422: InvalidRequestError,
    429: QuotaExceededError,
    503: UnavailableError,
    504: DeadlineError,
}


def problem_error(problem: Problem, *, retry_after_s: float | None = None) -> ProblemError:
    """Return the exception that a problem's status calls for."""
    return _BY_STATUS.get(problem.status, ServerFailedError)(problem, retry_after_s=retry_after_s)
