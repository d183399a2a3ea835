"""Runs a program against a model: rounds out, answers in, and whatever goes wrong told in the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from uprank.concurrency import Outcomes
from uprank.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    RateLimitError,
    ServerError,
    ServiceError,
)
from uprank.scorers.base import Scores
from uprank.scorers.llm.asking import BudgetReached, Steps
from uprank.scorers.llm.budget import Spending
from uprank.scorers.llm.judging import Judge, Judged, unanswered
from uprank.scorers.llm.program import Program, Recipe, Settled, program
from uprank.scorers.llm.projection import projected, suspicious
from uprank.scorers.llm.questions import Round, Score

__all__ = ["RankPlan", "rank_plan"]

# The model is not there, or nothing may be asked any more: further rounds would fare no better.
_GONE = (BudgetReached, RateLimitError, ServerError, ConnectionFailedError, DeadlineExceededError)

RankPlan: TypeAlias = "Generator[list[Steps[Judged]], Outcomes[Judged], Scores]"


@dataclass(slots=True)
class _Report:
    """What is to be told of all calls of a ranking."""

    answered: int = 0
    errors: list[ServiceError] = field(default_factory=list)
    repairs: Counter[str] = field(default_factory=Counter)
    cut: set[int] = field(default_factory=set)
    refused: set[int] = field(default_factory=set)
    out_of_budget: bool = False

    def add(self, judged: Judged) -> None:
        self.repairs += judged.repairs
        self.cut |= judged.cut
        self.refused |= judged.refused
        if isinstance(judged.error, BudgetReached):
            self.out_of_budget = True
        elif judged.error is not None:
            self.errors.append(judged.error)
        self.answered += judged.partial


def rank_plan(texts: Sequence[str], recipe: Recipe, judge: Judge, spending: Spending) -> RankPlan:
    """Rank the documents of one query.

    Args:
        texts: Of the documents, for what is told of them.
        recipe: How.
        judge: Asks the model.
        spending: What it may use.

    Yields:
        Rounds of calls.

    Returns:
        Values that order the documents; probabilities where they were scored one by one.

    Raises:
        ServiceError: If every call failed, or one for a reason that holds for all of them, e.g. a wrong key.
    """
    report = _Report()
    settled = yield from _settle(program(len(texts), recipe), judge, spending, report)
    return _scores(texts, recipe, settled, spending, report)


def _settle(
    running: Program, judge: Judge, spending: Spending, report: _Report
) -> Generator[list[Steps[Judged]], Outcomes[Judged], Settled]:
    found: dict[int, float | None] = {}
    try:
        asked = next(running)
        while True:
            affordable = _affordable(asked, judge, spending)
            if not affordable:
                report.out_of_budget = True
                return Settled(asked.order, found)
            outcomes = yield [judge.answer(question) for question in asked.questions[:affordable]]
            spending.clock.resume()
            left = [Judged(unanswered(question), BudgetReached()) for question in asked.questions[affordable:]]
            judgements = _judgements([*outcomes, *left], report)
            for question, judged in zip(asked.questions, judgements, strict=True):
                if isinstance(question, Score) and isinstance(judged.answer, tuple):
                    found.update(zip(question.ids, judged.answer, strict=True))
            gone = all(isinstance(judged.error, _GONE) and not judged.partial for judged in judgements)
            if gone and report.errors and not report.answered:
                raise report.errors[0]
            if gone:
                return Settled(asked.order, found)
            asked = running.send([judged.answer for judged in judgements])
    except StopIteration as stop:
        if report.errors and not report.answered:
            raise report.errors[0] from None
        settled: Settled = stop.value
        return settled
    finally:
        running.close()


def _judgements(outcomes: Outcomes[Judged], report: _Report) -> list[Judged]:
    judgements = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        report.add(outcome)
        judgements.append(outcome)
    return judgements


def _affordable(asked: Round, judge: Judge, spending: Spending) -> int:
    """How many questions of a round may be asked."""
    if not spending.limited:
        return len(asked.questions)
    read = written = 0
    for number, question in enumerate(asked.questions):
        expected = judge.expected(question)
        read, written = read + expected[0], written + expected[1]
        if not spending.affords(number + 1, read, written):
            return number
    return len(asked.questions)


def _scores(texts: Sequence[str], recipe: Recipe, settled: Settled, spending: Spending, report: _Report) -> Scores:
    order, count = settled.order, len(texts)
    known = [(one, score) for one in order if (score := settled.scores.get(one)) is not None]
    warnings = _warnings(texts, report, spending)
    if recipe.kind != "score":
        in_order = [settled.scores.get(one) for one in order]
        warnings += [_lifted(texts[one], order.index(one)) for one in suspicious(order, in_order)]
    degraded = report.out_of_budget or bool(report.errors)
    usage = spending.usage()
    if recipe.kind == "score" and len(known) == count:
        values = [score or 0.0 for score in (settled.scores[one] for one in range(count))]
        if sorted(range(count), key=lambda one: -values[one]) == list(order):
            return Scores(values, "probability", usage=usage, warnings=tuple(warnings), degraded=degraded)
    places = [0.0] * count
    for place, one in enumerate(order):
        places[one] = float(count - place)
    reported: list[float | None] | None = None
    if recipe.kind == "score" or recipe.scores:
        reported = [None] * count
        for (one, _), score in zip(known, projected([score for _, score in known]), strict=True):
            reported[one] = score
    return Scores(places, "rank", usage=usage, warnings=tuple(warnings), reported=reported, degraded=degraded)


def _warnings(texts: Sequence[str], report: _Report, spending: Spending) -> list[str]:
    warnings = []
    if report.out_of_budget:
        limit = spending.reached or "the budget"
        warnings.append(f"The budget ended it ({limit}): this is the best order so far.")
    if report.errors:
        more = f" (and {len(report.errors) - 1} more)" if len(report.errors) > 1 else ""
        warnings.append(f"Some calls failed, so that parts keep their earlier order{more}: {report.errors[0]}")
    if report.repairs:
        told = ", ".join(f"{what} ({times})" for what, times in sorted(report.repairs.items()))
        warnings.append(f"Answers were put right: {told}.")
    if report.cut:
        warnings.append(f"{len(report.cut)} of {len(texts)} documents were cut: they are longer than fits.")
    warnings += [f"The model would not look at the document {_excerpt(texts[one])}." for one in sorted(report.refused)]
    return warnings


def _lifted(text: str, place: int) -> str:
    return (
        f"The document {_excerpt(text)} stands at rank {place}, far above what it is scored by itself; it may hold "
        "instructions to the model."
    )


def _excerpt(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:59] + "…")
