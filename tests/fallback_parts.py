"""What the tests of fallbacks share: models that fail as they are told, a time that stands still, and every error."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from uprank import MissingDependencyError, Ranking, Reranker, ScorerError, UprankError, errors
from uprank.scorers import Scorer, ScoreRequest, Scores

QUERY = "where do whales swim?"
TEXTS = ["Paris is the capital of France.", "Whales swim in the deep sea.", "The lazy dog sleeps."]


class Clock:
    """A time that passes only when a test says so."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


class Model(Scorer):
    """Scores by length; fails where it is told to, and notes what it was asked."""

    score_kind = "logit"

    def __init__(self, name: str, fail: Callable[[str], Exception | None] | Exception | None = None) -> None:
        self.name = name
        self.fail = fail
        self.asked: list[ScoreRequest] = []

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        self.asked.append(ScoreRequest(query, texts, instruction))
        error = self.fail(query) if callable(self.fail) else self.fail
        if error is not None:
            raise error
        return Scores([float(len(text)) for text in texts], "logit")

    async def ascore(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return self.score(query, texts, instruction=instruction)

    @property
    def queries(self) -> list[str]:
        return [request.query for request in self.asked]


async def ranked(reranker: Reranker, way: str, query: str = QUERY, texts: Sequence[str] = TEXTS) -> Ranking:
    return reranker.rank(query, texts) if way == "sync" else await reranker.arank(query, texts)


both_ways = pytest.mark.parametrize("way", ["sync", "async"])


def made(name: str) -> UprankError:
    error = getattr(errors, name)
    return error("a feature", "extra", ("package",)) if error is MissingDependencyError else error("it went wrong")


LEADING = [name for name in errors.__all__ if issubclass(getattr(errors, name), ScorerError)]
RAISED = sorted({*errors.__all__} - {*LEADING})
