"""What strategies ask and judges answer: the words they share, so that neither knows the other.

A *strategy* is a generator that knows only numbers: it yields a :class:`Round` of independent
questions about candidates ``0 .. n-1``, receives their answers in the same order, and returns the
order it found. A *judge* turns one question into one prompt and reads the answer.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias

__all__ = ["Answer", "Compare", "Order", "Prefer", "Question", "Round", "Score", "Select", "Strategy", "ids_of"]


@dataclass(frozen=True, slots=True)
class Order:
    """Put these in order.

    Answered by the same ids, the most relevant first; by ``None`` where there is no answer to be had.

    Args:
        ids: At least two, no two alike, in the order in which they are shown.
    """

    ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Select:
    """Which of these are the most relevant?

    Answered by ``count`` of the ids; if a judge tells them apart, the most relevant first.

    Args:
        ids: More than ``count``, in the order in which they are shown.
        count: How many to choose, at least one.
    """

    ids: tuple[int, ...]
    count: int = 1


@dataclass(frozen=True, slots=True)
class Prefer:
    """Which of two is the more relevant, whatever the order in which they are shown?

    Answered by 1.0 for ``first``, 0.0 for ``second``, 0.5 where it cannot be told.
    """

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Compare:
    """Which of two is the more relevant, shown in this order? One half of a :class:`Prefer`.

    Answered as a :class:`Prefer`.
    """

    first: int
    second: int


@dataclass(frozen=True, slots=True)
class Score:
    """How relevant is each of these, by itself?

    Answered by one number for each, in [0, 1], or ``None`` where there is none to be had.

    Args:
        ids: At least one.
    """

    ids: tuple[int, ...]


Question: TypeAlias = "Order | Select | Prefer | Compare | Score"


def ids_of(question: Question) -> tuple[int, ...]:
    """The candidates of a question, as they are shown."""
    return (question.first, question.second) if isinstance(question, (Prefer, Compare)) else question.ids


Answer: TypeAlias = "tuple[int, ...] | float | tuple[float | None, ...] | None"
"""To :class:`Order` ids or ``None``, to :class:`Select` ids, to :class:`Prefer` a number, to :class:`Score` some."""


@dataclass(frozen=True, slots=True)
class Round:
    """Questions that may be asked at once.

    Args:
        questions: At least one.
        order: All candidates in the best order known so far: what is returned if nothing more can
            be asked.
    """

    questions: tuple[Question, ...]
    order: tuple[int, ...]


Strategy: TypeAlias = "Generator[Round, list[Answer], tuple[int, ...]]"
"""Yields rounds, receives one answer a question, returns all candidates in order."""
