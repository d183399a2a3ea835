"""All that is asked for one ranking, as one generator that neither sends nor renders anything.

A ranking and its plan run the same program, so that what is estimated is what is done.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import TypeAlias, cast

from uprank.scorers.llm.conversions import JudgeKind, Scale, answered
from uprank.scorers.llm.questions import Answer, Round, Score, Strategy
from uprank.scorers.llm.strategies import STRATEGIES, Settings, refined

__all__ = ["Program", "Recipe", "Settled", "program"]


@dataclass(frozen=True, slots=True)
class Recipe:
    """What makes up a ranking.

    Args:
        kind: What the judge can be asked.
        strategy: A name in ``STRATEGIES``.
        settings: Of the strategy.
        shuffles: How often the final window is put in order anew, each time shuffled; 0 for never.
        scores: Whether the final window is scored besides.
        batch: Most documents of one :class:`Score`.
        first_window: Whether only the first ``window`` documents are looked at; the others stay behind them.
    """

    kind: JudgeKind
    strategy: str
    settings: Settings
    shuffles: int = 0
    scores: bool = False
    batch: int = 1
    first_window: bool = False


@dataclass(frozen=True, slots=True)
class Settled:
    """What a program finds out.

    Args:
        order: All candidates, the best first.
        scores: What is known of each by itself, in [0, 1].
    """

    order: tuple[int, ...]
    scores: dict[int, float | None]


Program: TypeAlias = "Generator[Round, list[Answer], Settled]"


def program(count: int, recipe: Recipe) -> Program:
    """Rank candidates ``0 .. count - 1``.

    Args:
        count: How many.
        recipe: How.

    Yields:
        Rounds of what the judge is asked at once, and the best order so far.
    """
    settings = recipe.settings
    scale = Scale(settings.window, recipe.batch)
    first = min(count, settings.window) if recipe.first_window else count
    strategy = STRATEGIES[recipe.strategy].start(first, settings)
    if recipe.shuffles:
        strategy = refined(strategy, settings, recipe.shuffles)
    order = yield from _converted(strategy, recipe.kind, scale, range(first, count))
    order = (*order, *range(first, count))
    if recipe.kind == "score":
        if count == 1:  # nothing to put in order, but a score is asked for
            (answer,) = yield Round((Score((0,)),), order)
            scale.scores[0] = cast("tuple[float | None, ...]", answer)[0]
        return Settled(order, scale.scores)
    scores: dict[int, float | None] = {}
    if recipe.scores and order:
        final = order[: settings.window]
        batches = [final[start : start + recipe.batch] for start in range(0, len(final), recipe.batch)]
        answers = yield Round(tuple(Score(batch) for batch in batches), order)
        for batch, found in zip(batches, answers, strict=True):
            scores.update(zip(batch, cast("tuple[float | None, ...]", found), strict=True))
    return Settled(order, scores)


def _converted(
    strategy: Strategy, kind: JudgeKind, scale: Scale, behind: Iterable[int]
) -> Generator[Round, list[Answer], tuple[int, ...]]:
    """A strategy's rounds as rounds of what the judge can be asked."""
    answers: list[Answer] | None = None
    while True:
        try:
            asked = next(strategy) if answers is None else strategy.send(answers)
        except StopIteration as stop:
            return cast("tuple[int, ...]", stop.value)
        conversion = answered(asked.questions, kind, scale)
        received: list[Answer] | None = None
        while True:
            try:
                questions = next(conversion) if received is None else conversion.send(received)
            except StopIteration as stop:
                answers = cast("list[Answer]", stop.value)
                break
            received = yield Round(tuple(questions), (*asked.order, *behind))
