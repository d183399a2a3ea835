"""What the server says where it gives no ranking; each dialect puts it in its own shape."""

from __future__ import annotations

import math

from uprank.errors import (
    AllModelsFailedError,
    ConfigurationError,
    DeadlineExceededError,
    InvalidInputError,
    ModelLoadError,
    OverloadedError,
    QueryTooLongError,
    RateLimitError,
    ServiceError,
)

__all__ = ["Refusal", "refusal_of"]


class Refusal(Exception):  # noqa: N818 - an answer to the client, not a failure of the server
    """A request that is not answered with a ranking.

    Args:
        status: The HTTP status.
        code: One word for programs, e.g. ``"too_many_documents"``.
        message: For people: what was wrong and what to do. It holds no key and nothing of query and documents.
        retry_after: Seconds after which to try again, at least 1; ``None`` where that would not help.
    """

    def __init__(self, status: int, code: str, message: str, *, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        # Clients ignore 0, and some read whole seconds alone.
        self.retry_after = None if retry_after is None else max(1, math.ceil(retry_after))


def refusal_of(error: Exception) -> Refusal:
    """What a client is told of an error of a reranker.

    What the client can mend is 4xx. An upstream service's own refusal of our key or of our account is none of the
    client's doing: it is 502, and never the 401 or 402 that would have the client look for its own mistake.
    """
    if isinstance(error, Refusal):
        return error
    message = str(error)
    if isinstance(error, QueryTooLongError):
        return Refusal(422, "query_too_long", message)
    if isinstance(error, (InvalidInputError, ConfigurationError)):  # the latter: e.g. a threshold on ranks
        return Refusal(422, "invalid_request", message)
    if isinstance(error, OverloadedError):
        return Refusal(429, "overloaded", message, retry_after=1)
    if isinstance(error, RateLimitError):
        return Refusal(429, "rate_limited", message, retry_after=error.retry_after or 1)
    if isinstance(error, (DeadlineExceededError, TimeoutError)):
        return Refusal(504, "deadline_exceeded", message or "No answer in time.")
    if isinstance(error, ModelLoadError):
        return Refusal(503, "model_unavailable", message, retry_after=5)
    if isinstance(error, (ServiceError, AllModelsFailedError)):
        return Refusal(502, "upstream_error", message)
    # Its text may hold anything: it is for the log alone.
    return Refusal(500, "internal_error", "The server failed; its log says more under this request's id.")
