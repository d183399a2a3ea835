"""Measure a rerank of documents whose vectors are kept: latency, and where it goes.

    python benchmarks/vector_store.py --documents 100 --data ../shared/data
    python benchmarks/vector_store.py --passages 1000000

The first line measures the embedded model, warm: the query's forward pass, MaxSim over the stored
vectors, and all that is left (validation, tokenising, look-up, threads, sorting). Passages are those of
TREC DL19 where the data is there, else made of words of about the same length. The second opens a
store with so many passages of 100 tokens in int8; its vectors are a sparse file, its index a real one.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np

from uprank import Reranker
from uprank.scorers.local.embedded import EmbeddedScorer
from uprank.scorers.local.vectors import jobs
from uprank.scorers.local.vectors.disk import DiskStore
from uprank.scorers.local.vectors.index import ENTRY_BYTES, Entry, packed
from uprank.scorers.local.vectors.store import digest

Result = TypeVar("Result")

_WORDS = "fox whale river capital python function reads writes deep blue quick time city query answer".split()  # noqa: SIM905


@dataclass(slots=True)
class Clock:
    """Seconds of each call of a function."""

    seconds: list[float] = field(default_factory=list)

    def timed(self, function: Callable[..., Result]) -> Callable[..., Result]:
        """The function, its calls timed."""

        def call(*arguments: object) -> Result:
            started = time.perf_counter()
            result = function(*arguments)
            self.seconds.append(time.perf_counter() - started)
            return result

        return call

    def quantile(self, share: float) -> float:
        """Milliseconds that a share of the calls stayed within."""
        return sorted(self.seconds)[int(share * (len(self.seconds) - 1))] * 1e3


def passages(data: Path | None, count: int) -> list[tuple[str, list[str]]]:
    """Queries with their documents."""
    file = None if data is None else data / "trec-dl19" / "candidates.jsonl"
    if file is not None and file.is_file() and count <= 100:
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()[:5]]
        return [(line["query"], [document["text"] for document in line["documents"][:count]]) for line in lines]
    chance = random.Random(0)  # noqa: S311 - no secret
    return [
        (f"which {word} reads the deep river", [" ".join(chance.choices(_WORDS, k=75)) for _ in range(count)])
        for word in _WORDS[:5]
    ]


@contextmanager
def clocks(reranker: Reranker) -> Iterator[tuple[Clock, Clock]]:
    """Time the forward passes and the comparisons."""
    scorer = reranker.scorer
    assert isinstance(scorer, EmbeddedScorer)
    forward, compare = Clock(), Clock()
    runner, maxsim = scorer._loaded(), jobs.maxsim
    run = runner.run
    runner.run, jobs.maxsim = forward.timed(run), compare.timed(maxsim)  # type: ignore[method-assign]  # for a while
    try:
        yield forward, compare
    finally:
        runner.run, jobs.maxsim = run, maxsim  # type: ignore[method-assign]  # as it was


def latency(name: str, sets: Sequence[tuple[str, list[str]]], calls: int, **options: object) -> None:
    """Print one line of the table."""
    with Reranker("embedded", **options) as reranker:
        reranker.precompute(text for _, documents in sets for text in documents)
        total = Clock()
        rank = total.timed(reranker.rank)
        for number in range(10):
            reranker.rank(*sets[number % len(sets)])
        with clocks(reranker) as (forward, compare):
            for number in range(calls):
                rank(*sets[number % len(sets)])
        rest = statistics.median(
            (whole - model - product) * 1e3
            for whole, model, product in zip(total.seconds, forward.seconds, compare.seconds, strict=True)
        )
        parts = f"{forward.quantile(0.5):8.2f} {compare.quantile(0.5):8.2f} {rest:8.2f}"
        print(f"{name:<22} {total.quantile(0.5):8.2f} {total.quantile(0.95):8.2f} {parts}")


def opening(count: int, tokens: int = 100, dimensions: int = 384) -> None:
    """Open a store of so many passages and look one up."""
    made_by = {"model": "benchmark"}
    with tempfile.TemporaryDirectory() as folder:
        header = {"format": "uprank vectors", "version": 1, "dtype": "int8", "dimensions": dimensions}
        (Path(folder) / "store.json").write_text(json.dumps({**header, "made_by": made_by}))
        record = -(-tokens * (dimensions + 4) // 8) * 8
        with (Path(folder) / "vectors.bin").open("wb") as vectors:
            vectors.truncate(record * count)
        index = np.frombuffer(np.random.default_rng(0).bytes(ENTRY_BYTES * (count - 1)), dtype=np.uint8)
        wanted = Entry(digest("wanted"), 0, tokens, tokens + 2, 0)
        (Path(folder) / "index.bin").write_bytes(index.tobytes() + packed(wanted))
        size = sum(file.stat().st_size for file in Path(folder).iterdir())
        started = time.perf_counter()
        store = DiskStore(Path(folder), "int8", made_by, name="benchmark")
        opened = time.perf_counter()
        store.get([digest(f"text {number}") for number in range(99)] + [digest("wanted")])
        found = time.perf_counter()
        print(
            f"{len(store):,} passages: {size / 1e9:.2f} GB, opened in {opened - started:.3f} s, "
            f"100 looked up in {(found - opened) * 1e3:.2f} ms"
        )


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Latency of reranking documents whose vectors are kept.")
    parser.add_argument("--documents", type=int, default=100, help="per query")
    parser.add_argument("--calls", type=int, default=200)
    parser.add_argument("--data", type=Path, default=None, help="a folder with trec-dl19/candidates.jsonl")
    parser.add_argument("--passages", type=int, default=0, help="open a store with so many instead")
    arguments = parser.parse_args()
    if arguments.passages:
        opening(arguments.passages)
        return
    sets = passages(arguments.data, arguments.documents)
    print(f"{'milliseconds':<22} {'p50':>8} {'p95':>8} {'forward':>8} {'MaxSim':>8} {'rest':>8}")
    latency("memory, float32", sets, arguments.calls)
    latency("memory, int8", sets, arguments.calls, store_dtype="int8")
    with tempfile.TemporaryDirectory() as folder:
        latency("disk, float16", sets, arguments.calls, store=Path(folder) / "a")
        latency("disk alone, float16", sets, arguments.calls, store=Path(folder) / "a", store_memory=0)
        latency("disk alone, int8", sets, arguments.calls, store=Path(folder) / "b", store_dtype="int8", store_memory=0)


if __name__ == "__main__":
    main()
