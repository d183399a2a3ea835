"""A scorer that costs nothing, and awaits nothing: what is left is the price of everything around it."""

from __future__ import annotations

from collections.abc import Sequence

from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores


class FreeScorer(Scorer):
    """Scores texts by their length."""

    name = "free"
    score_kind = "logit"

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return Scores([float(len(text)) for text in texts], "logit")

    async def ascore_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
        return self.score_many(requests)
