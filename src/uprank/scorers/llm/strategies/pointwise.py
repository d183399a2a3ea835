"""The strategy that asks for a score of each candidate by itself."""

from __future__ import annotations

from uprank.scorers.llm.questions import Strategy
from uprank.scorers.llm.strategies.asking import ask_scores
from uprank.scorers.llm.strategies.settings import Settings

__all__ = ["pointwise"]


def pointwise(n: int, settings: Settings) -> Strategy:
    """Score all candidates and sort; those without a score come last, equals stay as they stood.

    1 question in 1 round, for which the judge makes one call a candidate, or one for several
    (arXiv:2310.14122).
    """
    if n < 2:
        return tuple(range(n))
    scores = yield from ask_scores(range(n), range(n))
    return tuple(sorted(range(n), key=lambda each: -_number(scores[each])))


def _number(score: float | None) -> float:
    return float("-inf") if score is None else score
