"""HTTP/1.1 as uvicorn has it with httptools, with bounds on the head of a request, which no key stands before."""

from __future__ import annotations

import asyncio
from typing import Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["BoundedProtocol"]

_LARGEST_HEAD: Final = 64 * 1024  # bytes, as h11 has it; browsers and SDKs send a few hundred
_SLOWEST_HEAD: Final = 30.0  # seconds, also until a new connection says its first word


class BoundedProtocol(HttpToolsProtocol):
    """A connection that is closed where the head of a request is too long or takes too long to come.

    Between requests uvicorn's own ``timeout_keep_alive`` holds.
    """

    _in_head = True
    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn has it
        """Begin to wait for a head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Wait for no head any more."""
        self._head_is_there()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what came, unless there is too much of a head."""
        super().data_received(data)
        if not self._in_head or self.transport.is_closing():
            return
        self._head_bytes += len(data)  # a little of a body before it may be counted too
        if self._head_bytes > _LARGEST_HEAD:
            self.transport.write(_refusal(b"431 Request Header Fields Too Large"))
            self.transport.close()
        else:
            self._await_head()

    def on_message_begin(self) -> None:
        """A head begins."""
        self._in_head, self._head_bytes = True, 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A head ends."""
        self._in_head = False
        self._head_is_there()
        super().on_headers_complete()

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(_SLOWEST_HEAD, self._give_up)

    def _head_is_there(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(_refusal(b"408 Request Timeout"))
            self.transport.close()


def _refusal(status: bytes) -> bytes:
    return b"HTTP/1.1 " + status + b"\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
