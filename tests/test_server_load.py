"""The server under load, with the clients of its benchmark: overload, clients that leave, many answers at once."""

from __future__ import annotations

import asyncio
import json
import random
import subprocess
import sys
from collections import Counter
from pathlib import Path

import httpx
import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / "benchmarks"
sys.path.insert(0, str(BENCHMARKS))

from server_bench.load import Connection, at_once, closed_loop, paced, request, texts  # noqa: E402 - as said above
from server_bench.process import running  # noqa: E402

from serving import serving  # noqa: E402
from uprank import Reranker  # noqa: E402

pytestmark = pytest.mark.slow


def test_overload_is_shed_with_429_and_over_when_it_ends():
    wire = request({"query": "q", "documents": texts(0, 20, 100)})
    with running("slow", max_queue=64) as served:
        load, heads = asyncio.run(at_once(served.port, wire, 1_000))
        assert set(load.statuses) == {200, 429}
        assert load.statuses[200] >= 64
        shed = [head.lower() for head in heads if b" 429 " in head.partition(b"\r\n")[0]]
        assert len(shed) == load.statuses[429]
        assert all(b"\r\nretry-after: 1\r\n" in head + b"\r\n" for head in shed)
        again, _ = asyncio.run(at_once(served.port, wire, 64))
        assert again.statuses == {200: 64}


def test_a_crowd_that_leaves_takes_its_calls_along():
    under_way: Counter[str] = Counter()

    async def counted(query: str, documents: list[str]) -> list[float]:
        under_way["started"] += 1
        under_way["now"] += 1
        try:
            await asyncio.sleep(30)
        finally:
            under_way["now"] -= 1
        return [0.0] * len(documents)

    clients = 200
    wire = request({"query": "q", "documents": ["a", "b"]})
    rng = random.Random(3)

    async def leave(port: int) -> None:
        connection = await Connection.open(port)
        reply = asyncio.ensure_future(connection.ask(wire))
        await asyncio.sleep(rng.random())
        connection.close()
        await asyncio.wait({reply})
        assert isinstance(reply.exception(), ConnectionError)

    async def crowd(address: str) -> None:
        port = httpx.URL(address).port
        assert port is not None
        await asyncio.gather(*(leave(port) for _ in range(clients)))

    with serving({"counted": Reranker(counted)}, max_queue=clients) as address:
        for _ in range(2):  # the second crowd finds the places of the first
            asyncio.run(crowd(address))
        for _ in range(200):
            if not under_way["now"]:
                break
            httpx.get(f"{address}/nothing")
        assert under_way["started"] > clients
        assert under_way["now"] == 0


def test_ten_thousand_answers_are_each_their_own():
    """By what is asked alone, each answer is known: the model scores documents by their place."""

    async def ask(port: int) -> None:
        rng = random.Random(5)
        wires = []
        for _ in range(100):
            count = rng.randint(1, 60)
            wires.append((count, request({"query": "q", "documents": texts(count, count, 50)})))

        async def client() -> None:
            connection = await Connection.open(port)
            for _ in range(200):
                count, wire = rng.choice(wires)
                status, _ = await connection.ask(wire)
                results = json.loads(connection.content)["results"]
                assert status == 200
                assert [one["index"] for one in results] == list(range(count))[::-1]
            connection.close()

        await asyncio.gather(*(client() for _ in range(50)))

    with running("free") as served:
        asyncio.run(ask(served.port))


def test_memory_does_not_grow_under_load():
    """A short form of the benchmark's soak; 100 bytes kept of each request would show."""
    wires = [
        request({"query": "q", "documents": texts(n, n % 60 + 1, 300), "model": f"unknown {n}"}) for n in range(50)
    ]
    with running("free") as served:

        def load(seconds: float) -> int:
            at_most = asyncio.run(closed_loop(served.port, wires, clients=8, seconds=seconds)).rate
            asyncio.run(paced(served.port, wires, rate=0.8 * at_most, clients=8, seconds=seconds, leaving=50))
            return served.resident_kib()

        load(5)
        before = load(5)
        after = load(15)
    assert after <= 1.02 * before


def test_the_benchmark_runs(tmp_path):
    path = tmp_path / "figures.json"
    small = ["--seconds=1", "--rounds=1", "--lists=1", "--documents=2", "--soak=0.1"]
    command = [sys.executable, "server.py", *small, f"--json={path}"]
    done = subprocess.run(command, cwd=BENCHMARKS, capture_output=True, text=True, timeout=300, check=False)
    assert path.exists(), done.stderr  # whatever the exit status: a machine that is busy misses targets
    found = json.loads(path.read_text())
    assert {"machine", "free", "embedded", "overload", "soak", "checks"} <= set(found)
    assert found["free"]["rate"] > 0
    assert found["overload"]["answered_200"] + found["overload"]["refused_429"] == found["overload"]["requests"]
    assert found["overload"]["answered_200_afterwards"] == found["overload"]["max_queue"]
    assert len(found["embedded"]["shares"]) == 1
    assert len(found["checks"]) == 7
