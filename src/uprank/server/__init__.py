"""A server that speaks the rerank formats of other services, in front of any reranker of this package.

``uprank serve embedded``, or :func:`create_app` for an ASGI server of yours. It needs the extra ``server``.
"""

from __future__ import annotations

from uprank.extras import require

require("The rerank server", "server", "fastapi", "uvicorn", "prometheus_client", "msgpack", "yaml")

from uprank.server.app import create_app  # noqa: E402 - what it needs is checked first
from uprank.server.settings import KeySettings, Limits, ModelSettings, ServerSettings  # noqa: E402

__all__ = ["KeySettings", "Limits", "ModelSettings", "ServerSettings", "create_app"]
