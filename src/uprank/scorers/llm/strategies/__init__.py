"""Strategies: which questions to ask about ``n`` candidates, and what order follows from the answers.

Each is a generator of rounds (:mod:`uprank.scorers.llm.questions`) that knows nothing of prompts, models,
threads or retries. Whatever the answers, it ends after a bounded number of questions and returns every
candidate once; each round carries the best order so far. No candidates, or one, take no round.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from uprank.errors import ConfigurationError
from uprank.scorers.llm.questions import Strategy
from uprank.scorers.llm.strategies.listwise import sliding, top_down, window
from uprank.scorers.llm.strategies.pairwise import all_pairs, pairwise_heap, pairwise_sliding
from uprank.scorers.llm.strategies.pointwise import pointwise
from uprank.scorers.llm.strategies.refine import consistent, refined
from uprank.scorers.llm.strategies.settings import Settings
from uprank.scorers.llm.strategies.setwise import heap, tree
from uprank.scorers.llm.strategies.tournaments import blocks, tournament

__all__ = ["STRATEGIES", "Asks", "Settings", "StrategyRow", "auto", "consistent", "refined"]

Asks: TypeAlias = Literal["order", "select", "prefer", "score"]


@dataclass(frozen=True, slots=True)
class StrategyRow:
    """A strategy.

    Args:
        start: Takes the number of candidates and the settings.
        asks: The one kind of question it asks.
        fixed: Whether the number of its questions is known from the number of candidates, whatever the answers.
        summary: What it does.
    """

    start: Callable[[int, Settings], Strategy]
    asks: Asks
    fixed: bool
    summary: str


STRATEGIES: dict[str, StrategyRow] = {
    "window": StrategyRow(window, "order", fixed=True, summary="Orders the first window of candidates in one call."),
    "sliding": StrategyRow(sliding, "order", fixed=True, summary="Moves a window from the back to the front."),
    "top-down": StrategyRow(
        top_down, "order", fixed=False, summary="Orders the head, then compares the others with it."
    ),
    "tree": StrategyRow(tree, "select", fixed=False, summary="Knocks out in a tree, one winner after another."),
    "heap": StrategyRow(heap, "select", fixed=False, summary="Heap sort that compares a window of candidates."),
    "tournament": StrategyRow(
        tournament, "select", fixed=True, summary="Groups choose who goes on; counts stages survived."
    ),
    "blocks": StrategyRow(blocks, "order", fixed=True, summary="Orders overlapping blocks, then the best window."),
    "all-pairs": StrategyRow(all_pairs, "prefer", fixed=True, summary="Compares every pair."),
    "pairwise-heap": StrategyRow(pairwise_heap, "prefer", fixed=False, summary="Heap sort by comparing two at a time."),
    "pairwise-sliding": StrategyRow(pairwise_sliding, "prefer", fixed=True, summary="Bubbles the best to the front."),
    "pointwise": StrategyRow(pointwise, "score", fixed=True, summary="Scores each candidate by itself."),
}
"""All strategies by name."""

_SLIDING_UP_TO = 50  # candidates: beyond these, top-down partitioning takes fewer calls and far fewer rounds


def auto(method: str, n: int, settings: Settings) -> str:
    """The strategy that suits a method and a number of candidates.

    Args:
        method: ``"listwise"``, ``"setwise"``, ``"pairwise"`` or ``"pointwise"``.
        n: The number of candidates.
        settings: ``window``.

    Raises:
        ConfigurationError: There is no such method.
    """
    if method == "listwise":
        return "window" if n <= settings.window else "sliding" if n <= _SLIDING_UP_TO else "top-down"
    try:
        return {"setwise": "tree", "pairwise": "pairwise-heap", "pointwise": "pointwise"}[method]
    except KeyError:
        known = '"listwise", "setwise", "pairwise" or "pointwise"'
        raise ConfigurationError(f"There is no method {method!r}; use {known}.") from None
