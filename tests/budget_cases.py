"""Rankings that are cut short: the same few documents by every kind of strategy."""

from __future__ import annotations

from collections.abc import Sequence

from uprank import Ranking, Reranker
from uprank.scorers import LLMScorer
from uprank.testing import MockChatModel

QUERY = "which number is the greatest?"
N = 14
NUMBERS = (8, 3, 11, 1, 14, 6, 2, 13, 5, 10, 4, 12, 7, 9)
TEXTS = [f"passage {number:02}" for number in NUMBERS]
PRICE = {"input": 2.0, "output": 8.0}


def relevance(query: str, text: str) -> float:
    return int(text.rsplit(" ", 1)[1]) / N


def model_of(features: Sequence[str] = ("json_schema", "system", "temperature", "max_tokens")) -> MockChatModel:
    return MockChatModel(relevance, features=features)


def numbers(ranking: Ranking) -> list[int]:
    return [int(hit.document.text.rsplit(" ", 1)[1]) for hit in ranking]


RECIPES = {
    "sliding": {"strategy": "sliding"},
    "top-down": {"strategy": "top-down"},
    "blocks": {"strategy": "blocks"},
    "refined": {"strategy": "sliding", "shuffles": 2},
    "scored": {"strategy": "top-down", "scores": True},
    "tree": {"method": "setwise", "strategy": "tree"},
    "tournament": {"method": "setwise", "strategy": "tournament"},
    "pairs": {"method": "pairwise", "strategy": "pairwise-heap"},
    "pairs by lists": {"method": "listwise", "strategy": "pairwise-sliding", "top": 1},
    "sets by lists": {"method": "listwise", "strategy": "heap"},
    "grades": {"method": "pointwise", "batch": 2},
    "lists by grades": {"method": "pointwise", "strategy": "sliding", "batch": 2},
}


def scorer_for(name: str, model: MockChatModel, **options: object) -> LLMScorer:
    return LLMScorer(model, **{"window": 5, "top": 2, **RECIPES[name], **options})


def spent(name: str) -> tuple[int, Ranking]:
    """Calls and ranking without a budget."""
    model = model_of()
    ranking = Reranker(scorer_for(name, model, price=PRICE)).rank(QUERY, TEXTS)
    return len(model.questions), ranking


def stops(calls: int) -> range:
    """Every call but the last; of many, some."""
    return range(1, calls) if calls < 16 else range(1, calls, calls // 6)


def assert_flagged(ranking: Ranking, limit: str) -> None:
    assert ranking.degraded
    assert any(f"({limit})" in warning and "best order so far" in warning for warning in ranking.warnings)
