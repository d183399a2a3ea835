"""What a first model that is down costs a fallback chain, and how soon it gets its traffic back.

Usage: python benchmarks/fallback.py [--calls 500] [--documents 20] [--delay 10] [--cooldown 1.0] [--limit 1.05]

Two rerank services on loopback, in a process of their own, which take a while to answer as a model does. The first one
answers, then goes down: its connections are cut and its port is closed. After the failures that open its circuit,
calls of the chain take turns with calls of the second model alone; tries of the first model, one a cooldown, are
among the calls that are timed. Then the first one comes back, and the next calls are to go to it. All of it sync,
then async. Exit status 1 if the 95th percentile of the chain is more than the limit times that of the second model
alone, or if the first model has not its traffic back after one try.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection

from uprank import Ranking, Reranker
from uprank.scorers import HTTPScorer
from uprank.scorers.combined.breaker import Breaker
from uprank.scorers.combined.fallback import Fallback

LIMIT = 1.05
QUERY = "how do I read a JSON file in Python?"
LIFETIME = 600.0  # seconds after which forgotten servers stop by themselves
WARM_UP = 20  # calls

Rank = Callable[[], Awaitable[Ranking]]


@dataclass(frozen=True)
class Services:
    """Two running services.

    Attributes:
        first: The URL of the first one, without a path.
        second: Likewise.
        control: Where the first one is told to come up or go down, and says when it has.
    """

    first: str
    second: str
    control: Connection

    def switch(self, state: str) -> None:
        """Bring the first service ``"up"`` or ``"down"``."""
        self.control.send(state)
        if not self.control.poll(10):
            raise RuntimeError("the servers do not answer")
        self.control.recv()


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and judge.

    Args:
        arguments: The command line; by default the program's own.

    Returns:
        The exit status: 0, or 1 if a figure is outside of its limit.
    """
    parser = argparse.ArgumentParser(description="Time a fallback chain whose first model is down, on loopback.")
    parser.add_argument("--calls", type=_positive, default=500, help="timed calls of each kind (default 500)")
    parser.add_argument("--documents", type=_positive, default=20, help="documents in each call (default 20)")
    parser.add_argument("--cooldown", type=float, default=1.0, help="seconds until the first try (default 1)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="most times the second model's p95 (default 1.05)")
    parser.add_argument("--delay", type=float, default=10.0, help="milliseconds a service takes (default 10)")
    options = parser.parse_args(arguments)
    logging.getLogger("uprank").setLevel(logging.ERROR)  # an opened circuit is a warning

    texts = [f"Passage {number}: call json.load on an open file to read it." for number in range(options.documents)]
    good = True
    with services(options.documents, options.delay / 1_000) as running:
        for way in ("sync", "async"):
            good = asyncio.run(measure(running, texts, options, way)) and good
    return 0 if good else 1


async def measure(running: Services, texts: Sequence[str], options: argparse.Namespace, way: str) -> bool:
    """Go through an outage by one way of calling, and print what it cost.

    Args:
        running: The services; the first one is up before and after.
        texts: Documents of each call.
        options: The command line's.
        way: ``"sync"`` or ``"async"``.

    Returns:
        Whether all figures are within their limits.
    """

    def model(name: str, url: str) -> HTTPScorer:
        return HTTPScorer(name, provider="jina", base_url=url, api_key="k", max_retries=0)

    fallback = Fallback(
        [model("first", running.first), model("second", running.second)], breaker=Breaker(cooldown=options.cooldown)
    )
    async with Reranker(fallback) as chain, Reranker(model("second", running.second)) as alone:

        def caller(reranker: Reranker) -> Rank:
            async def rank() -> Ranking:
                return reranker.rank(QUERY, texts) if way == "sync" else await reranker.arank(QUERY, texts)

            return rank

        calls = {"chain": caller(chain), "alone": caller(alone)}
        for _ in range(WARM_UP):
            assert (await calls["chain"]()).model == "jina:first"
            await calls["alone"]()
        running.switch("down")
        detected = []
        while fallback.states[0].state == "closed":
            started = time.perf_counter()
            assert (await calls["chain"]()).model == "jina:second"
            detected.append(time.perf_counter() - started)
        taken: dict[str, list[float]] = {"chain": [], "alone": []}
        tries = 0
        for turn in range(options.calls):
            for name in ("chain", "alone") if turn % 2 else ("alone", "chain"):
                started = time.perf_counter()
                ranking = await calls[name]()
                taken[name].append(time.perf_counter() - started)
                assert ranking.model == "jina:second"
                tries += bool(ranking.attempts) and ranking.attempts[0].kind != "CircuitOpen"
        running.switch("up")
        await asyncio.sleep(fallback.states[0].retry_in)
        models = [(await calls["chain"]()).model for _ in range(WARM_UP)]
    ratio = _percentile(taken["chain"]) / _percentile(taken["alone"])
    print(f"{way}, {len(texts)} documents, {options.delay:g} ms a reply, first model down")
    print(f"  {len(detected)} calls until it was left alone, the slowest {max(detected) * 1_000:.2f} ms")
    for name, label in (("chain", "fallback chain"), ("alone", "second model alone")):
        median, high = statistics.median(taken[name]) * 1_000, _percentile(taken[name]) * 1_000
        print(f"  {label:20} median {median:7.3f} ms   p95 {high:7.3f} ms   of {options.calls} calls")
    over = statistics.median(a - b for a, b in zip(taken["chain"], taken["alone"], strict=True)) * 1_000
    print(f"  p95 {ratio:.3f} times that of the second model; {over:+.3f} ms a call; {tries} tries of the first")
    print(f"  back up: {models.count('jina:first')} of the {len(models)} calls after its cooldown went to the first")
    good = ratio <= options.limit and models == ["jina:first"] * WARM_UP
    if not good:
        print(f"Outside of the limits: p95 at most {options.limit:g} times, all calls back.", file=sys.stderr)
    return good


def _percentile(taken: Sequence[float]) -> float:
    """The 95th."""
    return statistics.quantiles(taken, n=20, method="inclusive")[-1] if len(taken) > 1 else taken[0]


@contextmanager
def services(count: int, delay: float) -> Iterator[Services]:
    """Run both services in a process of their own, for the length of a ``with`` block.

    Args:
        count: Documents that every request holds.
        delay: Seconds before each answer.
    """
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(count, delay, there), daemon=True)
    process.start()
    try:
        if not here.poll(30):
            raise RuntimeError("the servers did not start within 30 s")
        first, second = here.recv()
        yield Services(f"http://127.0.0.1:{first}", f"http://127.0.0.1:{second}", here)
    finally:
        process.terminate()
        process.join(10)
        here.close()
        there.close()


def _serve(count: int, delay: float, control: Connection) -> None:
    results = [{"index": index, "relevance_score": (index + 0.5) / count} for index in range(count)]
    content = json.dumps({"results": results, "usage": {"total_tokens": 1}}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    reply = head.encode() + content
    connected: set[asyncio.Transport] = set()

    class Answer(asyncio.Protocol):
        def __init__(self, *, cut: bool) -> None:
            self.cut = cut  # whether it goes down with the first service

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            self.buffer = bytearray()
            if self.cut:
                connected.add(transport)

        def connection_lost(self, error: Exception | None) -> None:
            connected.discard(self.transport)

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = bytes(self.buffer[:end]).lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            if len(self.buffer) >= end + 4 + length:  # one request at a time: the clients here wait for its reply
                self.buffer.clear()
                asyncio.get_running_loop().call_later(delay, self.transport.write, reply)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        second = await loop.create_server(lambda: Answer(cut=False), "127.0.0.1", 0)
        first = await loop.create_server(lambda: Answer(cut=True), "127.0.0.1", 0)
        port = first.sockets[0].getsockname()[1]
        control.send((port, second.sockets[0].getsockname()[1]))
        told: asyncio.Queue[str] = asyncio.Queue()
        loop.add_reader(control.fileno(), lambda: told.put_nowait(control.recv()))
        while True:
            if await told.get() == "down":
                first.close()
                for transport in list(connected):
                    transport.abort()
            else:
                first = await loop.create_server(lambda: Answer(cut=True), "127.0.0.1", port)
            control.send("done")

    async def bounded() -> None:
        await asyncio.wait_for(serve(), LIFETIME)

    asyncio.run(bounded())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
