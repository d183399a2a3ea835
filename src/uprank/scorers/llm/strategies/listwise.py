"""Strategies that ask for the order of a window: one window, a sliding one, top-down partitioning."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random

from uprank.scorers.llm.questions import Strategy
from uprank.scorers.llm.strategies.asking import ask_order, ask_orders, chance, in_turn
from uprank.scorers.llm.strategies.settings import Settings
from uprank.scorers.llm.strategies.tournaments import settle_in_blocks

__all__ = ["sliding", "top_down", "window"]


def window(n: int, settings: Settings) -> Strategy:
    """Order the first ``window`` candidates; the others stay behind them as they stood.

    1 call, 1 round. The best choice where there are no more than a window of them.
    """
    everyone = tuple(range(n))
    ranked = yield from ask_order(everyone[: settings.window], everyone)
    return ranked + everyone[settings.window :]


def sliding(n: int, settings: Settings) -> Strategy:
    """Move a window from the back to the front, carrying the best of each into the next (arXiv:2304.09542).

    ``1 + ceil(max(0, n - window) / step)`` calls a pass, one after another. One pass finds the best
    ``window - step`` for certain.
    """
    current = list(range(n))
    moves = -(-max(0, n - settings.window) // settings.stride)
    for _ in range(settings.passes):
        for end in range(n, n - moves * settings.stride - 1, -settings.stride):
            start = max(0, end - settings.window)
            current[start:end] = yield from ask_order(current[start:end], current)
    return tuple(current)


def top_down(n: int, settings: Settings) -> Strategy:
    """Order the head, then compare everything else with its ``top``-th, the pivot (arXiv:2405.14589).

    All partitions of a level are asked in one round. Those who beat the pivot go on to the next level, the best
    of each partition first, so that the next pivot is strong even where the first stage was poor. The pivot is
    shown at a random place: always shown first, a model that likes the first would hide better ones.

    At 100 candidates and a window of 20, 6 calls in 2 rounds where the first stage was right, 8 in 4
    usually, 11 in 4 where it was reversed. The best ``min(top, window // 2)`` are found for certain with windows
    of 4 or more; behind them the order is rough. No more than four times the calls of a first level are spent so,
    which only answers that contradict each other can need; what is then left is settled as by :func:`blocks`.
    """
    random = chance(settings)
    current, behind = list(range(n)), list[int]()
    calls_left = 4 * _level_calls(n, settings)
    while True:
        calls_left -= _level_calls(len(current), settings)
        if calls_left < 0:
            return (*(yield from settle_in_blocks(current, behind, settings)), *behind)
        head = yield from ask_order(current[: settings.window], [*current, *behind])
        rest = current[settings.window :]
        if not rest:
            return (*head, *behind)
        keep, pivot, back = head[: settings.head - 1], head[settings.head - 1], head[settings.head :]
        chunks = _striped(rest, settings.window - 1)
        shown = [_with(pivot, chunk, random) for chunk in chunks]
        below = [(pivot, *chunk) for chunk in chunks]  # of whom nothing is learnt, the first stage holds
        ranked = yield from ask_orders(shown, [*head, *rest, *behind], unanswered=below)
        above = [ids[: ids.index(pivot)] for ids in ranked]
        behind = [pivot, *in_turn([back, *(ids[ids.index(pivot) + 1 :] for ids in ranked)]), *behind]
        if not any(above):
            return (*keep, *behind)
        current = [*keep, *in_turn(above)]


def _level_calls(n: int, settings: Settings) -> int:
    """Calls to order the head of ``n`` and to compare all others with its pivot."""
    return 1 + -(-max(0, n - settings.window) // (settings.window - 1))


def _striped(ids: Sequence[int], most: int) -> list[Sequence[int]]:
    """As few chunks as hold no more than ``most`` each, all alike in quality as far as ``ids`` are in order."""
    count = -(-len(ids) // most)
    return [ids[start::count] for start in range(count)]


def _with(pivot: int, chunk: Sequence[int], random: Random) -> list[int]:
    place = random.randrange(len(chunk) + 1)
    return [*chunk[:place], pivot, *chunk[place:]]
