"""The server as a process of its own, whose memory can be watched: ``python serving_apart.py`` prints its port.

It ends with the process that started it, whose end of its standard input is closed then.
"""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from free_scorer import FreeScorer
from serving import settings_for
from uprank import Reranker
from uprank.server import create_app


@dataclass(frozen=True)
class Apart:
    """A server process."""

    port: int
    pid: int

    def resident_kib(self) -> int:
        """Its resident memory, in KiB, as Linux tells."""
        lines = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))


@contextmanager
def serving_apart() -> Iterator[Apart]:
    """Run the server in a process; it is ended and waited for."""
    process = subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=Path(__file__).parent, text=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield Apart(int(process.stdout.readline()), process.pid)
        assert process.poll() is None, "the server process ended"
    finally:
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            raise
        finally:
            process.stdout.close()


def _main() -> None:
    rerankers = {"bm25": Reranker("bm25"), "free": Reranker(FreeScorer())}
    app = create_app(settings_for(rerankers, limits={"body_bytes": 65_536}), rerankers)
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="critical", access_log=False))

    def tell_port() -> None:
        while not server.started:
            threading.Event().wait(0.01)
        sys.stdout.write(f"{server.servers[0].sockets[0].getsockname()[1]}\n")
        sys.stdout.flush()
        sys.stdin.read()
        server.should_exit = True

    threading.Thread(target=tell_port, daemon=True).start()
    server.run()


if __name__ == "__main__":
    _main()
