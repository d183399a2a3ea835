"""What a ranking will cost, found by running its program dry: the same questions, answered by supposition."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from uprank.scorers.llm.budget import Price
from uprank.scorers.llm.program import Recipe, program
from uprank.scorers.llm.questions import Answer, Compare, Order, Prefer, Question, Select
from uprank.scorers.llm.strategies import STRATEGIES

__all__ = ["Plan", "Range", "estimate"]

_SAMPLES = 8
_NO_ORDER = 100.0  # and by no relevance at all
_NOISE = 0.45  # the first stage orders by relevance, which spreads by 0.3, plus noise: as good as BM25 often is


@dataclass(frozen=True, slots=True)
class Range:
    """How many it may be.

    Args:
        least: The least of all runs, among them one over documents that already stand in their order.
        typical: The mean of the runs over first stages as they are usually found.
        most: The most of all runs, among them some over documents in no order, and in the reverse one. Answers that
            contradict each other may take more.
    """

    least: int
    typical: float
    most: int

    @property
    def exact(self) -> bool:
        """Whether the number does not depend on the answers."""
        return self.least == self.most

    def __str__(self) -> str:
        return str(self.least) if self.exact else f"{self.typical:.1f} ({self.least}-{self.most})"


@dataclass(frozen=True, slots=True)
class Plan:
    """What a ranking will cost, repairs and repeated attempts not counted.

    Args:
        model: Who is asked.
        strategy: How.
        documents: How many.
        calls: Of the model.
        rounds: Calls one after another; those of a round are made at once, so that a ranking takes about so
            many times the time of a call.
        input_tokens: Read, by the token counter at hand; an estimate from above where none was given.
        output_tokens: Likely to be written.
        cost: Of a typical ranking; ``None`` without a price.
    """

    model: str
    strategy: str
    documents: int
    calls: Range
    rounds: Range
    input_tokens: Range
    output_tokens: Range
    cost: float | None

    def __str__(self) -> str:
        cost = "" if self.cost is None else f", cost {self.cost:.4f}"
        return (
            f"{self.model}, {self.strategy}, {self.documents} documents: {self.calls} calls in {self.rounds} rounds, "
            f"{self.input_tokens} tokens read, {self.output_tokens} written{cost}"
        )


def estimate(
    model: str, count: int, recipe: Recipe, expected: Callable[[Question], tuple[int, int]], price: Price | None
) -> Plan:
    """Run a program dry.

    Args:
        model: Its name.
        count: How many documents.
        recipe: How they are ranked.
        expected: Tokens that a question makes the model read and write.
        price: What they cost.
    """
    runs = [_run(count, recipe, expected, relevance) for relevance in _first_stages(count, recipe)]
    typical = runs[1 : 1 + _SAMPLES] if len(runs) > 2 else runs

    def range_of(part: int) -> Range:
        found = [run[part] for run in runs]
        return Range(min(found), sum(run[part] for run in typical) / len(typical), max(found))

    calls, rounds, read, written = (range_of(part) for part in range(4))
    cost = None if price is None else price.cost(round(read.typical), round(written.typical))
    return Plan(model, recipe.strategy, count, calls, rounds, read, written, cost)


def _first_stages(count: int, recipe: Recipe) -> list[list[float]]:
    """Relevances, in [0, 1], by position: in order, a number as they may be found, and in reverse order."""
    falling = [1.0 - position / max(1, count) for position in range(count)]
    if STRATEGIES[recipe.strategy].fixed:
        return [falling, falling[::-1]]  # how long the prompts are may still depend on the answers
    found = []
    for sample in range(2 * _SAMPLES):
        noise = random.Random(sample)  # noqa: S311 - a supposition, no secret
        spread = _NOISE if sample < _SAMPLES else _NO_ORDER
        shown = {relevance: relevance + noise.gauss(0.0, spread) for relevance in falling}
        found.append(sorted(shown, key=lambda relevance: -shown[relevance]))
    return [falling, *found, falling[::-1]]


def _run(
    count: int, recipe: Recipe, expected: Callable[[Question], tuple[int, int]], relevance: list[float]
) -> tuple[int, int, int, int]:
    calls = rounds = read = written = 0
    running = program(count, recipe)
    try:
        asked = next(running)
        while True:
            rounds += 1
            calls += len(asked.questions)
            for question in asked.questions:
                tokens = expected(question)
                read, written = read + tokens[0], written + tokens[1]
            asked = running.send([_supposed(question, relevance) for question in asked.questions])
    except StopIteration:
        return calls, rounds, read, written


def _supposed(question: Question, relevance: list[float]) -> Answer:
    """What a model without error would answer."""
    if isinstance(question, (Compare, Prefer)):
        first, second = relevance[question.first], relevance[question.second]
        return 0.5 if first == second else float(first > second)
    order = tuple(sorted(question.ids, key=lambda one: (-relevance[one], one)))
    if isinstance(question, Order):
        return order
    if isinstance(question, Select):
        return order[: question.count]
    return tuple(relevance[one] for one in question.ids)
