"""Clients: one on asyncio that costs little, and wrk where it is installed."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

__all__ = ["Connection", "Load", "at_once", "closed_loop", "paced", "request", "texts", "wrk"]

PATH = "/v1/rerank"
WORDS = "how one parses reads writes sorts a JSON file list table in Python or SQL with care and speed".split()  # noqa: SIM905


def texts(seed: int, count: int, characters: int) -> list[str]:
    """So many texts of about so many characters, no two alike."""
    rng = random.Random(seed)  # noqa: S311 - texts
    return [" ".join([str(number), *rng.choices(WORDS, k=characters // 5)]) for number in range(count)]


def request(body: object, *, path: str = PATH) -> bytes:
    """A request as it is sent; a body that is bytes already goes as it is."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content


@dataclass
class Load:
    """What clients saw.

    Attributes:
        seconds: From the first request to the last reply.
        taken: Seconds of each request.
        statuses: How often each came.
    """

    seconds: float = 0.0
    taken: list[float] = field(default_factory=list)
    statuses: Counter[int] = field(default_factory=Counter)

    @property
    def rate(self) -> float:
        """Requests a second."""
        return len(self.taken) / self.seconds

    def milliseconds(self, percent: int) -> float:
        """A percentile of the time that a request takes."""
        return statistics.quantiles(self.taken, n=100, method="inclusive")[percent - 1] * 1_000


class Connection(asyncio.Protocol):
    """A connection on which one request after the other is made.

    Attributes:
        content: The body of the last reply.
    """

    def __init__(self) -> None:
        self.content = b""
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._reply: asyncio.Future[tuple[int, bytes]] | None = None

    @classmethod
    async def open(cls, port: int) -> Connection:
        """Connect to a server on loopback."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, "127.0.0.1", port)
        return connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def connection_lost(self, error: Exception | None) -> None:
        if self._reply is not None and not self._reply.done():
            self._reply.set_exception(error or ConnectionResetError("closed before the reply"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, found, rest = self._received.partition(b"\r\n\r\n")
        if not found or self._reply is None:
            return
        lines = bytes(head).lower().split(b"\r\n")
        length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
        if len(rest) >= length and not self._reply.done():
            self.content = bytes(rest)
            self._reply.set_result((int(lines[0].split()[1]), bytes(head)))

    async def ask(self, wire: bytes) -> tuple[int, bytes]:
        """Send a request; gives the status of its reply, and its head."""
        assert self._transport is not None
        self._received.clear()
        self._reply = asyncio.get_running_loop().create_future()
        self._transport.write(wire)
        return await self._reply

    def close(self) -> None:
        """End it, whatever is under way."""
        if self._transport is not None:
            self._transport.abort()


async def _asked(connection: Connection, wire: bytes, load: Load) -> bytes:
    started = time.perf_counter()
    status, head = await connection.ask(wire)
    load.taken.append(time.perf_counter() - started)
    load.statuses[status] += 1
    return head


async def closed_loop(
    port: int, wires: Sequence[bytes], *, clients: int, seconds: float | None = None, requests: int | None = None
) -> Load:
    """Load by clients that each send a request as soon as the last one is answered.

    Args:
        port: Of the server.
        wires: Requests, taken in turn by all.
        clients: Each has a connection of its own.
        seconds: How long; or
        requests: How many.
    """
    load, left = Load(), cycle(wires) if requests is None else iter([*wires][:requests])
    connections = [await Connection.open(port) for _ in range(clients)]
    started = time.perf_counter()

    async def client(connection: Connection) -> None:
        for wire in left:
            if seconds is not None and time.perf_counter() - started > seconds:
                return
            await _asked(connection, wire, load)

    await asyncio.gather(*map(client, connections))
    load.seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return load


async def at_once(port: int, wire: bytes, count: int) -> tuple[Load, list[bytes]]:
    """Load by one request on each of many connections, all sent in the same moment; and the heads of the replies."""
    load = Load()
    connections: list[Connection] = []
    for first in range(0, count, 100):  # no more than the system keeps until they are accepted
        some = range(min(100, count - first))
        connections += await asyncio.gather(*(Connection.open(port) for _ in some))
    started = time.perf_counter()
    heads = await asyncio.gather(*(_asked(connection, wire, load) for connection in connections))
    load.seconds = time.perf_counter() - started
    for connection in connections:
        connection.close()
    return load, heads


async def paced(port: int, wires: Sequence[bytes], *, rate: float, clients: int, seconds: float, leaving: int) -> Load:
    """Load at a steady rate, by clients some of which leave before their reply.

    Args:
        port: Of the server.
        wires: Requests, taken in turn by all.
        rate: Requests a second, together.
        clients: At most so many requests are under way; what is due meanwhile is sent late.
        seconds: How long.
        leaving: Of so many requests, one is left without waiting for its reply.
    """
    load, left = Load(), cycle(wires)
    started = time.perf_counter()
    due = started
    number = 0

    async def client() -> None:
        nonlocal due, number
        connection = await Connection.open(port)
        while True:
            now = time.perf_counter()
            if now - started > seconds:
                break
            due, wait = due + 1 / rate, due - now
            number += 1
            leaves = number % leaving == 0
            if wait > 0:
                await asyncio.sleep(wait)
            if leaves:
                reply = asyncio.ensure_future(connection.ask(next(left)))
                await asyncio.sleep(0.001)  # so that it is sent
                connection.close()
                await asyncio.wait({reply})
                reply.exception()
                connection = await Connection.open(port)
            else:
                await _asked(connection, next(left), load)
        connection.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    load.seconds = time.perf_counter() - started
    return load


_SCRIPT = """
local file = io.open("{body}", "rb")
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"] = "application/json"
file:close()
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format('\\nfigures {{"p50": %f, "p95": %f, "requests": %d, "seconds": %f, "failed": %d}}\\n',
    latency:percentile(50) / 1000, latency:percentile(95) / 1000, summary.requests, summary.duration / 1e6,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout))
end
"""


def wrk(port: int, body: object, *, clients: int, seconds: float) -> dict[str, float] | None:
    """Load by wrk (https://github.com/wg/wrk); ``None`` where it is not installed.

    Returns:
        ``p50`` and ``p95`` in milliseconds, ``requests``, ``seconds`` and how many ``failed``.
    """
    tool = shutil.which("wrk")
    if tool is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        content, script = Path(folder) / "body.json", Path(folder) / "post.lua"
        content.write_text(json.dumps(body))
        script.write_text(_SCRIPT.format(body=content))
        url = f"http://127.0.0.1:{port}{PATH}"
        command = [tool, "-t1", f"-c{clients}", f"-d{max(1, round(seconds))}s", "-s", str(script), url]
        told = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout  # noqa: S603 - wrk
    line = next(line for line in told.splitlines() if line.startswith("figures "))
    found: dict[str, float] = json.loads(line.partition(" ")[2])
    return found
