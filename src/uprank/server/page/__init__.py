"""The page at ``/``: paste a query and documents, and see what each served model makes of their order.

It is one document without any outside part, made of three files when the application is: the browser needs no second
request, and its Content-Security-Policy lets nothing run but this script and this style, known by their hashes.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import sha256
from importlib.resources import files

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from uprank.server.settings import ServerSettings

__all__ = ["add_page"]

_STYLE, _SCRIPT = "/* page.css */", "/* page.js */"
_DOCS = '<a href="docs">API reference</a>'


def add_page(app: FastAPI, settings: ServerSettings) -> None:
    """Serve the page at ``/``, if the settings want one.

    It needs no key itself: it holds nothing but what this package does, and asks for a key where the server wants one.

    Args:
        app: The application.
        settings: ``page`` says whether it is there, ``docs`` whether it points to the API's documentation.
    """
    if not settings.page:
        return
    style, script = _part("page.css"), _part("page.js")
    page = _part("page.html").replace(_STYLE, style).replace(_SCRIPT, script)
    if not settings.docs:
        page = page.replace(_DOCS, "")
    # A cached page would outlive the server's next version, whose answers it may not know how to read.
    headers = {"content-security-policy": _policy(style, script), "cache-control": "no-cache"}

    async def show(_: Request) -> Response:
        return HTMLResponse(page, headers=headers)

    app.add_route("/", show, include_in_schema=False)


def _part(name: str) -> str:
    """A file's text, its line ends made plain, as a browser makes them before it hashes what is between two tags."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    return "; ".join(
        (
            "default-src 'none'",
            f"script-src {_hash(script)}",
            f"style-src {_hash(style)}",
            "connect-src 'self'",
            "img-src data:",  # the icon of the tab
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            # Even by mistake the script cannot turn a document's text into markup.
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        )
    )


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"
