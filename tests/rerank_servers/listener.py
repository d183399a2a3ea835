"""The server itself: HTTP/1.1 on a loopback port, in a thread of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from urllib.parse import urlsplit

from rerank_servers.faults import Fault
from rerank_servers.messages import Reply, Request
from rerank_servers.service import Service
from rerank_servers.services import SERVICES

LIFETIME = 300.0  # seconds after which a forgotten server stops by itself
MAX_BODY = 64_000_000  # bytes
SLOW_INTERVAL, SLOW_LIMIT = 0.05, 10.0  # seconds


@dataclass
class _Rule:
    applies: Callable[[Request], bool]
    fault: Fault
    left: float = float("inf")


class RerankServer:
    """A rerank service on a loopback port, for the length of a ``with`` block.

    Args:
        service: The service to play.
        delay: Seconds before each answer.
        tls: A context with a certificate, to serve HTTPS.

    Attributes:
        requests: Every request, in the order in which they were complete.
        connections: TCP connections accepted.
        open_connections: Those open now.
        at_once: Requests being answered now.
        most_at_once: The most there were at the same time.
        mistakes: What the server itself did wrong.

    Raises:
        RuntimeError: At the end of the block: the server itself made a mistake, or its thread did not end.
    """

    def __init__(self, service: Service, *, delay: float = 0.0, tls: ssl.SSLContext | None = None) -> None:
        self.service = service
        self.delay = delay
        self.requests: list[Request] = []
        self.connections = 0
        self.open_connections = 0
        self.most_at_once = 0
        self.at_once = 0
        self._wanted, self._patience = 0, 0.0
        self._tls = tls
        self._rules: list[_Rule] = []
        self._posts = 0
        self.mistakes: list[Exception] = []
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._port = 0

    # Where it is.

    @property
    def url(self) -> str:
        """Scheme, host and port."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self._port}"

    @property
    def path(self) -> str:
        """Where the service is documented to take rerank requests."""
        return self.service.path

    @property
    def base_url(self) -> str:
        """The address up to the version in the path: with ``/inference`` for Fireworks and ``/api`` for OpenRouter."""
        return self.url + self.service.prefix

    # What came in.

    @property
    def posts(self) -> list[Request]:
        """The POST requests, in the order in which they were complete."""
        return [request for request in self.requests if request.method == "POST"]

    def scores(self, query: str, texts: Sequence[str], *, model: str = "", raw_scores: bool = False) -> list[float]:
        """What the service reports for texts that come in one request, in their order."""
        return self.service.scores(query, texts, model=model, raw_scores=raw_scores)

    # What is to go wrong.

    def fail(self, number: int | Iterable[int], fault: Fault) -> None:
        """Answer the POST of this number, or these numbers, with a fault; POSTs count from 0 as they arrive."""
        numbers = {number} if isinstance(number, int) else set(number)
        self._rules.append(_Rule(lambda request: request.number in numbers, fault))

    def fail_when(self, applies: Callable[[Request], bool], fault: Fault, *, times: int | None = None) -> None:
        """Answer the POSTs of which ``applies`` says so with a fault, the first ``times`` of them or all."""
        left = float("inf") if times is None else times
        self._rules.append(_Rule(lambda request: request.number is not None and applies(request), fault, left))

    def fail_path(self, path: str, fault: Fault) -> None:
        """Answer every request to a path with a fault, whatever its method."""
        self._rules.append(_Rule(lambda request: request.route == path, fault))

    def fail_always(self, fault: Fault) -> None:
        """Answer every POST with a fault. Rules made earlier go first."""
        self._rules.append(_Rule(lambda request: request.number is not None, fault))

    def heal(self) -> None:
        """Forget all faults."""
        self._rules = []

    def hold_until(self, count: int, patience: float = 10.0) -> None:
        """Answer no POST until so many requests wait at once, which sets ``most_at_once`` to 0 first.

        Args:
            count: How many.
            patience: Seconds after the first request when all are answered however many came.
        """
        self.most_at_once, self._wanted, self._patience = 0, count, patience
        self._loop.call_soon_threadsafe(self._met.clear)

    def answer(self, request: Request) -> Reply:
        """The reply to a request, with the faults asked for."""
        for rule in self._rules:
            if rule.left > 0 and rule.applies(request):
                rule.left -= 1
                return rule.fault.act(self.service, request, lambda: self.service.answer(request))
        return self.service.answer(request)

    # Its life.

    def __enter__(self) -> RerankServer:
        self._thread = threading.Thread(target=self._run, name=f"{self.service.name}-server", daemon=True)
        self._thread.start()
        if not self._ready.wait(10):
            raise RuntimeError("the server did not start within 10 s")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._thread is not None
        with contextlib.suppress(RuntimeError):  # its lifetime is over, and the loop closed
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)
        if self._thread.is_alive():
            raise RuntimeError("the server did not stop within 10 s")
        if self.mistakes:
            raise RuntimeError("a mistake in the test server itself") from self.mistakes[0]

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop, self._met = asyncio.Event(), asyncio.Event()
        self._open: set[_Connection] = set()
        listener = await self._loop.create_server(
            lambda: _Connection(self), "127.0.0.1", 0, backlog=1024, ssl=self._tls
        )
        self._port = listener.sockets[0].getsockname()[1]
        self._ready.set()
        with contextlib.suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._stop.wait(), LIFETIME)
        listener.close()
        for connection in list(self._open):
            connection.abandon()
        # What was cancelled gets a turn to end, and the transports one to close.
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def _enough(self) -> None:
        if self.most_at_once < self._wanted:
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._met.wait(), self._patience)
        self._met.set()


class _Connection(asyncio.Protocol):
    """One TCP connection: requests are read one after another, each answered by a task."""

    def __init__(self, server: RerankServer) -> None:
        self.server = server
        self.buffer = bytearray()
        self.task: asyncio.Task[None] | None = None
        self.number = -1

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self.number = self.server.connections
        self.server.connections += 1
        self.server.open_connections += 1
        self.server._open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self.server.open_connections -= 1
        self.server._open.discard(self)

    def abandon(self) -> None:
        if self.task is not None:
            self.task.cancel()
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self._next()

    def _next(self) -> None:
        """Start on the next request, once the one before it is answered and this one complete."""
        if self.task is not None and not self.task.done():
            return
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        try:
            method, target, headers, length = _head(bytes(self.buffer[:end]))
        except ValueError as error:
            self.transport.write(_encoded(Reply(400, str(error).encode(), content_type="text/plain"), close=True))
            self.transport.close()
            return
        if headers.get("expect", "").lower() == "100-continue" and len(self.buffer) == end + 4 and length:
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if len(self.buffer) < end + 4 + length:
            return
        body = bytes(self.buffer[end + 4 : end + 4 + length])
        del self.buffer[: end + 4 + length]
        server = self.server
        number = None
        if method == "POST":
            number, server._posts = server._posts, server._posts + 1
        parts = urlsplit(target) if "://" in target else None
        path = target if parts is None else (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        request = Request(number, method, path, headers, body, time.monotonic(), self.number, target)
        server.requests.append(request)
        server.at_once += 1
        server.most_at_once = max(server.most_at_once, server.at_once)
        self.task = asyncio.ensure_future(self._answer(request))

    async def _answer(self, request: Request) -> None:
        reply = Reply(500, b"a mistake in the test server", content_type="text/plain")
        counted = True
        try:
            try:
                reply = self.server.answer(request)
            except Exception as error:  # raised where the block ends
                self.server.mistakes.append(error)
            if self.server._wanted and request.number is not None:
                await self.server._enough()
            wait = self.server.delay + reply.wait
            if wait:
                await asyncio.sleep(wait)
            if reply.release is not None:
                release, reply = reply.release, _released(reply)
                release()
            if reply.delivery == "slow":
                await self._dribble(reply)
            # The work is over before the client can see the answer, and so send its next request.
            self.server.at_once -= 1
            counted = False
            await self._deliver(reply, close=request.headers.get("connection", "").lower() == "close")
        finally:
            if counted:
                self.server.at_once -= 1
            if reply.release is not None:
                reply.release()
        self.task = None
        if self.buffer and not self.transport.is_closing():
            self._next()

    async def _deliver(self, reply: Reply, *, close: bool) -> None:
        if self.transport.is_closing():
            return
        if reply.delivery == "whole":
            self.transport.write(_encoded(reply, close=close))
            if close:
                self.transport.close()
        elif reply.delivery == "reset":
            head, _, body = _encoded(reply).partition(b"\r\n\r\n")
            self.transport.write(head + b"\r\n\r\n" + body[: len(body) // 2])
            # Let the client read the half before the reset takes it away.
            await asyncio.sleep(0.02)
            plug = self.transport.get_extra_info("socket")
            plug.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.transport.abort()
        else:
            self.transport.close()

    async def _dribble(self, reply: Reply) -> None:
        head, _, body = _encoded(reply).partition(b"\r\n\r\n")
        self.transport.write(head + b"\r\n\r\n")
        until = time.monotonic() + SLOW_LIMIT
        for place in range(len(body)):
            if self.transport.is_closing() or time.monotonic() > until:
                break
            self.transport.write(body[place : place + 1])
            await asyncio.sleep(SLOW_INTERVAL)


def _released(reply: Reply) -> Reply:
    return Reply(reply.status, reply.body, reply.headers, reply.content_type, reply.value, reply.delivery, reply.wait)


def _head(raw: bytes) -> tuple[str, str, dict[str, str], int]:
    """Method, target, headers and body length of a request.

    Raises:
        ValueError: This is no HTTP/1.1 request with a known length.
    """
    lines = raw.decode("latin-1").split("\r\n")
    method, target, version = lines[0].split(" ")
    if version != "HTTP/1.1":
        raise ValueError(f"not HTTP/1.1: {version}")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or name != name.strip():
            raise ValueError(f"not a header: {line!r}")
        key = name.lower()
        headers[key] = f"{headers[key]}, {value.strip()}" if key in headers else value.strip()
    if "transfer-encoding" in headers:
        raise ValueError("a body of unknown length")
    length = int(headers.get("content-length", "0"))
    if not 0 <= length <= MAX_BODY:
        raise ValueError(f"a body of {length} bytes")
    return method, target, headers, length


def _encoded(reply: Reply, *, close: bool = False) -> bytes:
    try:
        phrase = HTTPStatus(reply.status).phrase
    except ValueError:  # a code that no standard names
        phrase = "Unknown"
    headers: Mapping[str, str] = {
        **({"Content-Type": reply.content_type} if reply.body else {}),
        "Content-Length": str(len(reply.body)),
        **reply.headers,
        **({"Connection": "close"} if close else {}),
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    return f"HTTP/1.1 {reply.status} {phrase}\r\n{lines}\r\n".encode("latin-1") + reply.body


@contextmanager
def serve(
    service: str, *, delay: float = 0.0, tls: ssl.SSLContext | None = None, **options: object
) -> Iterator[RerankServer]:
    """Serve a rerank service on loopback while the block runs.

    Args:
        service: One of ``SERVICES``.
        delay: Seconds before each answer. Default 0.
        tls: A context with a certificate, to serve HTTPS. Default: plain HTTP.
        **options: The fields of the service's class, ``key`` first among them.

    Yields:
        The running server.

    Raises:
        KeyError: No service has this name.
        TypeError: The service has no such option.
    """
    make: Callable[..., Service] = SERVICES[service]
    with RerankServer(make(**options), delay=delay, tls=tls) as server:
        yield server


def refused_port() -> int:
    """A port that nothing listens on, so that a connection to it is refused."""
    with socket.socket() as plug:
        plug.bind(("127.0.0.1", 0))
        return int(plug.getsockname()[1])
