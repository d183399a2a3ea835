"""Words in common, without a model: what the measuring itself costs, and something to try the script with."""

from __future__ import annotations

from collections.abc import Sequence

from speed_bench.adapters.base import Adapter, Options

__all__ = ["Overlap"]


class Overlap(Adapter):
    """Counts each document's words that the query has too; longer documents come after shorter ones."""

    thread_safe = True
    has_tasks = True

    def __init__(self, options: Options) -> None:
        pass

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[list[float]]:
        return [[_score(query, text) for text in texts] for query, texts in zip(queries, documents, strict=True)]

    async def ascore_one(self, query: str, documents: Sequence[str]) -> list[float]:
        return self.score_one(query, documents)

    def set_batch_size(self, batch_size: int | None) -> None:
        pass

    def precompute(self, documents: Sequence[str]) -> None:
        pass


def _score(query: str, text: str) -> float:
    words = set(query.lower().split())
    return sum(word in words for word in text.lower().split()) - len(text) / 1_000_000
