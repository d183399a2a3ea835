"""A keep-alive connection that sends bytes as they are, for requests that no HTTP client would send."""

from __future__ import annotations

import select
import socket
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True)
class Received:
    """A reply."""

    status: int
    headers: dict[str, str]
    body: bytes


class RawConnection:
    """A connection to a server on loopback, opened anew where the server closed it.

    Args:
        port: Of the server.
        timeout: Seconds that any one answer may take.
    """

    def __init__(self, port: int, timeout: float) -> None:
        self._port = port
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._rest = b""
        self.opened = 0

    def __enter__(self) -> RawConnection:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Close it, whatever is on its way."""
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def send(self, wire: bytes) -> None:
        """Send and wait for nothing."""
        if self._socket is None:
            self._socket = socket.create_connection(("127.0.0.1", self._port), timeout=self._timeout)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.opened += 1
        self._socket.sendall(wire)

    def answered(self) -> bool:
        """Whether something came back already."""
        assert self._socket is not None
        return bool(select.select([self._socket], [], [], 0.01)[0])

    def ask(self, wire: bytes) -> Received:
        """Send a request and read its reply.

        Raises:
            TimeoutError: If there is no whole reply in time.
            ConnectionError: If the connection ends before it.
        """
        self.send(wire)
        while b"\r\n\r\n" not in self._rest:
            self._more()
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = int(headers["content-length"])
        while len(self._rest) < length:
            self._more()
        body, self._rest = self._rest[:length], self._rest[length:]
        if headers.get("connection", "").lower() == "close":
            self.close()
        return Received(int(first.split()[1]), headers, body)

    def _more(self) -> None:
        assert self._socket is not None
        found = self._socket.recv(1 << 18)
        if not found:
            self.close()
            raise ConnectionError("The server closed the connection without a reply.")
        self._rest += found
