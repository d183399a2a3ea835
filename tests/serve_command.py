"""``python serve_command.py``: the command ``uprank`` with one more model, ``slow``; and ways to run it."""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from uprank.errors import ModelLoadError
from uprank.scorers import Scorer, Scores, register_scorer

LISTENING = re.compile(r"Listening on (http://\S+),")
SCORED = "slow: scoring"


class SlowScorer(Scorer):
    """Scores texts by their length, in its own time; logs each call, and nothing of it.

    Args:
        seconds: A call takes.
        load_seconds: Loading takes.
        broken: Whether it cannot be loaded.
    """

    name = "slow"
    score_kind = "logit"

    def __init__(self, *, seconds: float = 0.0, load_seconds: float = 0.0, broken: bool = False) -> None:
        self.seconds, self.load_seconds, self.broken = seconds, load_seconds, broken
        self.closed = False
        self.loaded, self.begun = threading.Event(), threading.Event()
        self._lock = threading.Lock()

    def identity(self) -> dict[str, object]:
        return {"scheme": "slow"}

    def load(self) -> None:
        with self._lock:
            if not self.loaded.is_set():
                time.sleep(self.load_seconds)
                if self.broken:
                    raise ModelLoadError("slow is broken.")
                self.loaded.set()

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        raise AssertionError("the server awaits")

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        logging.getLogger("uprank.server").info(SCORED)
        self.begun.set()
        if not self.loaded.is_set():
            await asyncio.to_thread(self.load)
        await asyncio.sleep(self.seconds)
        assert not self.closed, "closed while it was needed"
        return Scores([float(len(text)) for text in texts], "logit")

    def close(self) -> None:
        self.closed = True


class Served:
    """A server process."""

    def __init__(self, *arguments: str, **environment: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__, "serve", "--port", "0", *arguments],
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.lines: list[str] = []
        self.address = ""
        self._listens = threading.Event()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            self.lines.append(line.rstrip("\n"))
            if found := LISTENING.search(line):
                self.address = found[1]
                self._listens.set()
        self._listens.set()

    def wait_until_listening(self) -> None:
        assert self._listens.wait(60), "it does not listen"
        assert self.address, f"it ended: {self.lines}"

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_code(self, seconds: float = 20) -> int:
        """Wait for the end; then all that it wrote is in ``lines``."""
        code = self._process.wait(seconds)
        self._reader.join(seconds)
        return code

    @property
    def scored(self) -> int:
        """How many times the model was asked."""
        return sum(SCORED in line for line in list(self.lines))

    def end(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self.exit_code()
        assert self._process.stdout is not None
        assert self._process.stdout.read() == "", "a server has nothing to say on stdout"
        self._process.stdout.close()


@contextmanager
def served(*arguments: str, **environment: str) -> Iterator[Served]:
    """Run the command until it listens; killed in the end, if it is there still."""
    server = Served(*arguments, **environment)
    try:
        server.wait_until_listening()
        yield server
    finally:
        server.end()


class Client:
    """A connection that is kept as long as the server wants it, and opened anew for the next request after that."""

    def __init__(self, address: str, timeout: float = 20) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(address).netloc, timeout=timeout)

    @property
    def fresh(self) -> bool:
        """Whether the next request opens a connection."""
        return self._connection.sock is None

    def rerank(self, *documents: str, query: str = "q") -> http.client.HTTPResponse:
        body = json.dumps({"query": query, "documents": documents})
        self._connection.request("POST", "/v1/rerank", body, {"content-type": "application/json"})
        return self._read()

    def get(self, path: str) -> http.client.HTTPResponse:
        self._connection.request("GET", path)
        return self._read()

    def _read(self) -> http.client.HTTPResponse:
        response = self._connection.getresponse()
        self.body = json.loads(response.read())
        return response

    def close(self) -> None:
        self._connection.close()


@contextmanager
def process_as_before() -> Iterator[None]:
    """Leave the logging and the signals of this process as they were: a server sets them up for itself."""
    loggers = [logging.getLogger(name) for name in (None, "uprank", "uvicorn.error")]
    handlers, levels = list(loggers[0].handlers), [one.level for one in loggers]
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, handler)
        loggers[0].handlers[:] = handlers
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def toml(path: Path, text: str) -> str:
    """Write a file of settings; returns its path."""
    path.write_text(text, encoding="utf-8")
    return str(path)


if __name__ == "__main__":
    from uprank.cli import main

    register_scorer("slow", SlowScorer)
    main()
