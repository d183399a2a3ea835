"""A server that speaks the rerank formats of other services, in front of any reranker of this package.

``uprank serve embedded``, or :func:`create_app` for an ASGI server of yours. It needs the extra ``server``.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from uprank.extras import require

if TYPE_CHECKING:
    from uprank.server.app import create_app
    from uprank.server.running import serve, serve_in_thread
    from uprank.server.settings import KeySettings, Limits, ModelSettings, ServerSettings

__all__ = ["KeySettings", "Limits", "ModelSettings", "ServerSettings", "create_app", "serve", "serve_in_thread"]

_HOMES = {
    "KeySettings": "uprank.server.settings",
    "Limits": "uprank.server.settings",
    "ModelSettings": "uprank.server.settings",
    "ServerSettings": "uprank.server.settings",
    "create_app": "uprank.server.app",
    "serve": "uprank.server.running",
    "serve_in_thread": "uprank.server.running",
}


def __getattr__(name: str) -> object:
    """Import what is asked for, when it is: the command line knows its options without a web server."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    require("The rerank server", "server", "fastapi", "uvicorn", "prometheus_client", "msgpack", "yaml")
    return getattr(import_module(_HOMES[name]), name)
