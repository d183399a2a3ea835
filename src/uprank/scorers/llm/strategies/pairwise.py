"""Strategies that ask which of two is the more relevant (pairwise ranking prompting, arXiv:2306.17563).

A judge may make two calls a question, one for each order in which the two can be shown.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

from uprank.scorers.llm.questions import Prefer, Strategy
from uprank.scorers.llm.strategies.asking import Asking, ask_preferences, by_points
from uprank.scorers.llm.strategies.heaps import heap_sort
from uprank.scorers.llm.strategies.settings import Settings

__all__ = ["all_pairs", "pairwise_heap", "pairwise_sliding"]


def all_pairs(n: int, settings: Settings) -> Strategy:
    """Ask every pair once and count the wins; a draw is half a win for both.

    ``n * (n - 1) / 2`` questions in 1 round. Does not depend on the order of the first stage.
    """
    pairs = list(combinations(range(n), 2))
    points = [0.0] * n
    answers = (yield from ask_preferences((Prefer(*pair) for pair in pairs), range(n))) if pairs else []
    for (first, second), won in zip(pairs, answers, strict=True):
        points[first] += won
        points[second] += 1 - won
    return tuple(by_points(range(n), points))


def pairwise_sliding(n: int, settings: Settings) -> Strategy:
    """``top`` passes of bubble sort from the back, each carrying the best that is left to the front.

    The sum of ``n - 1 - p`` questions over the passes ``p``. A pass follows two places behind the one before,
    which changes no answer, so that there are ``n - 2 + top`` rounds. A draw leaves the two as they stand.
    """
    order = list(range(n))
    passes = min(settings.top, n - 1)
    for tick in range(n - 2 + passes):
        first = n - 2 - tick  # where the first pass is
        places = [first + 2 * each for each in range(passes) if each <= first + 2 * each <= n - 2]
        questions = [Prefer(order[place], order[place + 1]) for place in places]
        answers = yield from ask_preferences(questions, order)
        for place, won in zip(places, answers, strict=True):
            if won < 0.5:
                order[place], order[place + 1] = order[place + 1], order[place]
    return tuple(order)


def pairwise_heap(n: int, settings: Settings) -> Strategy:
    """Heap sort for the best ``top``. About 250 questions in 140 rounds at 100 candidates."""
    return heap_sort(n, settings.top, 2, _preferred)


def _preferred(ids: Sequence[int], order: Sequence[int]) -> Asking[int]:
    """The best of these; of two that draw, the one that stood first from the outset."""
    best, *rest = sorted(ids)
    for rival in rest:
        (won,) = yield from ask_preferences([Prefer(best, rival)], order)
        best = rival if won < 0.5 else best if won > 0.5 else min(best, rival)
    return best
