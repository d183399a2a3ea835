"""A contestant's process, as the driver sees it: started, asked, stopped, and never waited for without an end."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import threading
import time
from pathlib import Path
from typing import Any

__all__ = ["ContestantError", "Worker"]

_PACKAGE = Path(__file__).resolve().parent


class ContestantError(Exception):
    """A contestant cannot do what it was asked; the text is the reason that the report gives."""


class Worker:
    """One process with one library.

    Args:
        python: The interpreter of the library's environment.
        log: Where what the library prints goes.

    Raises:
        ContestantError: If the interpreter cannot be started.
    """

    def __init__(self, python: Path, log: Path) -> None:
        self.started = time.perf_counter()
        self._closed = False
        environment = {**os.environ, "PYTHONPATH": str(_PACKAGE.parent), "HF_HUB_OFFLINE": "1"}
        with log.open("ab") as output:
            try:
                self._process = subprocess.Popen(  # noqa: S603 - an interpreter that the caller names
                    [str(python), "-m", "speed_bench.worker"],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=output,
                    env=environment,
                    text=True,
                    encoding="utf-8",
                )
            except OSError as error:
                raise ContestantError(f"its Python could not be started: {error.strerror}") from error
        self._replies: queue.Queue[str | None] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._replies.put(line)
        self._replies.put(None)

    def ask(self, do: str, timeout: float = 600.0, **fields: object) -> dict[str, Any]:
        """Ask one thing, and wait for the answer.

        Args:
            do: As ``speed_bench.worker`` names it.
            timeout: Seconds; a contestant that takes longer is ended.
            fields: The rest of the request.

        Raises:
            ContestantError: If it fails, takes too long, or its process ends.
        """
        assert self._process.stdin is not None
        request = json.dumps({"do": do, **fields})
        try:
            if self._closed:
                line = None
            else:
                self._process.stdin.write(f"{request}\n")
                self._process.stdin.flush()
                line = self._replies.get(timeout=timeout)
        except queue.Empty:
            self.close()
            raise ContestantError(f"{do} took longer than {timeout:.0f} s") from None
        except OSError:
            line = None
        if line is None:
            self.close()
            raise ContestantError(f"its process ended with status {self._process.returncode} during {do}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise ContestantError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._closed = True
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait(30)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                try:
                    pipe.close()
                except OSError:  # a line that was not sent any more
                    continue
