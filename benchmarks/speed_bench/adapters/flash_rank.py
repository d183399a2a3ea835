"""FlashRank, on a model of our own in the layout of those it ships."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speed_bench.adapters.base import Adapter, Options

__all__ = ["FlashRankAdapter"]


class FlashRankAdapter(Adapter):
    """One call a query, as it knows no other way."""

    thread_safe = True  # its session is, and its tokenizer's settings do not change between calls

    def __init__(self, options: Options) -> None:
        from flashrank import Ranker, RerankRequest
        from flashrank.Config import model_file_map

        folder = Path(options["model"])
        model_file_map[folder.name] = options["file_name"]
        self._ranker = Ranker(folder.name, cache_dir=str(folder.parent), log_level="WARNING")
        self._request = RerankRequest

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[list[float]]:
        return [self.score_one(query, texts) for query, texts in zip(queries, documents, strict=True)]

    def score_one(self, query: str, documents: Sequence[str]) -> list[float]:
        passages = [{"id": number, "text": text} for number, text in enumerate(documents)]
        scores = [0.0] * len(passages)
        for passage in self._ranker.rerank(self._request(query=query, passages=passages)):
            scores[passage["id"]] = float(passage["score"])
        return scores
