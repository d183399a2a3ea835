"""A contestant: a process of its own that loads one library, waits, and does what it is asked, a JSON line at a time.

It measures its own time, so that neither the pipe nor the driver is in the figures, and imports but the standard
library before it is told to load: the environments of other libraries have not even uprank.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from speed_bench import adapters
from speed_bench.memory import forget_peak, peak_bytes

__all__ = ["main"]

Message = dict[str, Any]  # a line of JSON


@dataclass(frozen=True, slots=True)
class _Sample:
    queries: list[str]
    documents: list[list[str]]


class Worker:
    """Answers requests; each is a method named by its ``"do"``."""

    def __init__(self) -> None:
        self._adapter: adapters.Adapter | None = None
        self._files: dict[str, Message] = {}

    def answer(self, request: Message) -> Message:
        """Do what a request says. What goes wrong is an answer too."""
        tasks: dict[str, Callable[[Message], Message]] = {
            "load": self._load,
            "score": self._score,
            "latency": self._latency,
            "callers": self._callers,
            "precompute": self._precompute,
            "prepare": self._prepare,
        }
        try:
            return tasks[request["do"]](request)
        except Exception as error:  # of any library: its name and text are the reason that the report gives
            return {"error": f"{type(error).__name__}: {error}"[:500]}

    def _load(self, request: Message) -> Message:
        started = time.perf_counter()
        self._adapter = adapters.load(request["library"], request["options"])
        return {
            "seconds": time.perf_counter() - started,
            "thread_safe": self._adapter.thread_safe,
            "has_tasks": self._adapter.has_tasks,
            "versions": _versions(),
        }

    def _score(self, request: Message) -> Message:
        adapter, sample = self._ready(request)
        if "batch_size" in request:
            adapter.set_batch_size(request["batch_size"])
        forgot = forget_peak()
        started = time.perf_counter()
        scores = adapter.score(sample.queries, sample.documents)
        seconds = time.perf_counter() - started
        answer: Message = {
            "seconds": seconds,
            "pairs": sum(map(len, scores)),
            "peak": peak_bytes(),
            "peak_of_call": forgot,
            "device_peak": adapter.device_peak(),
        }
        if request.get("scores"):
            answer["scores"] = scores
        return answer

    def _latency(self, request: Message) -> Message:
        """One call after the other."""
        adapter, sample = self._ready(request)
        taken = []
        for query, texts in zip(sample.queries, sample.documents, strict=True):
            started = time.perf_counter()
            adapter.score_one(query, texts)
            taken.append(time.perf_counter() - started)
        return {"seconds": taken}

    def _callers(self, request: Message) -> Message:
        """As many callers as there are queries, all at once."""
        adapter, sample = self._ready(request)
        if request["mode"] == "tasks":
            seconds, taken = asyncio.run(_by_tasks(adapter, sample))
        else:
            seconds, taken = _by_threads(adapter, sample)
        return {"seconds": seconds, "latencies": taken, "pairs": sum(map(len, sample.documents))}

    def _precompute(self, request: Message) -> Message:
        adapter, sample = self._ready(request)
        started = time.perf_counter()
        adapter.precompute([text for texts in sample.documents for text in texts])
        return {"seconds": time.perf_counter() - started}

    def _prepare(self, request: Message) -> Message:
        from speed_bench import preparing

        started = time.perf_counter()
        preparing.prepare(request["what"], Path(request["model"]), Path(request["target"]), request["settings"])
        return {"seconds": time.perf_counter() - started}

    def _ready(self, request: Message) -> tuple[adapters.Adapter, _Sample]:
        if self._adapter is None:
            raise RuntimeError("nothing is loaded")
        path = request["file"]
        if path not in self._files:
            self._files[path] = json.loads(Path(path).read_text("utf-8"))
        texts = self._files[path]
        numbers: Sequence[int] = request["queries"]
        most: int | None = request.get("documents")
        return self._adapter, _Sample(
            [texts["queries"][number % len(texts["queries"])] for number in numbers],
            [texts["documents"][number % len(texts["documents"])][:most] for number in numbers],
        )


def _by_threads(adapter: adapters.Adapter, sample: _Sample) -> tuple[float, list[float]]:
    lock = threading.Lock()
    taken: list[float] = []
    failures: list[Exception] = []
    started_all = threading.Barrier(len(sample.queries) + 1)

    def call(query: str, texts: list[str]) -> None:
        started_all.wait()
        started = time.perf_counter()
        try:
            if adapter.thread_safe:
                adapter.score_one(query, texts)
            else:
                with lock:
                    adapter.score_one(query, texts)
        except Exception as error:  # told below, by the thread that is asked
            failures.append(error)
        taken.append(time.perf_counter() - started)

    threads = [
        threading.Thread(target=call, args=pair, daemon=True)
        for pair in zip(sample.queries, sample.documents, strict=True)
    ]
    for thread in threads:
        thread.start()
    started_all.wait()
    started = time.perf_counter()
    for thread in threads:
        thread.join()
    seconds = time.perf_counter() - started
    if failures:
        raise failures[0]
    return seconds, taken


async def _by_tasks(adapter: adapters.Adapter, sample: _Sample) -> tuple[float, list[float]]:
    taken: list[float] = []

    async def call(query: str, texts: list[str]) -> None:
        started = time.perf_counter()
        await adapter.ascore_one(query, texts)
        taken.append(time.perf_counter() - started)

    started = time.perf_counter()
    await asyncio.gather(*(call(*pair) for pair in zip(sample.queries, sample.documents, strict=True)))
    return time.perf_counter() - started, taken


_PACKAGES = (
    *("uprank", "sentence-transformers", "transformers", "tokenizers", "torch", "numpy"),
    *("onnxruntime", "openvino", "optimum", "optimum-onnx", "optimum-intel"),
    *("FlashRank", "rerankers", "FlagEmbedding", "flash-attn"),
)


def _versions() -> dict[str, str]:
    from importlib.metadata import PackageNotFoundError, version

    found = {}
    for package in _PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def main() -> None:
    """Answer the lines of standard input on standard output, until it ends."""
    replies = _own_output()
    worker = Worker()
    for line in sys.stdin:
        json.dump(worker.answer(json.loads(line)), replies)
        replies.write("\n")
        replies.flush()


def _own_output() -> IO[str]:
    """Standard output, for the answers alone: what libraries print goes to standard error."""
    own = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return own


if __name__ == "__main__":
    main()
