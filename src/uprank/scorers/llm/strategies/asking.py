"""What the strategies share: asking with typed answers, dealing into groups, taking in turn, ranking by points."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Sequence
from itertools import chain, zip_longest
from random import Random
from typing import TypeAlias, TypeVar, cast

from uprank.scorers.llm.questions import Answer, Order, Prefer, Round, Score, Select
from uprank.scorers.llm.strategies.settings import Settings

__all__ = [
    "Asking",
    "ask_order",
    "ask_orders",
    "ask_preferences",
    "ask_scores",
    "ask_selections",
    "by_points",
    "chance",
    "dealt",
    "flat",
    "in_turn",
]

T = TypeVar("T")

Asking: TypeAlias = Generator[Round, "list[Answer]", T]
"""A part of a strategy: asks rounds, returns something."""


def ask_order(ids: Sequence[int], order: Iterable[int]) -> Asking[tuple[int, ...]]:
    """One round of one :class:`Order`; none where there are not two to put in order."""
    if len(ids) < 2:
        return tuple(ids)
    (ranked,) = yield from ask_orders([ids], order)
    return ranked


def ask_orders(
    windows: Sequence[Sequence[int]], order: Iterable[int], unanswered: Sequence[Sequence[int]] | None = None
) -> Asking[list[tuple[int, ...]]]:
    """One round of an :class:`Order` for each window.

    Args:
        windows: The candidates of each.
        order: The best order so far.
        unanswered: What stands for each where there is no answer; by default the window as it was shown.
    """
    answers = yield Round(tuple(Order(tuple(ids)) for ids in windows), tuple(order))
    ranked = cast("list[tuple[int, ...] | None]", answers)
    instead = windows if unanswered is None else unanswered
    return [tuple(ids) if answer is None else answer for answer, ids in zip(ranked, instead, strict=True)]


def ask_selections(questions: Iterable[Select], order: Iterable[int]) -> Asking[list[tuple[int, ...]]]:
    """One round of these."""
    answers = yield Round(tuple(questions), tuple(order))
    return cast("list[tuple[int, ...]]", answers)


def ask_preferences(questions: Iterable[Prefer], order: Iterable[int]) -> Asking[list[float]]:
    """One round of these."""
    answers = yield Round(tuple(questions), tuple(order))
    return cast("list[float]", answers)


def ask_scores(ids: Iterable[int], order: Iterable[int]) -> Asking[tuple[float | None, ...]]:
    """One round of one :class:`Score`."""
    answers = yield Round((Score(tuple(ids)),), tuple(order))
    return cast("list[tuple[float | None, ...]]", answers)[0]


def dealt(ids: Sequence[int], groups: int, random: Random) -> list[list[int]]:
    """Deal ids into groups of nearly equal size that each span the whole list: the next few ids, one to each group."""
    hands: list[list[int]] = [[] for _ in range(groups)]
    for start in range(0, len(ids), groups):
        stratum = list(ids[start : start + groups])
        for hand, card in zip(random.sample(hands, len(stratum)), stratum, strict=True):
            hand.append(card)
    return hands


def in_turn(lists: Iterable[Sequence[int]]) -> list[int]:
    """The first of each, then the second of each, and so on."""
    return [item for row in zip_longest(*lists) for item in row if item is not None]


def by_points(ids: Iterable[int], points: Sequence[float]) -> list[int]:
    """The most points first, of equals the one that stood first from the outset."""
    return sorted(ids, key=lambda each: (-points[each], each))


def flat(lists: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """All of the first, then all of the second, and so on."""
    return tuple(chain.from_iterable(lists))


def chance(settings: Settings) -> Random:
    """A source of shuffles that gives the same ones for the same seed."""
    return Random(settings.seed)  # noqa: S311  # nothing here is secret
