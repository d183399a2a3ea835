"""What can go wrong with a request, and what must come of it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from http_cases import Case
from rerank_servers import EDITS, Fault, closed, edit, empty, html, reset, silent, slow, status, truncated
from uprank.errors import (
    AuthenticationError,
    BadReplyError,
    BillingError,
    ConnectionFailedError,
    DeadlineExceededError,
    RateLimitError,
    RequestRefusedError,
    RequestTooLargeError,
    ServerError,
    ServiceError,
)

TIMEOUT = 0.2  # seconds


@dataclass(frozen=True)
class Trouble:
    """One thing that goes wrong, and what must come of it.

    Attributes:
        fault: What the server does; ``None``: nobody listens.
        error: The error.
        code: The status it names.
        sends: How often the request is sent where one retry is allowed; 1: it would be no use, or cost again.
        own_id: Whether the service signs this reply with a request id, if it signs any.
        wait: The wait that the reply asks for.
    """

    name: str
    fault: Fault | None
    error: type[ServiceError]
    code: int | None = None
    sends: int = 1
    own_id: bool = True
    wait: float | None = None

    def __str__(self) -> str:
        return self.name


def with_status(code: int, error: type[ServiceError], sends: int = 1) -> Trouble:
    # 524 comes from a gateway before the service.
    return Trouble(f"status-{code}", status(code), error, code, sends, own_id=code != 524)


TROUBLES = [
    with_status(400, RequestRefusedError),
    with_status(401, AuthenticationError),
    with_status(402, BillingError),
    with_status(403, AuthenticationError),
    with_status(404, RequestRefusedError),
    with_status(408, ServerError, 2),
    with_status(413, RequestTooLargeError, 3),  # the chunk, its half, and the document alone
    with_status(422, RequestRefusedError),
    with_status(424, ServerError),
    with_status(429, RateLimitError, 2),
    with_status(498, AuthenticationError),
    with_status(499, RequestRefusedError),
    with_status(500, ServerError, 2),
    with_status(501, ServerError),
    with_status(502, ServerError, 2),
    with_status(503, ServerError, 2),
    with_status(504, ServerError, 2),
    with_status(524, ServerError, 2),
    # The wait is longer than the deadline: it is not begun.
    Trouble("status-429-wait", status(429, retry_after=70), RateLimitError, 429, wait=70.0),
    Trouble("refused", None, ConnectionFailedError, sends=2),
    Trouble("closed", closed(), ConnectionFailedError, sends=2),
    Trouble("reset", reset(), ConnectionFailedError, sends=2),
    Trouble("slow", slow(), DeadlineExceededError, sends=2),
    Trouble("silent", silent(2 * TIMEOUT), DeadlineExceededError, sends=2),
    Trouble("html-200", html(200), BadReplyError, 200, own_id=False),
    Trouble("html-502", html(502), ServerError, 502, 2, own_id=False),
    Trouble("empty", empty(), BadReplyError, 200, own_id=False),
    Trouble("truncated", truncated(), BadReplyError, 200, own_id=False),
    *(Trouble(name, edit(name), BadReplyError, 200) for name in EDITS),
]


def for_service(case: Case, trouble: Trouble) -> Trouble:
    """What is particular to a service: SIE's 502 says that a model cannot be loaded, which does not pass."""
    return replace(trouble, sends=1) if (case.service, trouble.code) == ("sie", 502) and trouble.own_id else trouble
