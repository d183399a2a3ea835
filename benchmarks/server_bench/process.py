"""The server in a process of its own, as ``uprank serve`` runs it: ``python process.py MODEL PORT MAX_QUEUE``."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uprank import Reranker
from uprank.server import ServerSettings, serve

__all__ = ["HOLD", "Served", "running"]

HOLD = 0.5  # seconds that the model "slow" takes
STARTING = 120.0  # seconds; the embedded model is loaded before the first request


@dataclass(frozen=True)
class Served:
    """A running server.

    Attributes:
        port: On loopback.
        pid: Of its process.
    """

    port: int
    pid: int

    def resident_kib(self) -> int:
        """Its resident memory, as Linux tells."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))

    def cpu_seconds(self) -> float:
        """What its process has computed so far, as Linux tells."""
        fields = Path(f"/proc/{self.pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


@contextmanager
def running(model: str, *, max_queue: int = 512) -> Iterator[Served]:
    """Serve a model for the length of a ``with`` block.

    Args:
        model: ``"free"`` costs nothing, ``"slow"`` waits, and ``"embedded"`` keeps no vectors, so that it computes
            whatever it is asked.
        max_queue: How many requests may be under way.
    """
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, __file__, model, str(port), str(max_queue)]
    # Its log has a line a request, as by default; nobody reads it here.
    process = subprocess.Popen(  # noqa: S603 - this file
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    assert process.stdin is not None
    try:
        _wait(process, port)
        yield Served(port, process.pid)
    finally:
        process.stdin.close()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            raise


def _wait(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + STARTING
    while True:
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"The server did not start (exit status {process.poll()}).")
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
                connection.sendall(b"GET /health/ready HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                if connection.recv(64).split()[1:2] == [b"200"]:
                    return
        except OSError:
            pass
        time.sleep(0.1)


async def _free(query: str, texts: list[str]) -> list[float]:
    return [float(number) for number in range(len(texts))]


async def _slow(query: str, texts: list[str]) -> list[float]:
    await asyncio.sleep(HOLD)
    return await _free(query, texts)


def _main() -> None:
    model, port, max_queue = sys.argv[1:]
    reranker = Reranker({"free": _free, "slow": _slow}[model]) if model != "embedded" else Reranker(model, store=False)
    models = {model: {"model": "bm25", "aliases": ["*"], "warm": True}}  # the reranker takes the place of bm25
    settings = ServerSettings.of({"models": models, "port": int(port), "max_queue": int(max_queue)})

    def end_with_the_parent() -> None:
        sys.stdin.read()
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=end_with_the_parent, daemon=True).start()
    serve(settings, {model: reranker})


if __name__ == "__main__":
    _main()
