"""Strategies that show every candidate in several small groups at once: tournaments, and overlapping blocks."""

from __future__ import annotations

from collections.abc import Sequence

from uprank.scorers.llm.questions import Select, Strategy
from uprank.scorers.llm.strategies.asking import (
    Asking,
    ask_order,
    ask_orders,
    ask_selections,
    by_points,
    chance,
    dealt,
    flat,
)
from uprank.scorers.llm.strategies.settings import Settings

__all__ = ["blocks", "settle_in_blocks", "tournament"]


def tournament(n: int, settings: Settings) -> Strategy:
    """Groups choose who goes on, stage by stage; a point for each stage survived (TourRank, arXiv:2406.11678).

    Groups are drawn by lot so that each spans the first-stage ranks, and are shown shuffled. ``tournaments``
    of them share their rounds, and their points are added up. At 100 candidates and a window of 20: 100 → 50 →
    20 → 10 → 5 → 2, that is 13 calls a tournament in 5 rounds. Points tie, so the head is nearly right rather
    than certain.
    """
    random = chance(settings)
    points = [0] * n
    fields = [list(range(n))] * settings.tournaments
    while len(fields[0]) > 2:
        size = len(fields[0])  # of every field: it depends on n alone
        groups, places = _stage(size, settings.window)
        drawn = [[random.sample(group, len(group)) for group in dealt(field, groups, random)] for field in fields]
        questions = [
            Select(tuple(group), max(1, len(group) * places // size))
            for draw in drawn
            for group in draw
            if len(group) > 1
        ]
        answers = iter((yield from ask_selections(questions, by_points(range(n), points))))
        chosen = [flat(next(answers) if len(group) > 1 else group for group in draw) for draw in drawn]
        for field in chosen:
            for each in field:
                points[each] += 1
        fields = [by_points(field, points) for field in chosen]
    return tuple(by_points(range(n), points))


def _stage(size: int, window: int) -> tuple[int, int]:
    """How many groups a field of this size is drawn into, and how many of the field go on."""
    if size <= window:
        return 1, size // 2
    if size > 3 * window:
        return -(-size // window), size // 2
    return -(-size // max(2, window // 2)), window  # small groups for the last step down to one window


def blocks(n: int, settings: Settings) -> Strategy:
    """Order overlapping blocks, all in one round, then the best ``window`` of them (JointRank, arXiv:2506.22262).

    Each candidate is in ``blocks`` blocks, drawn by lot so that each spans the first-stage ranks, and shown
    shuffled. ``blocks * ceil(n / window)`` calls and one more, in 2 rounds, whatever ``n`` is. The last window
    holds all of the best 10 of 100 candidates; from 200 on it often misses one.
    """
    return tuple((yield from settle_in_blocks(list(range(n)), (), settings)))


def settle_in_blocks(ids: Sequence[int], behind: Sequence[int], settings: Settings) -> Asking[list[int]]:
    """:func:`blocks` over some of the candidates; ``behind`` are the others."""
    if len(ids) > settings.window:
        random = chance(settings)
        count = -(-len(ids) // settings.window)
        drawn = [block for _ in range(settings.blocks) for block in dealt(ids, count, random)]
        shown = [random.sample(block, len(block)) for block in drawn if len(block) > 1]
        ranked = yield from ask_orders(shown, [*ids, *behind], unanswered=[sorted(block) for block in shown])
        rates = _win_rates(ranked)
        ids = sorted(ids, key=lambda each: -rates.get(each, 0.0))
    head = yield from ask_order(ids[: settings.window], [*ids, *behind])
    return [*head, *ids[settings.window :]]


def _win_rates(ranked: Sequence[Sequence[int]]) -> dict[int, float]:
    """Of the others that each was shown with, the share that it stood before.

    Simulated on first stages as good as BM25's, this brought more of the best into the last window than
    PageRank over the same pairs did; on first stages no better than chance, fewer.
    """
    won: dict[int, int] = {}
    met: dict[int, int] = {}
    for ids in ranked:
        for position, each in enumerate(ids):
            won[each] = won.get(each, 0) + len(ids) - 1 - position
            met[each] = met.get(each, 0) + len(ids) - 1
    return {each: won[each] / met[each] for each in won}
