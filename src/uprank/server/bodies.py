"""Request bodies: read no further than allowed, then parsed."""

from __future__ import annotations

from typing import Any

from pydantic_core import from_json
from starlette.requests import Request

from uprank.server.refusals import Refusal

__all__ = ["parsed_body"]


async def parsed_body(request: Request, limit: int) -> dict[str, Any]:  # Any: what JSON has
    """Return a request's JSON object.

    Args:
        request: Its body is not read yet.
        limit: Bytes.

    Raises:
        Refusal: 413 for more bytes, 400 where they are no JSON object.
    """
    raw = await _read(request, limit)
    try:
        found = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise Refusal(400, "invalid_json", "The body is not JSON in UTF-8.") from None
    if not isinstance(found, dict):
        raise Refusal(400, "invalid_json", "The body must be a JSON object.")
    return found


async def _read(request: Request, limit: int) -> bytes:
    too_large = Refusal(413, "body_too_large", f"The body has more than the {limit} bytes that are allowed here.")
    stated = request.headers.get("content-length", "")
    if stated.isdigit() and int(stated) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)
