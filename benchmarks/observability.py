"""What hooks cost: `rank()` without any, beside the same code with nothing to watch it, and with hooks in use.

Usage: python benchmarks/observability.py [--calls 4000] [--documents 20] [--limit 5]

The scorer does next to nothing, so that the difference is as large a share of a call as it can ever be; a small real
model (bm25, where it is installed) shows a share as users have it. All kinds are called in turn, their order reversed
every other turn, and compared by the median of the differences within a turn. Exit status 1 if hooks that are off
cost more than the limit, in microseconds a call.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import replace

from uprank import Ranking, Reranker
from uprank.documents import DocumentLike
from uprank.extras import installed
from uprank.observe import Hooks
from uprank.ranking import RankedDocument
from uprank.scorers.base import Outcome
from uprank.scorers.combined.base import Ask
from uprank.selection import CallOptions
from uprank.validation import make_jobs

LIMIT = 5.0  # microseconds
QUERY = "where do whales swim?"


class Unwatched(Reranker):
    """A reranker whose calls nothing can watch: as `Reranker`, less the watching."""

    def _plan(
        self,
        queries: Sequence[str],
        documents_per_query: Sequence[Iterable[DocumentLike | RankedDocument]],
        options: CallOptions,
        function: str,
        *,
        first: int | None,
    ) -> Generator[Ask, list[Outcome], list[Ranking]]:
        started = time.perf_counter()
        selection, instruction = self._resolved(options, function)
        jobs = make_jobs(queries, documents_per_query, instruction, first=first, text_of=self._text_of)
        rankings = yield from self._pipeline.rankings(jobs, selection)
        elapsed = time.perf_counter() - started
        return [replace(ranking, elapsed=elapsed) for ranking in rankings]


def constant(query: str, texts: Sequence[str]) -> list[float]:
    """Score without looking."""
    return [0.0] * len(texts)


def kinds(model: str | Callable[..., list[float]]) -> dict[str, Reranker]:
    """The rerankers to compare, the bare one first."""
    found = {
        "nothing watches": Unwatched(model),
        "hooks off": Reranker(model),
        "one hook that does nothing": Reranker(model, hooks=[Hooks()]),
    }
    if installed("opentelemetry.trace"):
        from uprank.telemetry import OpenTelemetry

        found["OpenTelemetry, no SDK"] = Reranker(model, hooks=[OpenTelemetry()])
    if installed("opentelemetry.sdk"):
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.trace import TracerProvider

        hook = OpenTelemetry(TracerProvider(), MeterProvider())
        found["OpenTelemetry, SDK that exports nothing"] = Reranker(model, hooks=[hook])
    return found


def differences(rerankers: dict[str, Reranker], documents: list[str], calls: int) -> dict[str, list[float]]:
    """Seconds of each call; calls of one turn stand at the same place of each list."""
    taken: dict[str, list[float]] = {name: [] for name in rerankers}
    order = list(rerankers.items())
    for _, reranker in order:
        for _ in range(50):
            reranker.rank(QUERY, documents)
    for turn in range(calls):
        for name, reranker in order if turn % 2 else reversed(order):
            started = time.perf_counter()
            reranker.rank(QUERY, documents)
            taken[name].append(time.perf_counter() - started)
    return taken


def main(arguments: list[str] | None = None) -> int:
    """Measure, print, and judge.

    Args:
        arguments: The command line; by default the program's own.

    Returns:
        The exit status: 0, or 1 if hooks that are off cost more than the limit.
    """
    parser = argparse.ArgumentParser(description="Time rank() with and without hooks.")
    parser.add_argument("--calls", type=_positive, default=4000, help="calls of each kind (default 4000)")
    parser.add_argument("--documents", type=_positive, default=20, help="documents a call (default 20)")
    parser.add_argument("--limit", type=float, default=LIMIT, help="most microseconds for hooks off (default 5)")
    options = parser.parse_args(arguments)

    documents = [f"Whale number {number} swims in the sea." for number in range(options.documents)]
    models: dict[str, str | Callable[..., list[float]]] = {"a function": constant}
    if installed("bm25s"):
        models["bm25"] = "bm25"
    off = 0.0
    for model, given in models.items():
        calls = options.calls if given is constant else max(1, options.calls // 10)
        taken = differences(kinds(given), documents, calls)
        bare = taken["nothing watches"]
        print(f"{model}, {options.documents} documents, {calls} calls of each kind, in turn")
        for name, seconds in taken.items():
            extra = statistics.median(one - other for one, other in zip(seconds, bare, strict=True)) * 1e6
            share = extra / (statistics.median(bare) * 1e6)
            if given is constant and name == "hooks off":
                off = extra
            print(f"  {name:<42} {statistics.median(seconds) * 1e6:9.1f} µs {extra:+8.2f} µs {share:+8.2%}")
    if off > options.limit:
        print(f"Too slow: hooks that are off cost {off:.2f} µs a call, limit {options.limit:g} µs.", file=sys.stderr)
        return 1
    return 0


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


if __name__ == "__main__":
    raise SystemExit(main())
