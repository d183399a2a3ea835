"""One tolerant reader for every service's errors, and the error that each of them becomes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urljoin

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
from uprank.scorers.http.messages import Call, Lost, Reply, Unreadable
from uprank.secrets import redact

__all__ = ["Asked", "bad_reply", "is_retryable", "lost_error", "reply_error", "splittable", "stated_documents"]

# 202 and 425: not ready yet. 424 is left out: TEI answers it where the model itself fails. 501 never changes.
_RETRYABLE = frozenset({202, 408, 409, 425, 429, 500, 502, 503, 504, 524})
_TOO_LARGE = re.compile(
    r"too (large|long|many)|exceed|max(imum)? (allowed|context|length|number|sequence|input|client)|at most \d"
    r"|context[ _](size|length|window)|longer than|less than \d+ tokens|more than \d+ (documents|passages|texts|items)",
    re.IGNORECASE,
)
# Much else can be too many or exceeded in a server that fails; that may pass.
_TOO_LARGE_500 = re.compile(
    r"too large to process|physical batch|context[ _](size|length|window)|max(imum)?[ _](context|sequence|input)",
    re.IGNORECASE,
)
_NO_SIZE = re.compile(r"(deadline|time ?out|time limit|retries|rate limit|quota)[ _-]?exceeded", re.IGNORECASE)
_WHOLE_REQUEST = re.compile(r"batch|documents|passages|texts|items|payload|total|submitted|body", re.IGNORECASE)
_STATED_DOCUMENTS = re.compile(
    r"maximum allowed batch size (\d+)"
    r"|(?:at most|up to|max(?:imum)?(?: of)?|limit(?: of)?|more than) (\d[\d,]*) (?:documents|passages|texts|items)"
    r"|(?:documents|passages|texts|items) (?:cannot|must not|may not) exceed (\d[\d,]*)",
    re.IGNORECASE,
)
_ONE_TEXT = re.compile(r"physical batch|characters", re.IGNORECASE)  # which hold, and are counted of, one pair or text
_NO_CREDIT = re.compile(r"insufficient.{0,10}(balance|credit|fund|quota)|payment|billing", re.IGNORECASE)
_REQUEST_IDS = ("x-request-id", "request-id", "x-amzn-requestid", "nvcf-reqid", "x-debug-trace-id", "cf-ray")


_NO_CONNECTION = "Is the server running there, and the proxy, if proxy= or the environment names one?"
_TOO_LATE = {
    "timeout": ("no reply in time", "Raise timeout or deadline."),
    "queue": ("no place in time", "Raise deadline or max_concurrency."),
    "turn": ("no turn in time", "Raise deadline or requests_per_minute."),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """Who was asked for what, for the message of an error.

    Args:
        provider: The scheme.
        model: The full name.
        call: What was sent.
        documents: How many were in it.
        advice: What to do about a wrong key.
        secrets: What must not be shown.
        keyed: Whether a key was sent.
    """

    provider: str
    model: str
    call: Call
    documents: int
    advice: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    keyed: bool = True

    @property
    def sent(self) -> str:
        return f"{self.documents} documents, {len(self.call.content)} bytes"


def is_retryable(reply: Reply) -> bool:
    """Whether the same request may succeed later. An input that is too long never does, whatever the status."""
    if reply.status not in _RETRYABLE:
        return False
    if reply.status == 502 and _code(reply.data) == "MODEL LOAD FAILED":  # SIE: it will fail again
        return False
    return not _is_too_large(reply.status, message_of(reply.data, places=False))


def reply_error(reply: Reply, asked: Asked, *, retry_after: float | None = None, tried: str = "") -> ServiceError:
    """The error that a reply other than a success stands for.

    Args:
        reply: The last one.
        asked: What was asked.
        retry_after: Seconds that it asks to wait.
        tried: What was done about it, e.g. ``"after 3 retries"``.
    """
    said = redact(message_of(reply.data), asked.secrets)[:500] or "(it says no more)"
    reason = redact(message_of(reply.data, places=False), asked.secrets)[:500]
    status, number = reply.status, redact(request_id(reply) or "", asked.secrets) or None
    # Any: values of several types, each checked where the error is made.
    context: dict[str, Any] = {
        "provider": asked.provider,
        "model": asked.model,
        "status": status,
        "request_id": number,
    }
    too_large = _is_too_large(status, reason)

    def told(problem: str, advice: str = "") -> str:
        reference = f" [request id {number}]" if number else ""
        parts = f"{asked.model} ({asked.call.url}): HTTP {status}, {problem}{tried and ' ' + tried}: {said}{reference}"
        return f"{parts}. {advice}" if advice else parts

    if status in (401, 498):
        return AuthenticationError(
            told("the key was refused" if asked.keyed else "no key was sent", asked.advice), **context
        )
    # Not for 429: a free tier's message speaks of payment too, and is over in a minute.
    if status == 402 or (status == 403 and _NO_CREDIT.search(f"{said} {_code(reply.data)}")):
        return BillingError(told("no credit left", "Check the account's balance and means of payment."), **context)
    if status == 403:
        return AuthenticationError(told("the key may not do this", asked.advice), **context)
    if status == 429:
        wait = "" if retry_after is None else f" It asks to wait {retry_after:g} s."
        advice = f"Lower max_concurrency, set requests_per_minute, or raise deadline.{wait}"
        return RateLimitError(told("too many requests", advice), retry_after=retry_after, **context)
    if too_large:
        advice = f"Sent were {asked.sent}. Shorten the query or the documents, or set max_documents."
        problem = told("the request is too large", advice)
        return RequestTooLargeError(problem, sent=asked.sent, allowed=reason or None, **context)
    if status == 404:
        advice = "Check the model's name and base_url."
        return RequestRefusedError(told("there is no such model or address", advice), **context)
    if 300 <= status < 400:
        target = redact(urljoin(asked.call.url, reply.headers.get("location", "")), asked.secrets)
        return RequestRefusedError(told(f"it redirects to {target}", "Set base_url to that."), **context)
    if status >= 500 or status in (202, 408, 409, 424, 425):
        return ServerError(told("the service failed"), **context)
    return RequestRefusedError(told("the request was refused"), **context)


def splittable(error: Exception) -> bool:
    """Whether fewer documents at once may do: a single text that is too long stays so."""
    if not isinstance(error, RequestTooLargeError):
        return False
    allowed = error.allowed or ""
    if error.status == 500:  # llama.cpp, of one pair
        return False
    return error.status == 413 or (_WHOLE_REQUEST.search(allowed) is not None and not _ONE_TEXT.search(allowed))


def stated_documents(error: RequestTooLargeError) -> int | None:
    """How many documents the service says it takes at once; ``None`` where it does not say."""
    found = _STATED_DOCUMENTS.search(error.allowed or "")
    number = int(next(group for group in found.groups() if group).replace(",", "")) if found else 0
    return number or None


def lost_error(lost: Lost, asked: Asked, *, tried: str = "") -> ServiceError:
    """The error that a missing reply stands for."""
    detail = redact(lost.detail, asked.secrets)
    context: dict[str, Any] = {"provider": asked.provider, "model": asked.model}  # as above
    told = f"{asked.model} ({asked.call.url}): "
    if lost.why in ("timeout", "queue", "turn"):
        what, advice = _TOO_LATE[lost.why]
        return DeadlineExceededError(f"{told}{what}{tried and ' ' + tried}: {detail}. {advice}", **context)
    what = "no connection" if lost.why == "connect" else "the connection broke"
    advice = _NO_CONNECTION if lost.why == "connect" else ""
    if "certificate" in detail.lower():
        advice = "To trust the certificate of a server of yours, pass verify=, a file of certificates."
    return ConnectionFailedError(f"{told}{what}{tried and ' ' + tried}: {detail}. {advice}".rstrip(), **context)


def bad_reply(reply: Reply, asked: Asked, problem: str) -> BadReplyError:
    """The error for a success whose body cannot be used. It is not asked again: it has been paid for."""
    number = redact(request_id(reply) or "", asked.secrets) or None
    reference = f" [request id {number}]" if number else ""
    if isinstance(reply.data, Mapping) and "error" in reply.data:  # some send an error with the status of a success
        problem = f"{problem}; it says: {message_of(reply.data)[:500]}"
    return BadReplyError(
        redact(f"{asked.model} ({asked.call.url}): HTTP {reply.status}, but {problem}{reference}.", asked.secrets),
        provider=asked.provider,
        model=asked.model,
        status=reply.status,
        request_id=number,
    )


def message_of(data: object, *, places: bool = True) -> str:
    """What an error's body says, in whichever of the known places; its raw text where there is none.

    Args:
        data: The decoded body.
        places: Whether a list of problems says where each of them is.
    """
    if isinstance(data, Unreadable):
        text = re.sub(r"<(script|style).*?</\1>|<[^>]*>", " ", data.text, flags=re.DOTALL | re.IGNORECASE)
        return " ".join(text.split())
    if isinstance(data, str):
        return data
    if not isinstance(data, Mapping):
        return "" if data is None else _text(data)
    for key in ("message", "detail", "error", "errors"):
        found = data.get(key)
        if isinstance(found, str) and found:
            return found
        if isinstance(found, Mapping) and isinstance(found.get("message"), str):
            return str(found["message"])
        if isinstance(found, list) and found:
            return "; ".join(_validation(item, places=places) for item in found[:3])
    return _text(data) if data else ""


def request_id(reply: Reply) -> str | None:
    """The service's own number for the request, from the body or a header."""
    if isinstance(reply.data, Mapping):
        for key in ("id", "request_id"):
            found = reply.data.get(key)
            if isinstance(found, str) and found:
                return found
    return next((reply.headers[name] for name in _REQUEST_IDS if reply.headers.get(name)), None)


def _validation(item: object, *, places: bool) -> str:
    """One item of a list such as FastAPI's: where and what. The input that it may repeat is left out."""
    if not isinstance(item, Mapping):
        return _text(item)
    place = (item.get("loc") or item.get("field") or "") if places else ""
    where = ".".join(map(str, place)) if isinstance(place, list) else str(place)
    what = item.get("msg") or item.get("message") or ""
    return f"{where}: {what}".strip(": ")


def _text(value: object) -> str:
    """Any JSON value as text."""
    try:
        return str(value)
    except RecursionError:  # just short of the depth at which it could not be read either
        return f"a deeply nested {type(value).__name__}"


def _is_too_large(status: int, said: str) -> bool:
    """Whether an error means that the request is too large; deadlines and quotas are exceeded too."""
    if status == 500:
        return _TOO_LARGE_500.search(_NO_SIZE.sub("", said)) is not None
    return status == 413 or (status in (400, 422) and _TOO_LARGE.search(_NO_SIZE.sub("", said)) is not None)


def _code(data: object) -> str:
    """An error's machine-readable code."""
    if not isinstance(data, Mapping):
        return ""
    error = data.get("error") or data.get("detail")
    nested = error.get("code") or error.get("type") if isinstance(error, Mapping) else ""
    return str(data.get("code") or data.get("error_type") or nested or "").replace("_", " ")
