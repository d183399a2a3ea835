"""What the rerank server takes and gives, on loopback: speed, batching across clients, overload, and memory over time.

Usage: python benchmarks/server.py [--seconds 10] [--rounds 5] [--json FILE] [--soak MINUTES] [--client wrk|asyncio]

The server is ``uprank serve``'s own, in a process of its own with its defaults, metrics and a log of every request
among them; it and the load share this machine. Four parts:

* free: a model that costs nothing, 100 documents of 300 characters, top_n=10, two connections.
* embedded: 64 clients with lists of 20 documents of 100 characters, in turns with one in-process call of rank_many
  over as many lists.
* overload: 2,000 requests in one moment, 64 of which may be under way; then 64 in one moment.
* soak: with --soak, as many minutes of 80 % of what the server took of a mixture: lists of all lengths, requests that
  are refused, unknown models, clients that leave. Its resident memory is read every 10 seconds after a warm-up.

Exit status 1 if a figure misses its target; on a machine that has other things to do, several will.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from server_bench.load import at_once, closed_loop, paced, request, texts, wrk
from server_bench.process import HOLD, Served, running
from speed_bench.machine import describe

from uprank import Reranker

RESULTS = Path(__file__).resolve().parent / "results"
CLIENTS = 64  # of the embedded model
AT_ONCE, MAX_QUEUE = 2_000, 64
SAMPLED = 10.0  # seconds between two looks at the memory

Figures = dict[str, object]


@dataclass(frozen=True)
class Check:
    """A target and what was found.

    Attributes:
        what: In words.
        target: In words.
        figure: What was found.
        met: Whether that is within the target.
    """

    what: str
    target: str
    figure: float
    met: bool


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, write.

    Args:
        arguments: The command line; by default the program's own.

    Returns:
        The exit status: 0, or 1 if a target was missed.
    """
    options = _parser().parse_args(arguments)
    _raise_limit_of_files()
    checks: list[Check] = []
    machine = describe()
    result: dict[str, object] = {"format": 1, "date": date.today().isoformat(), "machine": asdict(machine)}
    parts = [one for one in ("free", "embedded", "overload") if one in options.parts] + ["soak"] * bool(options.soak)
    for part in parts:
        figures, found = {"free": free, "embedded": embedded, "overload": overload, "soak": soak}[part](options)
        result[part] = figures
        checks += found
        print(f"{part}: {_told(figures)}", flush=True)
    result["checks"] = [asdict(check) for check in checks]
    for check in checks:
        print(f"{'met   ' if check.met else 'MISSED'} {check.what}: {check.figure:.4g} (target {check.target})")
    path = options.json or RESULTS / f"{result['date']}-{machine.slug('cpu')}-server.json"
    path.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(f"written to {path}")
    return 0 if all(check.met for check in checks) else 1


def free(options: argparse.Namespace) -> tuple[Figures, list[Check]]:
    """The price of everything around a model: the best of three runs, since whatever else runs only takes away."""
    body = {"query": "how do I parse JSON?", "documents": texts(0, 100, 300), "top_n": 10}
    runs: list[dict[str, float]] = []
    client = "asyncio" if options.client == "asyncio" else "wrk"
    with running("free") as served:
        asyncio.run(closed_loop(served.port, [request(body)], clients=2, seconds=1))
        for _ in range(3):
            before = served.cpu_seconds()
            found = wrk(served.port, body, clients=2, seconds=options.seconds) if client == "wrk" else None
            if found is None:
                client = "asyncio"
                found = asyncio.run(_by_asyncio(served, body, options.seconds))
            assert not found["failed"], f"{found['failed']:g} requests failed"
            cpu = (served.cpu_seconds() - before) / found["requests"]
            runs.append({**found, "rate": found["requests"] / found["seconds"], "server_cpu_ms": cpu * 1_000})
    best = max(runs, key=lambda run: run["rate"])
    checks = [
        Check("free model, requests a second", "at least 1,000", best["rate"], best["rate"] >= 1_000),
        Check("free model, p50 in ms", "at most 3", best["p50"], best["p50"] <= 3),
    ]
    return {"client": client, **best, "runs": runs}, checks


async def _by_asyncio(served: Served, body: object, seconds: float) -> dict[str, float]:
    load = await closed_loop(served.port, [request(body)], clients=2, seconds=seconds)
    failed = len(load.taken) - load.statuses[200]
    return {
        "p50": load.milliseconds(50),
        "p95": load.milliseconds(95),
        "requests": len(load.taken),
        "seconds": load.seconds,
        "failed": failed,
    }


def embedded(options: argparse.Namespace) -> tuple[Figures, list[Check]]:
    """Clients that know nothing of each other, beside one call that has all their lists."""
    count = CLIENTS * options.lists
    queries = [f"how do I read file {number}?" for number in range(count)]
    lists = [texts(number, options.documents, 100) for number in range(count)]
    wires = [request({"query": query, "documents": one}) for query, one in zip(queries, lists, strict=True)]
    here: list[float] = []
    there: list[float] = []
    computed: list[float] = []  # of the processor's time, what the call takes by what the server takes
    latencies: list[float] = []
    with running("embedded") as served, Reranker("embedded", store=False) as reranker:
        reranker.rank_many(queries[:CLIENTS], lists[:CLIENTS])
        asyncio.run(closed_loop(served.port, wires, clients=CLIENTS, requests=CLIENTS))
        for turn in range(options.rounds):
            cpu: dict[str, float] = {}
            for one in ("here", "there") if turn % 2 else ("there", "here"):
                if one == "here":
                    started, before = time.perf_counter(), time.process_time()
                    reranker.rank_many(queries, lists)
                    here.append(time.perf_counter() - started)
                    cpu[one] = time.process_time() - before
                else:
                    before = served.cpu_seconds()
                    load = asyncio.run(closed_loop(served.port, wires, clients=CLIENTS, requests=count))
                    assert load.statuses == {200: count}, load.statuses
                    there.append(load.seconds)
                    latencies += load.taken
                    cpu[one] = served.cpu_seconds() - before
            computed.append(cpu["here"] / cpu["there"])
    shares = [a / b for a, b in zip(here, there, strict=True)]
    share = statistics.median(shares)
    figures: Figures = {
        "clients": CLIENTS,
        "documents_a_list": options.documents,
        "lists_a_round": count,
        "in_process_documents_a_second": count * options.documents / statistics.median(here),
        "served_documents_a_second": count * options.documents / statistics.median(there),
        "served_p50_ms": statistics.median(latencies) * 1_000,
        "share": share,
        "shares": shares,
        "share_by_processor_time": statistics.median(computed),
    }
    return figures, [Check("embedded model, share of rank_many's throughput", "at least 0.85", share, share >= 0.85)]


def overload(options: argparse.Namespace) -> tuple[Figures, list[Check]]:
    """Far more requests in one moment than may be under way, then as many as may be."""
    wire = request({"query": "how do I parse JSON?", "documents": texts(0, 20, 300)})
    with running("slow", max_queue=MAX_QUEUE) as served:
        load, heads = asyncio.run(at_once(served.port, wire, AT_ONCE))
        after, _ = asyncio.run(at_once(served.port, wire, MAX_QUEUE))
    waits = [
        int(line.partition(b":")[2])
        for head in heads
        for line in head.lower().split(b"\r\n")
        if line.startswith(b"retry-after:")
    ]
    answered, shed = load.statuses[200], load.statuses[429]
    whole = answered >= MAX_QUEUE and shed > 0 and answered + shed == AT_ONCE
    told = len(waits) == shed and min(waits, default=0) >= 1
    figures: Figures = {
        "model_takes_seconds": HOLD,
        "max_queue": MAX_QUEUE,
        "requests": AT_ONCE,
        "answered_200": answered,
        "refused_429": shed,
        "others": AT_ONCE - answered - shed,
        "least_retry_after": min(waits, default=0),
        "seconds_until_all_were_answered": load.seconds,
        "answered_200_afterwards": after.statuses[200],
    }
    recovered = after.statuses[200] == MAX_QUEUE
    return figures, [
        Check("overload, requests refused with 429", "all that are not answered", shed, whole and told),
        Check("overload, requests answered afterwards", f"all {MAX_QUEUE}", after.statuses[200], recovered),
    ]


def soak(options: argparse.Namespace) -> tuple[Figures, list[Check]]:
    """Memory under steady load."""
    seconds = options.soak * 60
    warm_up = min(120.0, seconds / 4)
    sampled: list[int] = []
    ended = threading.Event()
    with running("free") as served:
        most = asyncio.run(closed_loop(served.port, _mixture(), clients=8, seconds=max(3.0, options.seconds)))
        rate = 0.8 * most.rate

        def sample() -> None:
            ended.wait(warm_up)
            while not ended.is_set():
                sampled.append(served.resident_kib())
                ended.wait(SAMPLED)

        watching = threading.Thread(target=sample, daemon=True)
        watching.start()
        load = asyncio.run(paced(served.port, _mixture(), rate=rate, clients=8, seconds=seconds, leaving=200))
        ended.set()
        watching.join()
    quarter = max(1, len(sampled) // 4)
    growth = statistics.median(sampled[-quarter:]) / statistics.median(sampled[:quarter]) - 1
    figures: Figures = {
        "minutes": options.soak,
        "most_requests_a_second": most.rate,
        "requests_a_second": load.rate,
        "statuses": {str(status): count for status, count in sorted(load.statuses.items())},
        "p50": load.milliseconds(50),
        "p95": load.milliseconds(95),
        "resident_kib": sampled,
        "growth": growth,
    }
    failed = sum(count for status, count in load.statuses.items() if status >= 500)
    return figures, [
        Check("soak, growth of resident memory", "at most 0.02", growth, growth <= 0.02),
        Check("soak, replies of 500 and above", "none", failed, failed == 0),
    ]


def _mixture() -> Sequence[bytes]:
    """What a server may see in a day: mostly lists, of all lengths, and now and then what it refuses."""
    wires = []
    for number in range(200):
        documents = texts(number, (1, 5, 20, 20, 50, 100)[number % 6], (100, 300, 1_000)[number % 3])
        body: dict[str, object] = {"query": f"query {number}", "documents": documents, "top_n": 10, "model": "free"}
        if number % 20 == 7:
            body["model"] = f"a model that nobody has heard of, number {number}"
        if number % 20 == 13:
            body["documents"] = [*documents, number]  # no document
        if number % 50 == 17:
            wires.append(request(b'{"query": "cut off'))
        wires.append(request(body))
    return wires


def _told(figures: Mapping[str, object]) -> str:
    shown = {name: f"{one:.4g}" if isinstance(one, float) else one for name, one in figures.items()}
    return ", ".join(f"{name} {one}" for name, one in shown.items() if not isinstance(one, list))


def _raise_limit_of_files() -> None:
    """Each connection is one; 2,000 are more than many systems allow at first."""
    try:
        import resource
    except ImportError:  # not on Windows, which has no such limit
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measure the rerank server on loopback.")
    parser.add_argument("--seconds", type=float, default=10.0, help="of each of three runs, free model (default 10)")
    parser.add_argument("--rounds", type=int, default=5, help="of the embedded model, each way (default 5)")
    parser.add_argument("--lists", type=int, default=2, help="that each client sends in a round (default 2)")
    parser.add_argument("--documents", type=int, default=20, help="of each of these lists (default 20)")
    parser.add_argument("--client", choices=("wrk", "asyncio"), default="wrk", help="wrk where installed (default)")
    parser.add_argument("--parts", default="free,embedded,overload", help="comma-separated (default all)")
    parser.add_argument("--soak", type=float, default=0.0, metavar="MINUTES", help="measure memory (default not)")
    parser.add_argument("--json", type=Path, default=None, help="where to write (default benchmarks/results)")
    return parser


if __name__ == "__main__":
    raise SystemExit(main())
