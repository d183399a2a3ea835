"""What goes over the wire and what comes back, as plain values: no client, no socket."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

__all__ = ["Call", "Lost", "Reply", "Unreadable", "decode"]


@dataclass(frozen=True)
class Call:
    """One HTTP request. The key is no part of it: the client adds it on the way out.

    Args:
        url: Absolute.
        body: Sent as JSON by POST; ``None`` sends a GET.
    """

    url: str
    body: Mapping[str, object] | None = None

    @cached_property
    def content(self) -> bytes:
        """The body as it is sent: encoded once, however often that is."""
        if self.body is None:
            return b""
        return json.dumps(self.body, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A body that is no JSON.

    Args:
        text: Its beginning.
    """

    text: str


@dataclass(frozen=True, slots=True)
class Reply:
    """One HTTP reply.

    Args:
        status: The HTTP status.
        headers: With names in lower case.
        data: The decoded JSON, or :class:`Unreadable`.
    """

    status: int
    headers: Mapping[str, str]
    data: object


@dataclass(frozen=True, slots=True)
class Lost:
    """There is no reply.

    Args:
        why: ``"connect"``: the request never left. ``"broken"``: the connection broke after it did.
            ``"timeout"``: the time for this attempt ran out after it did. ``"queue"``: it ran out
            before the request could be sent. ``"turn"``: the minute's limit was reached first.
        detail: What the client says of it.
        permanent: Whether trying again is pointless, e.g. for a certificate that is not trusted.
    """

    why: Literal["connect", "broken", "timeout", "queue", "turn"]
    detail: str
    permanent: bool = False


def decode(content: bytes) -> object:
    """Return a body's JSON, or :class:`Unreadable`."""
    try:
        data: object = json.loads(content)
    except (ValueError, RecursionError):  # neither UTF-8 nor JSON, or a bomb of brackets
        return Unreadable(content[:2000].decode("utf-8", "replace"))
    return data
