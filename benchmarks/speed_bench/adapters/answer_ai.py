"""rerankers of Answer.AI: its cross-encoder class."""

from __future__ import annotations

from collections.abc import Sequence

from speed_bench.adapters.base import Adapter, Options, torch_peak

__all__ = ["RerankersAdapter"]


class RerankersAdapter(Adapter):
    """One call a query, with its default batches of 16."""

    def __init__(self, options: Options) -> None:
        from rerankers import Reranker

        self._device = options.get("device", "cpu")
        ranker = Reranker(options["model"], model_type="cross-encoder", device=self._device, verbose=0)
        if ranker is None:  # what it answers where it cannot load a model
            raise RuntimeError("rerankers could not load the model")
        self._ranker = ranker

    def score(self, queries: Sequence[str], documents: Sequence[Sequence[str]]) -> list[list[float]]:
        return [self.score_one(query, texts) for query, texts in zip(queries, documents, strict=True)]

    def score_one(self, query: str, documents: Sequence[str]) -> list[float]:
        scores = [0.0] * len(documents)
        for result in self._ranker.rank(query, list(documents), doc_ids=list(range(len(documents)))).results:
            scores[result.document.doc_id] = float(result.score)
        return scores

    def device_peak(self) -> int | None:
        return torch_peak(self._device)
