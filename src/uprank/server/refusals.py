"""What the server says where it gives no ranking; each dialect puts it in its own shape."""

from __future__ import annotations

import math

from uprank.errors import (
    AllModelsFailedError,
    AuthenticationError,
    BillingError,
    ConfigurationError,
    ContentRefusedError,
    DeadlineExceededError,
    InvalidInputError,
    MissingDependencyError,
    ModelLoadError,
    OverloadedError,
    QueryTooLongError,
    RateLimitError,
    RequestTooLargeError,
    ServiceError,
)

__all__ = ["Refusal", "internal_error", "refusal_of"]

_LONGEST_WAIT = 86_400  # seconds


class Refusal(Exception):  # noqa: N818 - an answer to the client, not a failure of the server
    """A request that is not answered with a ranking.

    Args:
        status: The HTTP status.
        code: One word for programs, e.g. ``"too_many_documents"``.
        message: For people: what was wrong and what to do. It holds no key and nothing of query and documents.
        retry_after: Seconds after which to try again, at least 1; ``None`` where that would not help.
        caller: The name of the key that it is about.
    """

    def __init__(
        self, status: int, code: str, message: str, *, retry_after: float | None = None, caller: str | None = None
    ) -> None:
        super().__init__(message)
        self.caller = caller
        self.status = status
        self.code = code
        self.message = message
        # Clients ignore 0, and some read whole seconds alone.
        self.retry_after = None if retry_after is None else math.ceil(min(max(1, retry_after), _LONGEST_WAIT))


def refusal_of(error: Exception) -> Refusal:
    """What a client is told of an error of a reranker.

    What the client can mend is 4xx. An upstream service's own refusal of our key or of our account is none of the
    client's doing: it is 502, and never the 401 or 402 that would have the client look for its own mistake.

    Only errors that uprank words itself, from names and numbers, are repeated. What a service, a model or a function
    says may quote the documents, or tell of the account behind it: the client is told its kind alone.
    """
    if isinstance(error, Refusal):
        return error
    if isinstance(error, (QueryTooLongError, InvalidInputError)):
        code = "query_too_long" if isinstance(error, QueryTooLongError) else "invalid_request"
        return Refusal(422, code, str(error))
    if isinstance(error, AllModelsFailedError):
        return _none_answered(error)
    if isinstance(error, OverloadedError):
        return Refusal(429, "overloaded", "Too many requests wait for this model.", retry_after=1)
    if isinstance(error, ServiceError):
        return _of_a_service(error)
    if isinstance(error, TimeoutError):
        return Refusal(504, "deadline_exceeded", "The model gave no answer in time.")
    if isinstance(error, ModelLoadError):
        told = "The model could not be loaded; the server's log says why."
        return Refusal(503, "model_unavailable", told, retry_after=5)
    if isinstance(error, (ConfigurationError, MissingDependencyError)):
        told = "The model is set up in a way that cannot work; the server's log says why."
        return Refusal(500, "misconfigured", told)
    return internal_error()


def internal_error() -> Refusal:
    """What a client is told of an error that nobody foresaw."""
    return Refusal(500, "internal_error", "The server failed; its log says more under this request's id.")


def _of_a_service(error: ServiceError) -> Refusal:
    status = "" if error.status is None else f" (HTTP {error.status})"
    if isinstance(error, RateLimitError):
        told = "The service behind this model takes no more requests for now."
        return Refusal(429, "rate_limited", told, retry_after=error.retry_after or 1)
    if isinstance(error, DeadlineExceededError):
        return Refusal(504, "deadline_exceeded", "The service behind this model gave no answer in time.")
    if isinstance(error, RequestTooLargeError):
        sent = f": {error.sent}" if error.sent else ""
        return Refusal(422, "request_too_large", f"This is more than the model takes at once{sent}.")
    if isinstance(error, ContentRefusedError):
        return Refusal(422, "content_refused", "The model, or a filter before it, refused to judge this request.")
    if isinstance(error, AuthenticationError):
        told = "The service behind this model refused the key that this server has for it"
    elif isinstance(error, BillingError):
        told = "This server's account with the service behind this model has no credit left"
    else:
        told = "The service behind this model failed"
    return Refusal(502, "upstream_error", f"{told}{status}.")


def _none_answered(error: AllModelsFailedError) -> Refusal:
    """One status for several models: that of their errors where all mean the same, so that a client waits rightly."""
    kinds = {attempt.kind for attempt in error.attempts}
    last = error.__cause__
    if kinds and kinds <= {"RateLimitError", "OverloadedError"}:
        wait = last.retry_after if isinstance(last, RateLimitError) else None
        return Refusal(429, "rate_limited", "No model takes more requests for now.", retry_after=wait or 1)
    if kinds == {"DeadlineExceededError"}:
        return Refusal(504, "deadline_exceeded", "No model gave an answer in time.")
    told = f" ({', '.join(sorted(kinds))})" if kinds else ""
    return Refusal(502, "upstream_error", f"None of the models behind this one answered{told}.")
