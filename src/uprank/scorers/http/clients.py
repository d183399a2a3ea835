"""httpx clients, made when first needed: one for all threads, and one for each event loop."""

from __future__ import annotations

import asyncio
import os
import ssl
import threading
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypedDict
from weakref import WeakKeyDictionary

import httpx

__all__ = ["ClientOptions", "Clients", "Transport", "Verify"]

Verify = bool | str | ssl.SSLContext
Transport = httpx.BaseTransport | httpx.AsyncBaseTransport

_CLOSED = "the client was closed before the request was sent"
_KEPT_ALIVE = 30.0  # seconds; httpx's 5 would make a new TLS handshake for each of a person's queries


@dataclass(frozen=True, slots=True)
class ClientOptions:
    """How to connect.

    Args:
        connections: How many idle connections are kept.
        headers: Sent with every request; they may hold secrets.
        proxy: A proxy's URL; without one, the environment's (``HTTPS_PROXY``, ``NO_PROXY``).
        verify: ``False`` trusts any server; a path is a file of certificates to trust.
        transport: Instead of the network, e.g. :class:`uprank.testing.MockTransport`.
        secure: Whether certificates are needed at all.
    """

    connections: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    proxy: str | None = field(default=None, repr=False)
    verify: Verify = True
    transport: Transport | None = None
    secure: bool = True


class _Common(TypedDict):
    headers: Mapping[str, str]
    limits: httpx.Limits
    verify: bool | ssl.SSLContext
    proxy: str | None


class Clients:
    """Gives the client for this thread's or this loop's calls. Safe to share, and across a fork.

    Args:
        options: How to connect.
    """

    def __init__(self, options: ClientOptions) -> None:
        self._options = options
        self._reset()

    def _reset(self) -> None:
        self._process = os.getpid()
        self._lock = threading.Lock()
        self._client: httpx.Client | None = None
        self._async: WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopClient] = WeakKeyDictionary()

    def sync(self) -> httpx.Client:
        """The one client of all threads."""
        self._own()
        with self._lock:
            if self._client is None:
                self._client = _Client(transport=self._options.transport, **self._common())
            return self._client

    async def current(self) -> httpx.AsyncClient:
        """The client of the running event loop; closed with the loop, at the latest."""
        self._own()
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._async.get(loop)
            if found is None:
                for other in [other for other in self._async if other.is_closed()]:
                    del self._async[other]
                client = _AsyncClient(transport=self._options.transport, **self._common())
                found = self._async[loop] = _LoopClient(client)
        await found.begin()
        return found.client

    def close(self) -> None:
        """Close the clients of threads and of other loops that run; a stopped loop closes its own when it ends.

        Requests on their way end as if nothing had happened: sent again, they would be paid twice.
        """
        self._own()
        with self._lock:
            client, self._client = self._client, None
            found = dict(self._async)
            self._async.clear()
        if client is not None:
            client.close()
        for loop, of_loop in found.items():
            if loop.is_running():
                asyncio.run_coroutine_threadsafe(of_loop.end(), loop)

    async def aclose(self) -> None:
        """As :meth:`close`, and wait until those of this loop are closed that are idle."""
        self._own()
        with self._lock:
            mine = self._async.pop(asyncio.get_running_loop(), None)
        if mine is not None:
            await mine.end()
        self.close()

    def _own(self) -> None:
        """After a fork, start afresh: the parent's connections are not ours, and its threads may have held the lock."""
        if self._process != os.getpid():
            self._reset()

    def _common(self) -> _Common:
        return {
            "headers": {"User-Agent": f"uprank/{_version()}", **self._options.headers},
            "limits": httpx.Limits(
                max_connections=None,  # the gate counts them
                max_keepalive_connections=self._options.connections,
                keepalive_expiry=_KEPT_ALIVE,
            ),
            "verify": _trust(self._options.verify) if self._options.secure or self._options.proxy else False,
            "proxy": self._options.proxy,
        }


class _LoopClient:
    """An async client that ends with its loop.

    An event loop that ends closes the asynchronous generators begun on it
    (``loop.shutdown_asyncgens``, which ``asyncio.run`` calls), and so this one closes the client.
    """

    def __init__(self, client: httpx.AsyncClient) -> None:
        self.client = client
        self._lifetime = self._live()
        self._begun = False

    async def begin(self) -> None:
        if not self._begun:
            self._begun = True
            await self._lifetime.__anext__()

    async def end(self) -> None:
        await self._lifetime.aclose()
        await self.client.aclose()  # where it never began

    async def _live(self) -> AsyncGenerator[None, None]:
        try:
            yield
        finally:
            await self.client.aclose()


class _AsyncClient(httpx.AsyncClient):
    """Closes once the requests on their way have ended. A connection that is being made meanwhile would stay open."""

    def __init__(self, **options: Any) -> None:  # Any: handed on as they came
        super().__init__(**options)
        self._busy, self._ending = 0, False

    async def aclose(self) -> None:
        self._ending = True
        if not self._busy:
            await super().aclose()

    async def send(self, request: httpx.Request, **options: Any) -> httpx.Response:  # Any: as above
        if self._ending and not self._busy:
            raise httpx.ConnectError(_CLOSED, request=request)
        self._busy += 1
        try:
            return await super().send(request, **options)
        finally:
            self._busy -= 1
            if self._ending and not self._busy:
                await super().aclose()


class _Client(httpx.Client):
    """Bounds the whole of a reply by the read timeout; httpx bounds the wait for each piece of it.

    It closes once the requests on their way have ended: a thread whose socket is closed under it may
    go on waiting, until its timeout, for another socket that has got the same number meanwhile.
    """

    def __init__(self, **options: Any) -> None:  # Any: handed on as they came
        super().__init__(**options)
        self._count = threading.Lock()
        self._busy, self._ending = 0, False

    def close(self) -> None:
        with self._count:
            self._ending = True
            busy = self._busy
        if not busy:
            super().close()

    def send(self, request: httpx.Request, *, stream: bool = False, **options: Any) -> httpx.Response:  # Any: as above
        with self._count:
            if self._ending and not self._busy:
                raise httpx.ConnectError(_CLOSED, request=request)
            self._busy += 1
        try:
            return self._send_whole(request, stream=stream, **options)
        finally:
            with self._count:
                self._busy -= 1
                last = self._ending and not self._busy
            if last:
                super().close()

    def _send_whole(self, request: httpx.Request, *, stream: bool, **options: Any) -> httpx.Response:
        began = time.monotonic()
        response = super().send(request, stream=True, **options)
        if stream or response.is_stream_consumed:  # a transport that is not the network hands over whole replies
            return response
        limits = request.extensions.get("timeout", {})
        limit = limits.get("read")
        if limit is not None:  # what the headers took is gone for the body
            limits["read"] = max(0.001, limit - (time.monotonic() - began))
        pieces: list[bytes] = []
        try:
            for piece in response.iter_raw():
                pieces.append(piece)
                if limit is not None and time.monotonic() - began > limit:
                    raise httpx.ReadTimeout(f"no whole reply within {limit:g} s", request=request)
        finally:
            response.close()
        return httpx.Response(response.status_code, headers=response.headers, content=b"".join(pieces), request=request)


def _version() -> str:
    import uprank  # the front door, which is not yet open while this is loaded

    return uprank.__version__


@lru_cache(maxsize=8)
def _trust(verify: Verify) -> bool | ssl.SSLContext:
    """Certificates to trust. Reading the usual ones takes 25 ms, so that is done once."""
    if isinstance(verify, str):
        return ssl.create_default_context(cafile=verify)
    return httpx.create_ssl_context() if verify is True else verify
