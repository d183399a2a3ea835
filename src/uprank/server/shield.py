"""What surrounds every route: headers for browsers, which pages may ask, and errors of any kind."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import Response

from uprank.scorers.http.replies import SCORE_KIND_HEADER
from uprank.server.dialects.base import Body
from uprank.server.endpoints import refusal_reply
from uprank.server.failures import log_failure
from uprank.server.keys import is_loopback
from uprank.server.logs import request_id_of
from uprank.server.refusals import Refusal, internal_error

if TYPE_CHECKING:
    from fastapi import FastAPI
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["shield"]

# https://cheatsheetseries.owasp.org/cheatsheets/REST_Security_Cheat_Sheet.html; a reply's own header goes first.
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"content-security-policy", b"frame-ancestors 'none'"),
)
_ORIGIN = b"origin"
_NAMES = frozenset(name for name, _ in _HEADERS)

_TOLD = {
    404: ("not_found", "There is nothing at this path."),
    405: ("method_not_allowed", "This path does not take this method."),
}


def shield(app: FastAPI, cors_origins: Sequence[str], host: str) -> None:
    """Put an application behind what every request and every reply passes.

    Args:
        app: Whose errors are then told in the form that rerank clients know.
        cors_origins: The web pages that may call it from a browser, beside its own.
        host: Where the server listens.
    """
    app.add_exception_handler(HTTPException, _refused)
    app.add_middleware(_Guard, cors_origins=frozenset(cors_origins), local=is_loopback(host))
    if cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=cors_origins,
            allow_methods=["GET", "POST"],
            allow_headers=["*"],  # each SDK has some of its own; cookies are not allowed, so a page sends what it knows
            expose_headers=[
                "retry-after",
                "server-timing",
                "x-request-id",
                "x-uprank-degraded",
                "x-uprank-fallback",
                SCORE_KIND_HEADER,
            ],
        )
    app.add_middleware(_Headers)


class _Headers:
    """Adds headers to each reply."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                given = message["headers"]
                own = _NAMES.intersection([name for name, _ in given])
                more = [header for header in _HEADERS if header[0] not in own] if own else _HEADERS
                message["headers"] = [*given, *more]
            await send(message)

        await self._app(scope, receive, send_with_headers)


class _Guard:
    """Turns other pages away, and answers whatever fails with 500.

    Without it a page that somebody visits could use up a paid service behind a server on their own machine: browsers
    send simple requests anywhere, and only keep the replies from the page.

    A failure is logged here without its words, which may quote a document; the server below would print them.
    """

    def __init__(self, app: ASGIApp, cors_origins: Collection[str], *, local: bool) -> None:
        self._app = app
        self._origins = cors_origins
        self._local = local

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begun = False

        async def send_noted(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            if scope["method"] == "POST" and self._is_foreign(scope):
                told = "Web pages of this origin may not use this server; its setting cors_origins says which may."
                await _reply(Request(scope), Refusal(403, "origin_not_allowed", told))(scope, receive, send)
            else:
                await self._app(scope, receive, send_noted)
        except Exception as error:  # whatever it is, it may quote the request
            request = Request(scope)
            log_failure(error, request_id_of(request.headers), _where(scope))
            if not begun:  # else the connection is closed, and the client sees that something is missing
                await _reply(request, internal_error())(scope, receive, send)

    def _is_foreign(self, scope: Scope) -> bool:
        """Whether another page's script asks, or its form. Clients that are no browsers send none of these headers."""
        if _ORIGIN not in [name for name, _ in scope["headers"]]:
            return False
        headers = Headers(scope=scope)
        origin = headers["origin"]
        if origin in self._origins or "*" in self._origins:
            return False
        site = headers.get("sec-fetch-site")
        if site is not None:
            return site not in ("same-origin", "none")
        # Browsers leave it out where there is no TLS. A page whose name was made to lead to this very machine (DNS
        # rebinding) then looks like one of ours, but for that name.
        own = headers.get("host", "")
        return origin.partition("://")[2] != own or (self._local and not is_loopback(_name_in(own)))


def _name_in(host: str) -> str:
    """The name or address in a ``Host`` header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # e.g. a bracket that does not close
        return ""


def _where(scope: Scope) -> str:
    """What was asked, as it is declared: a path that was made up by a client may hold anything."""
    declared = getattr(scope.get("route"), "path", None) or getattr(scope.get("endpoint"), "__name__", None)
    return declared or "a request"


async def _refused(request: Request, error: Exception) -> Response:
    status, headers = (error.status_code, error.headers) if isinstance(error, HTTPException) else (500, None)
    code, message = _TOLD.get(status, ("http_error", f"The request was answered with HTTP {status}."))
    response = _reply(request, Refusal(status, code, message))
    response.headers.update(headers or {})
    return response


def _reply(request: Request, refusal: Refusal) -> Response:
    return refusal_reply(refusal, Body, request_id_of(request.headers))
