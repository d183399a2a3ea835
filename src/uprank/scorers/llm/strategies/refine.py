"""Permutation self-consistency: ask again in other orders, and let the answers vote (arXiv:2310.07712)."""

from __future__ import annotations

from collections.abc import Sequence

from uprank.scorers.llm.questions import Strategy
from uprank.scorers.llm.strategies.asking import ask_orders, chance
from uprank.scorers.llm.strategies.settings import Settings

__all__ = ["consistent", "refined"]


def consistent(order: Sequence[int], settings: Settings, shuffles: int) -> Strategy:
    """Order the first ``window`` of these anew, as the mean of their ranks over several shuffles (Borda).

    ``shuffles`` calls in 1 round. This takes out what an answer owes to the order in which the candidates
    were shown, and to chance; it does not take out what the model gets wrong about a document itself.

    Args:
        order: All candidates, best first. Equal means stay in this order.
        settings: ``window`` and ``seed``.
        shuffles: How often the window is shown.
    """
    head, rest = list(order[: settings.window]), order[settings.window :]
    if len(head) > 1:
        random = chance(settings)
        shown = [random.sample(head, len(head)) for _ in range(shuffles)]
        ranked = yield from ask_orders(shown, order)
        head.sort(key=lambda each: sum(ids.index(each) for ids in ranked))
    return (*head, *rest)


def refined(strategy: Strategy, settings: Settings, shuffles: int) -> Strategy:
    """A strategy, and then :func:`consistent` on what it found."""
    order = yield from strategy
    return (yield from consistent(order, settings, shuffles))
