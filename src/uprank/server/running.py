"""The server, running: it listens, and when it is told to end it answers what it has accepted."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FrameType
from typing import TYPE_CHECKING, Final, Literal, NoReturn

import uvicorn

from uprank.errors import UprankError
from uprank.reranker import Reranker
from uprank.server.app import create_app
from uprank.server.logs import set_up_logging
from uprank.server.probes import Readiness
from uprank.server.served import ServedModels
from uprank.server.settings import ServerSettings

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

__all__ = ["serve", "serve_in_thread"]

logger = logging.getLogger("uprank.server")

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_BACKLOG: Final = 2_048  # connections that the system holds until they are accepted
# Seconds that a connection is kept between requests. Longer than the 60 of most load balancers: who closes first must
# not be the side that the next request is on its way to.
_KEEP_ALIVE: Final = 75
# Seconds, at the end, for a request that is on its way on an open connection: longer than any round trip.
_ON_THE_WAY: Final = 0.5
_CUT_OFF: Final = 1.0  # seconds for the replies to requests that took too long
_CLOSING: Final = 10.0  # seconds for models to be closed, e.g. a batch that runs
_POLL: Final = 0.02
_WHY: Final = {
    errno.EADDRINUSE: "another program listens there; end it, or choose another port",
    errno.EACCES: "this user may not listen on that port; choose one above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; 127.0.0.1 is itself, 0.0.0.0 all that it has",
    socket.EAI_NONAME: "there is no such address; 127.0.0.1 is this machine itself, 0.0.0.0 all addresses that it has",
}
_AGAIN: Final = 0.5  # seconds after a signal from which on another one is meant


def serve(settings: ServerSettings, rerankers: Mapping[str, Reranker] | None = None) -> None:
    """Serve until SIGTERM or SIGINT, for a program that does nothing else. Call it from the main thread.

    At the signal ``/health/ready`` turns 503 and every reply asks its client to leave (``Connection: close``). After
    ``drain_delay`` no connection is accepted any more. Requests that were accepted, which means that their head was
    read, are answered; those that take longer than ``drain_seconds`` are answered 503. A second signal, half a
    second later or more, ends the process at once.

    Args:
        settings: What is served, where, and to whom.
        rerankers: As for :func:`create_app`.

    Raises:
        ConfigurationError: If a model or a key cannot be set up.
        MissingDependencyError: If a model needs a package that is not installed.
        ModelLoadError: If a model that was to be warm cannot be loaded; what was accepted meanwhile is answered first.
        UprankError: If the address cannot be listened on, e.g. because it is in use.
    """
    set_up_logging(settings.log_level, settings.log_format)
    # Until the server has its own: as process 1 of a container there is no default.
    signal.signal(signal.SIGTERM, _leave)
    app = create_app(settings, rerankers)
    models: ServedModels = app.state.models
    listener = _listener(settings.host, settings.port)
    models.check_address(*listener.getsockname()[:2])
    watchdog = threading.Timer(_CLOSING, _end)  # a thread that hangs must not keep the process
    watchdog.daemon = True
    server = _Server(app, settings, models, app.state.readiness, closing=watchdog.start)
    try:
        server.run(sockets=[listener])
    finally:
        watchdog.cancel()
    if models.failure is not None:
        raise models.failure
    if models.state == "loading":
        os._exit(0)  # its thread would be waited for


@contextmanager
def serve_in_thread(settings: ServerSettings, rerankers: Mapping[str, Reranker] | None = None) -> Iterator[str]:
    """Serve while a block lasts, beside what else this process does: for notebooks, examples and tests.

    It ends as :func:`serve` does, but waits for the models to be closed however long that takes. Signals and handlers
    of the log are left alone; records of uprank that may quote a request are told without the quote meanwhile.

    Args:
        settings: As for :func:`serve`; ``port`` 0 takes a free one.
        rerankers: Likewise. They are closed at the end.

    Yields:
        The address, e.g. ``"http://127.0.0.1:8000"``.

    Raises:
        ConfigurationError: As :func:`serve` does, as well as the other errors there.
    """
    app = create_app(settings, rerankers)
    models: ServedModels = app.state.models
    with _listener(settings.host, settings.port) as listener:
        models.check_address(*listener.getsockname()[:2])
        server = _Server(app, settings, models, app.state.readiness)
        thread = threading.Thread(target=server.run, args=([listener],), name="uprank-server", daemon=True)
        thread.start()
        try:
            while models.state == "loading" or not server.started:
                if not thread.is_alive():
                    break
                time.sleep(_POLL)
            if models.failure is None:
                yield f"http://{_address(*listener.getsockname()[:2])}"
        finally:
            server.should_exit = True
            thread.join()
    if models.failure is not None:
        raise models.failure


def _listener(host: str, port: int) -> socket.socket:
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    both = host == "::" and socket.has_dualstack_ipv6()  # every address, as 0.0.0.0 is
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG, dualstack_ipv6=both)
    except OSError as error:
        why = _WHY.get(error.errno or 0, error.strerror)
        raise UprankError(f"The server cannot listen on {_address(host, port)}: {why}.") from None


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


class _Server(uvicorn.Server):
    """Uvicorn's, except for how it ends.

    Args:
        app: What answers.
        settings: The server's.
        models: If they cannot be loaded the server ends.
        readiness: Told when the server is about to end.
        closing: Called when nothing is left but to close the models.
    """

    def __init__(
        self,
        app: ASGIApp,
        settings: ServerSettings,
        models: ServedModels,
        readiness: Readiness,
        *,
        closing: Callable[[], None] = lambda: None,
    ) -> None:
        leaving = _Leaving(app, readiness)
        super().__init__(
            uvicorn.Config(
                leaving,
                http=_protocol(),
                lifespan="on",
                ws="none",
                log_config=None,
                # What uvicorn has to tell beside errors is told here in other words.
                log_level="debug" if settings.log_level == "debug" else "warning",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=_BACKLOG,
                timeout_keep_alive=_KEEP_ALIVE,
                h11_max_incomplete_event_size=64 * 1024,
            )
        )
        self._settings = settings
        self._models = models
        self._readiness = readiness
        self._ends_at: float | None = None
        self._told_at = 0.0
        self._closing = closing

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        host, port = (sockets or [])[0].getsockname()[:2]
        key = "a key is needed" if self._settings.keys else "no key is needed"
        names = ", ".join(self._models.rerankers)
        logger.info("Listening on http://%s, serving %s; %s", _address(host, port), names, key)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Handle signals while the block lasts; unlike uvicorn's own, none is raised again: the exit code is 0."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self.handle_exit) for number in _SIGNALS}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Begin to end; at the second signal, end."""
        if self._readiness.draining:
            # A terminal and a supervisor may both pass on one Ctrl-C: what comes at once is the same wish again.
            if time.monotonic() - self._told_at > _AGAIN:
                os._exit(128 + sig)
            return
        self._told_at = time.monotonic()
        self._readiness.draining = True
        self._ends_at = time.monotonic() + self._settings.drain_delay

    async def on_tick(self, counter: int) -> bool:
        """Whether to shut down; asked several times a second."""
        over = self._ends_at is not None and time.monotonic() >= self._ends_at
        return await super().on_tick(counter) or over or self._models.failure is not None

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End: no new connections, then no new requests, then nothing."""
        self._readiness.draining = True
        connections, tasks = self.server_state.connections, self.server_state.tasks
        logger.info("Ending; requests under way: %d", len(tasks))
        for server in self.servers:
            server.close()
        await _until(lambda: not connections, _ON_THE_WAY)

        def empty() -> bool:
            for connection in list(connections):  # also those that were accepted in the last moment
                connection.shutdown()
            return not connections and not tasks

        if not await _until(empty, self._settings.drain_seconds):
            seconds = self._settings.drain_seconds
            logger.warning("Requests that are not done after %g s, and are given up: %d", seconds, len(tasks))
            for task in list(tasks):
                task.cancel()
            await _until(empty, _CUT_OFF)
        self._closing()
        await self.lifespan.shutdown()
        logger.info("Ended")


class _Leaving:
    """Asks clients to close their connections, once the server is about to end."""

    def __init__(self, app: ASGIApp, readiness: Readiness) -> None:
        self._app = app
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_on(message: Message) -> None:
            if self._readiness.draining and message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, send_on)


def _protocol() -> type[asyncio.Protocol] | Literal["h11"]:
    """The faster one, where it is installed; h11 bounds heads by itself."""
    try:
        from uprank.server.protocol import BoundedProtocol
    except ImportError:
        return "h11"
    return BoundedProtocol


async def _until(condition: Callable[[], bool], seconds: float) -> bool:
    """Wait for a condition, at most so long; tells whether it holds."""
    deadline = time.monotonic() + seconds
    while not (holds := condition()) and time.monotonic() < deadline:
        await asyncio.sleep(_POLL)
    return holds


def _end() -> None:
    logger.error("The models were not closed after %g s", _CLOSING)
    os._exit(1)


def _leave(number: int, frame: FrameType | None) -> NoReturn:
    sys.exit(0)
