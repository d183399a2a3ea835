"""What a server can do instead of its usual answer."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from email.utils import format_datetime
from typing import TYPE_CHECKING

from rerank_servers.messages import Reply, Request

if TYPE_CHECKING:
    from rerank_servers.service import Service

STATUSES = (400, 401, 402, 403, 404, 408, 413, 422, 424, 429, 498, 499, 500, 501, 502, 503, 504, 524)

Usual = Callable[[], Reply]


@dataclass(frozen=True)
class Fault:
    """Something that goes wrong, named for test ids.

    Attributes:
        name: What it is called.
        act: Makes the reply, from the service, the request, and the usual answer (made only when called).
    """

    name: str
    act: Callable[[Service, Request, Usual], Reply] = field(repr=False)

    def __str__(self) -> str:
        return self.name


def _page(code: int) -> bytes:
    return (
        f"<!DOCTYPE html>\n<html><head><title>{code}</title></head>"
        f"<body><center><h1>{code}</h1></center><hr><center>gateway</center></body></html>\n"
    ).encode()


def _html_reply(code: int, headers: Mapping[str, str]) -> Reply:
    return Reply(code, _page(code), headers, "text/html; charset=UTF-8")


def status(
    code: int,
    *,
    retry_after: float | datetime | str | None = None,
    retry_after_ms: float | None = None,
    message: str | None = None,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
) -> Fault:
    """A status code with the service's own error body; 524, which only Cloudflare sends, with an HTML page.

    Args:
        code: The status code.
        retry_after: The ``Retry-After`` header: seconds, a moment (sent as an HTTP date), or a text sent as it is.
        retry_after_ms: The ``retry-after-ms`` header, in milliseconds.
        message: The error's message. Default: one that says what the code means.
        headers: Further headers.
        body: The exact body instead of the service's own.
    """
    sent = dict(headers or {})
    if isinstance(retry_after, datetime):
        sent["Retry-After"] = format_datetime(retry_after.astimezone(timezone.utc), usegmt=True)
    elif retry_after is not None:
        sent["Retry-After"] = str(retry_after)
    if retry_after_ms is not None:
        sent["retry-after-ms"] = str(retry_after_ms)

    def act(service: Service, request: Request, usual: Usual) -> Reply:
        if body is not None:
            return Reply(code, body, sent)
        if code == 524 and message is None:
            return _html_reply(code, sent)
        reply = service.signed(service.error(code, message or service.meaning(code), request), request)
        return replace(reply, headers={**reply.headers, **sent})

    return Fault(f"status-{code}", act)


def closed() -> Fault:
    """The connection is closed before any reply."""
    return Fault("closed", lambda service, request, usual: Reply(delivery="closed"))


def reset() -> Fault:
    """Half of the body is sent, then the connection is reset."""
    return Fault("reset", lambda service, request, usual: replace(usual(), delivery="reset"))


def slow() -> Fault:
    """The body comes one byte each 50 ms; after 10 s the connection is closed."""
    return Fault("slow", lambda service, request, usual: replace(usual(), delivery="slow"))


def silent(seconds: float) -> Fault:
    """Nothing is sent for ``seconds``, then the usual answer."""
    return Fault("silent", lambda service, request, usual: replace(usual(), wait=seconds))


def html(code: int = 200) -> Fault:
    """An HTML page, such as a gateway or a captive portal answers."""
    return Fault(f"html-{code}", lambda service, request, usual: _html_reply(code, {}))


def empty(code: int = 200) -> Fault:
    """No body at all."""
    return Fault("empty", lambda service, request, usual: Reply(code))


def truncated() -> Fault:
    """Half of the usual JSON, with the ``Content-Length`` of that half."""

    def act(service: Service, request: Request, usual: Usual) -> Reply:
        reply = usual()
        return replace(reply, body=reply.body[: len(reply.body) // 2])

    return Fault("truncated", act)


def edited(change: Callable[[object], object], name: str = "edited") -> Fault:
    """The usual reply changed by a function; refusals are sent as they are.

    Args:
        change: Called with a copy of the decoded reply; what it returns is sent.
        name: The name of the fault.
    """

    def act(service: Service, request: Request, usual: Usual) -> Reply:
        reply = usual()
        return reply if reply.status != 200 else reply.carrying(change(copy.deepcopy(reply.value)))

    return Fault(name, act)


Entries = list[dict[str, object]]


def _set(which: str, value: Callable[[Service, Entries, Request], object]) -> Callable[..., Entries]:
    """Set a key of the second result, or of the only one; ``which`` is "index" or "score"."""

    def change(service: Service, entries: Entries, request: Request) -> Entries:
        key = service.index_key if which == "index" else service.score_key
        entries[min(1, len(entries) - 1)][key] = value(service, entries, request)
        return entries

    return change


def _no_index(service: Service, entries: Entries, request: Request) -> Entries:
    del entries[min(1, len(entries) - 1)][service.index_key]
    return entries


def _no_score(service: Service, entries: Entries, request: Request) -> Entries:
    del entries[min(1, len(entries) - 1)][service.score_key]
    return entries


def _repeated(service: Service, entries: Entries, request: Request) -> Entries:
    if len(entries) == 1:
        return [*entries, dict(entries[0])]
    entries[1][service.index_key] = entries[0][service.index_key]
    return entries


def _index(number: int, service: Service) -> object:
    # SIE answers with ids, which are strings.
    return str(number) if service.index_key == "item_id" else number


def _as_string(service: Service, entries: Entries, request: Request) -> str:
    # The right number as a string; where ids are strings anyway, one that is no number.
    own = entries[min(1, len(entries) - 1)][service.index_key]
    return f"item-{own}" if isinstance(own, str) else str(own)


_CHANGES: dict[str, Callable[[Service, Entries, Request], Entries]] = {
    "index-missing": _no_index,
    "index-repeated": _repeated,
    "index-negative": _set("index", lambda service, entries, request: _index(-1, service)),
    "index-out-of-range": _set("index", lambda service, entries, request: _index(len(request.texts), service)),
    "index-string": _set("index", _as_string),
    "score-missing": _no_score,
    "score-nan": _set("score", lambda service, entries, request: math.nan),
    "score-null": _set("score", lambda service, entries, request: None),
    "score-string": _set("score", lambda service, entries, request: "0.5"),
    "fewer-results": lambda service, entries, request: entries[:-1],
    "no-results": lambda service, entries, request: [],
}
EDITS = ("wrong-list-key", *_CHANGES)


def edit(name: str) -> Fault:
    """The usual reply changed in one way; the index and score edits change its second result, or its only one.

    Args:
        name: One of ``EDITS``.

    Raises:
        ValueError: No edit has this name.
    """
    if name not in EDITS:
        raise ValueError(f"no edit is called {name!r}; there are {', '.join(EDITS)}")

    def act(service: Service, request: Request, usual: Usual) -> Reply:
        reply = usual()
        if reply.status != 200:
            return reply
        value = copy.deepcopy(reply.value)
        rest: dict[str, object] = {}
        if service.list_key is not None and isinstance(value, dict):
            rest, value = value, value.pop(service.list_key)
        assert isinstance(value, list), f"{request.path} of {service.name} answers with no list of results"
        if name == "wrong-list-key":
            return reply.carrying({**rest, "unexpected": value})
        entries = _CHANGES[name](service, value, request)
        return reply.carrying({**rest, service.list_key: entries} if service.list_key is not None else entries)

    return Fault(name, act)


CONNECTION_FAULTS: dict[str, Fault] = {fault.name: fault for fault in (closed(), reset(), slow())}
REPLY_FAULTS: dict[str, Fault] = {
    fault.name: fault for fault in (html(200), html(502), empty(), truncated(), *map(edit, EDITS))
}
