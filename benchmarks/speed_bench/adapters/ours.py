"""uprank."""

from __future__ import annotations

from collections.abc import Sequence

from speed_bench.adapters.base import Adapter, Options, torch_peak
from uprank import Ranking, Reranker

__all__ = ["UprankAdapter"]


class UprankAdapter(Adapter):
    """``Reranker``, with the engine that it chooses, or one that is given."""

    thread_safe = True
    has_tasks = True

    def __init__(self, options: Options) -> None:
        self._device = options.get("device", "cpu")
        given = {name: options[name] for name in ("device", "engine", "dtype") if name in options}
        self._reranker = Reranker(options["model"], **given)

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[list[float]]:
        return [_scores(ranking) for ranking in self._reranker.rank_many(queries, documents)]

    def score_one(self, query: str, documents: Sequence[str]) -> list[float]:
        return _scores(self._reranker.rank(query, documents))

    async def ascore_one(self, query: str, documents: Sequence[str]) -> list[float]:
        return _scores(await self._reranker.arank(query, documents))

    def precompute(self, documents: Sequence[str]) -> None:
        self._reranker.precompute(documents)

    def device_peak(self) -> int | None:
        return torch_peak(self._device)


def _scores(ranking: Ranking) -> list[float]:
    """In the order of the documents, as the other libraries answer."""
    scores = [0.0] * len(ranking)
    for hit in ranking:
        assert hit.score is not None
        scores[hit.index] = hit.score
    return scores
