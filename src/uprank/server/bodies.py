"""Bodies: of requests, read no further than allowed and then parsed; and of replies in msgpack."""

from __future__ import annotations

import asyncio
import re
import sys
from typing import Any

import msgpack  # type: ignore[import-untyped]  # it ships no types
from pydantic_core import from_json
from starlette.datastructures import Headers
from starlette.requests import Request

from uprank.server.questions import Json
from uprank.server.refusals import Refusal

__all__ = ["MSGPACK", "first_names", "packed_body", "parsed_body", "wants_msgpack"]

_NAME = re.compile(rb'"(\w{1,40})"\s*:')  # within a string, the second quote would have a backslash before it
_BEGINNING = 64 * 1024  # bytes
_SOON = 0.05  # seconds

MSGPACK = "application/msgpack"
"""The type of a body in msgpack (https://msgpack.org)."""


async def parsed_body(
    request: Request, limit: int, seconds: float, *, packable: bool = False
) -> dict[str, Any]:  # Any: what JSON has
    """Return a request's object.

    Args:
        request: Its body is not read yet.
        limit: Bytes.
        seconds: That it may take to come.
        packable: Whether it may be in msgpack, as its ``Content-Type`` says. Otherwise that is not looked at.

    Raises:
        Refusal: 413 for more bytes, 408 where they come too slowly, 415 where they are
            compressed, 400 where they are no JSON object, or no map in msgpack.
    """
    encoding = request.headers.get("content-encoding", "identity").lower()
    if encoding != "identity":
        raise Refusal(415, "unsupported_encoding", "The body is compressed; send it as it is.")
    raw = await _read_in_time(request, limit, seconds)
    packed = packable and _is_msgpack(request.headers.get("content-type", ""))
    found = _unpacked(raw) if packed else _from_json(raw)
    if not isinstance(found, dict):
        raise Refusal(400, "invalid_json", "The body must be a JSON object.")
    return found


async def first_names(request: Request) -> dict[str, bool]:
    """The names that stand in the beginning of a body which is not parsed, each true: enough to guess its dialect by.

    Args:
        request: Its body may be read already, or be there, or on its way.
    """
    beginning: bytes | None = getattr(request.state, "beginning", None)
    if beginning is None and "expect" in request.headers:  # to ask for the body would have the client send it
        return {}
    if beginning is None:
        try:
            beginning = (await asyncio.wait_for(request.receive(), _SOON)).get("body", b"")
        except asyncio.TimeoutError:
            beginning = b""
    return {name.decode(): True for name in _NAME.findall(beginning[:_BEGINNING])}


def packed_body(reply: Json) -> bytes:
    """A reply in msgpack."""
    packed: bytes = msgpack.packb(reply)
    return packed


def wants_msgpack(headers: Headers) -> bool:
    """Whether a client takes msgpack, or says nothing of JSON."""
    accepted = headers.get("accept", "").lower()
    return _is_msgpack(accepted) or "application/json" not in accepted


def _is_msgpack(header: str) -> bool:
    return MSGPACK in header.lower() or "application/x-msgpack" in header.lower()


def _from_json(raw: bytes) -> object:
    found: object
    try:
        found = from_json(raw, allow_inf_nan=False)
    except ValueError:
        raise Refusal(400, "invalid_json", "The body is not JSON in UTF-8.") from None
    return found


def _unpacked(raw: bytes) -> object:
    found: object
    try:
        # Its lengths are held against those of the body, so that a short one cannot claim a long list.
        found = msgpack.unpackb(raw)
    # RecursionError: only without the compiled part of msgpack. TypeError: keys that no dict can have.
    except (ValueError, TypeError, RecursionError, msgpack.UnpackException):
        raise Refusal(400, "invalid_msgpack", "The body is not msgpack with strings in UTF-8.") from None
    return found


async def _read_in_time(request: Request, limit: int, seconds: float) -> bytes:
    """Read a body. A timer alone, and not asyncio's own timeout, which makes a task of what nearly always is there."""
    reader = asyncio.current_task()
    late = False

    def give_up() -> None:
        nonlocal late
        late = True
        if reader is not None:
            reader.cancel()

    timer = asyncio.get_running_loop().call_later(seconds, give_up)
    try:
        return await _read(request, limit)
    except asyncio.CancelledError:
        if not late:
            raise
        if reader is not None and sys.version_info >= (3, 11):  # which counts
            reader.uncancel()
        raise Refusal(408, "body_too_slow", f"The body was not there after {seconds:g} s.") from None
    finally:
        timer.cancel()


async def _read(request: Request, limit: int) -> bytes:
    too_large = Refusal(413, "body_too_large", f"The body has more than the {limit} bytes that are allowed here.")
    stated = request.headers.get("content-length", "")
    if stated.isdecimal() and int(stated) > limit:
        raise too_large
    chunks: list[bytes] = []
    size = 0
    async for chunk in request.stream():
        if not size:
            request.state.beginning = chunk
        size += len(chunk)
        if size > limit:
            raise too_large
        chunks.append(chunk)
    return b"".join(chunks)
