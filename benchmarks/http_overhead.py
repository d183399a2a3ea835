"""What a rerank through uprank costs over a bare HTTP post of the same body, sync and async.

Usage: python benchmarks/http_overhead.py [--calls 300] [--documents 100] [--limit 1.0]

A server in a process of its own, on loopback, answers every request at once with the same scores, so that what is timed
is the client. Each turn sends one bare post (httpx, with ``json.dumps`` of the same body and ``json.loads`` of the
reply), one `Reranker.rank`, and, if its SDK is installed, one rerank by Cohere's own client and one by
`Reranker("cohere:…")`; the order changes from turn to turn. Exit status 1 if `Reranker` through httpx takes
more than the limit over the bare post of the same turn, in the median.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import statistics
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from multiprocessing.connection import Connection

import httpx

from uprank import Reranker

LIMIT_MS = 1.0
MODEL = "a-model"
QUERY = "how do I read a JSON file in Python?"
LIFETIME = 600.0  # seconds after which a forgotten server stops by itself

Timings = dict[str, list[float]]


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: What was called.
        median: Milliseconds a call.
        baseline: What it is compared with.
        over: Milliseconds a call more than the baseline: the median difference of calls in the same turn, so that a
            machine that is slow for a while is slow for both.
        times: The median by the baseline's.
    """

    name: str
    median: float
    baseline: str
    over: float
    times: float


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and judge.

    Args:
        arguments: The command line; by default the program's own.

    Returns:
        The exit status: 0, or 1 if a rerank takes longer over a bare post than the limit.
    """
    parser = argparse.ArgumentParser(description="Time reranks beside bare HTTP posts, on loopback.")
    parser.add_argument("--calls", type=_positive, default=300, help="timed calls of each kind (default 300)")
    parser.add_argument("--documents", type=_positive, default=100, help="documents in each call (default 100)")
    parser.add_argument("--limit", type=float, default=LIMIT_MS, help="most milliseconds over a bare post (default 1)")
    options = parser.parse_args(arguments)

    texts = documents(options.documents)
    with server(options.documents) as url:
        tables = {"sync": sync_timings(url, texts, options.calls)}
        tables["async"] = asyncio.run(async_timings(url, texts, options.calls))
    slow = False
    for kind, timings in tables.items():
        print(f"{kind}, {options.documents} documents, median of {options.calls} calls")
        for row in rows(timings):
            line = f"  {row.name:28} {row.median:7.3f} ms"
            if row.baseline != row.name:
                line += f"   {row.over:+7.3f} ms, {row.times:.2f} times {row.baseline}"
            print(line)
            slow = slow or (row.baseline == BARE and row.over > options.limit)
    if slow:
        print(f"Too slow: more than {options.limit:g} ms over a bare post.", file=sys.stderr)
        return 1
    return 0


BARE, OURS = "httpx post", "Reranker, httpx"
SDK, OURS_BY_SDK = "cohere SDK", "Reranker, cohere SDK"
BASELINES = {OURS: BARE, OURS_BY_SDK: SDK}


def rows(timings: Mapping[str, Sequence[float]]) -> list[Row]:
    """The table of some timings, in their order; what has no baseline is its own.

    Args:
        timings: Milliseconds of each call, by what was called.
    """
    found = []
    for name, taken in timings.items():
        baseline = BASELINES.get(name, name)
        over = statistics.median(mine - other for mine, other in zip(taken, timings[baseline], strict=True))
        median = statistics.median(taken)
        found.append(Row(name, median, baseline, over, median / statistics.median(timings[baseline])))
    return found


def documents(count: int) -> list[str]:
    """So many different passages of about 60 words."""
    words = (
        "Call json.load on an open file to read it; json.loads takes a string instead, and both return what they find."
    )
    return [f"Passage {number}. {words} {words} {words}" for number in range(count)]


def body(texts: Sequence[str]) -> dict[str, object]:
    """What the reranker sends too."""
    return {"model": MODEL, "query": QUERY, "documents": list(texts), "return_documents": False}


def sync_timings(url: str, texts: Sequence[str], calls: int) -> Timings:
    """Milliseconds of each call by a thread.

    Args:
        url: The server's, without a path.
        texts: Documents of each call.
        calls: Timed calls of each kind; a few before them warm up.
    """
    with (
        httpx.Client() as bare,
        Reranker(f"jina:{MODEL}", api_key="k", base_url=url) as reranker,
    ):

        def post() -> int:
            reply = bare.post(f"{url}/v1/rerank", content=json.dumps(body(texts)), headers=JSON)
            return len(json.loads(reply.content)["results"])

        kinds: dict[str, Callable[[], int]] = {BARE: post, OURS: lambda: len(reranker.rank(QUERY, texts))}
        if find_spec("cohere") is None:
            return _alternating(kinds, len(texts), calls)
        import cohere

        sdk = cohere.ClientV2("k", base_url=url, httpx_client=bare)
        with Reranker(f"cohere:{MODEL}", api_key="k", base_url=url) as by_sdk:
            kinds[SDK] = lambda: len(sdk.rerank(model=MODEL, query=QUERY, documents=texts).results)
            kinds[OURS_BY_SDK] = lambda: len(by_sdk.rank(QUERY, texts))
            return _alternating(kinds, len(texts), calls)


async def async_timings(url: str, texts: Sequence[str], calls: int) -> Timings:
    """As :func:`sync_timings`, in one task."""
    async with (
        httpx.AsyncClient() as bare,
        Reranker(f"jina:{MODEL}", api_key="k", base_url=url) as reranker,
    ):

        async def post() -> int:
            reply = await bare.post(f"{url}/v1/rerank", content=json.dumps(body(texts)), headers=JSON)
            return len(json.loads(reply.content)["results"])

        async def rank() -> int:
            return len(await reranker.arank(QUERY, texts))

        kinds: dict[str, Callable[[], Awaitable[int]]] = {BARE: post, OURS: rank}
        if find_spec("cohere") is None:
            return await _aalternating(kinds, len(texts), calls)
        import cohere

        sdk = cohere.AsyncClientV2("k", base_url=url, httpx_client=bare)

        async def rerank() -> int:
            return len((await sdk.rerank(model=MODEL, query=QUERY, documents=texts)).results)

        async with Reranker(f"cohere:{MODEL}", api_key="k", base_url=url) as by_sdk:

            async def rank_by_sdk() -> int:
                return len(await by_sdk.arank(QUERY, texts))

            return await _aalternating({**kinds, SDK: rerank, OURS_BY_SDK: rank_by_sdk}, len(texts), calls)


JSON = {"Content-Type": "application/json", "Accept": "application/json", "Authorization": "Bearer k"}
_WARM_UP = 5


def _alternating(kinds: Mapping[str, Callable[[], int]], expected: int, calls: int) -> Timings:
    taken: Timings = {name: [] for name in kinds}
    for turn in range(-_WARM_UP, calls):
        for name in _order(list(kinds), turn):
            started = time.perf_counter()
            scored = kinds[name]()
            milliseconds = (time.perf_counter() - started) * 1_000
            assert scored == expected, name
            if turn >= 0:
                taken[name].append(milliseconds)
    return taken


async def _aalternating(kinds: Mapping[str, Callable[[], Awaitable[int]]], expected: int, calls: int) -> Timings:
    taken: Timings = {name: [] for name in kinds}
    for turn in range(-_WARM_UP, calls):
        for name in _order(list(kinds), turn):
            started = time.perf_counter()
            scored = await kinds[name]()
            milliseconds = (time.perf_counter() - started) * 1_000
            assert scored == expected, name
            if turn >= 0:
                taken[name].append(milliseconds)
    return taken


def _order(names: list[str], turn: int) -> list[str]:
    """A different one goes first each time."""
    first = turn % len(names)
    return names[first:] + names[:first]


@contextmanager
def server(count: int) -> Iterator[str]:
    """Run the server in a process of its own, for the length of a ``with`` block.

    Args:
        count: Documents that every request holds.

    Yields:
        Its URL, without a path.
    """
    here, there = multiprocessing.Pipe()
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_serve, args=(count, there), daemon=True)
    process.start()
    try:
        if not here.poll(30):
            raise RuntimeError("the server did not start within 30 s")
        yield f"http://127.0.0.1:{here.recv()}"
    finally:
        process.terminate()
        process.join(10)
        here.close()
        there.close()


def _serve(count: int, started: Connection) -> None:
    results = [{"index": index, "relevance_score": (index + 0.5) / count} for index in range(count)]
    content = json.dumps({"id": "1", "results": results, "meta": {"billed_units": {"search_units": 1}}}).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    reply = head.encode() + content

    class Answer(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            self.buffer = bytearray()

        def data_received(self, data: bytes) -> None:
            self.buffer += data
            end = self.buffer.find(b"\r\n\r\n")
            if end < 0:
                return
            lines = bytes(self.buffer[:end]).lower().split(b"\r\n")
            length = next(int(line[15:]) for line in lines if line.startswith(b"content-length:"))
            if len(self.buffer) >= end + 4 + length:  # one request at a time: the clients here wait for its reply
                self.buffer.clear()
                self.transport.write(reply)

    async def serve() -> None:
        listener = await asyncio.get_running_loop().create_server(Answer, "127.0.0.1", 0)
        started.send(listener.sockets[0].getsockname()[1])
        await asyncio.sleep(LIFETIME)

    asyncio.run(serve())


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
