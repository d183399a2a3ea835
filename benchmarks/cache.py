"""What it costs to find a score that was kept, and to keep one: ``python benchmarks/cache.py``.

Lists of 100 documents of 100 words, 500 of them kept; medians over lists, in microseconds a document. The scorer
does nothing, so that all that is measured is the cache: digests, look-up, and the making of an answer.
"""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from uprank.cache import Cache, DiskCache, MemoryCache
from uprank.scorers import Scorer, Scores
from uprank.scorers.combined.cached import Cached

DOCUMENTS, WORDS, LISTS = 100, 100, 500
LIMIT = 100.0  # microseconds a document


class Nothing(Scorer):
    """Scores everything alike, at once."""

    name = "nothing"
    score_kind = "logit"

    def identity(self) -> dict[str, object]:
        return {"scheme": "nothing"}

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return Scores([0.5] * len(texts), "logit")


def texts(number: int) -> list[str]:
    return [f"list {number} document {place} " + "word " * WORDS for place in range(DOCUMENTS)]


def median(call: Callable[[int], object], lists: int) -> float:
    """Microseconds a document."""
    times = []
    for number in range(lists):
        started = time.perf_counter()
        call(number)
        times.append(time.perf_counter() - started)
    return statistics.median(times) / DOCUMENTS * 1e6


def measured(cache: Cache) -> dict[str, float]:
    cached, given = Cached(Nothing(), cache), [texts(number) for number in range(LISTS)]
    new = median(lambda number: cached.score("a query", given[number]), LISTS)
    found = median(lambda number: cached.score("a query", given[number]), LISTS)
    loop = asyncio.new_event_loop()
    awaited = median(lambda number: loop.run_until_complete(cached.ascore("a query", given[number])), LISTS)
    loop.close()
    assert cache.stats().misses == DOCUMENTS * LISTS
    return {"found": found, "found, awaited": awaited, "kept": new}


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        disk = DiskCache(Path(folder) / "scores.db")
        caches: dict[str, Cache] = {"memory": MemoryCache(), "disk": disk}
        print(f"{'':8}{'found':>10}{'awaited':>10}{'kept':>10}   µs a document")
        slowest = 0.0
        for name, cache in caches.items():
            figures = measured(cache)
            print(f"{name:8}" + "".join(f"{figure:>10.1f}" for figure in figures.values()))
            slowest = max(slowest, figures["found"], figures["found, awaited"])
        entries, size = disk.stats().entries, disk.stats().bytes
        print(f"On disk a score takes {size / entries:.0f} bytes.")
        print(f"A score is found in under {LIMIT / 1000:g} ms: {'yes' if slowest < LIMIT else 'NO'}.")
        disk.close()


if __name__ == "__main__":
    main()
