"""How far a model's order depends on the order shown: whether asking several times is worth its price."""

from __future__ import annotations

import random
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TypeAlias, cast

from uprank.concurrency import Outcomes
from uprank.errors import InvalidInputError
from uprank.scorers.llm.asking import Steps
from uprank.scorers.llm.judging import Judge, Judged
from uprank.scorers.llm.questions import Order

__all__ = ["Observation", "Probe", "check_probe", "measured", "probe_plan"]

_STEADY = 0.95  # Kendall's tau: above it there is no order-dependent noise to average away

ProbePlan: TypeAlias = "Generator[list[Steps[Judged]], Outcomes[Judged], Observation]"


@dataclass(frozen=True, slots=True)
class Observation:
    """What one query's orders have in common.

    Args:
        tau: Kendall's tau between the orders, the mean over all pairs of them.
        flips: Share of the pairs that differ in the first place.
        bias: Kendall's tau between an order and the order in which it was shown, the mean over the
            shuffled ones.
    """

    tau: float
    flips: float
    bias: float


@dataclass(frozen=True, slots=True)
class Probe:
    """How steady a model's orders are, over a sample of queries.

    Args:
        queries: How many were measured.
        tau: Kendall's tau between orders of the same documents, shown in different orders; 1 where the order shown
            makes no difference.
        first_place_flips: Share of the pairs of orders that differ in the first place.
        position_bias: Kendall's tau with the order shown, where that was random: 0 without a bias,
            above 0 where the model follows it.
        failed: Queries that could not be measured.
    """

    queries: int
    tau: float
    first_place_flips: float
    position_bias: float
    failed: int = 0

    @property
    def worth_repeating(self) -> bool:
        """Whether ``quality="high"`` has something to average away.

        Repetition removes noise that depends on the order shown, and no other: a model that is steadily
        wrong stays so.
        """
        return self.tau <= _STEADY

    def __str__(self) -> str:
        verdict = (
            'the order shown matters: quality="high" may be worth its calls'
            if self.worth_repeating
            else 'the order shown hardly matters: quality="high" would be wasted'
        )
        return (
            f"{self.queries} queries: Kendall's tau {self.tau:.3f} between shuffles, first place differs in "
            f"{self.first_place_flips:.0%}, position bias {self.position_bias:+.3f}; {verdict}."
        )


def check_probe(queries: Sequence[str], documents_per_query: Sequence[Sequence[str]], shuffles: int) -> None:
    """Refuse what cannot be measured.

    Raises:
        InvalidInputError: With what is wrong.
    """
    if isinstance(queries, str) or len(queries) != len(documents_per_query):
        raise InvalidInputError(f"Got {len(queries)} queries but {len(documents_per_query)} lists of documents.")
    if isinstance(shuffles, bool) or not isinstance(shuffles, int) or shuffles < 2:
        raise InvalidInputError(f"shuffles must be an integer of at least 2, got {shuffles!r}.")
    if not any(len(set(texts)) > 1 for texts in documents_per_query):
        raise InvalidInputError("No query has two different documents: there is no order to measure.")


def probe_plan(judge: Judge, count: int, shuffles: int, seed: int) -> ProbePlan:
    """Put the same candidates in order several times, shown as they came and shuffled.

    Raises:
        ServiceError: If a call failed.
    """
    shown = [tuple(range(count))]
    for number in range(1, shuffles):
        ids = list(range(count))
        random.Random(f"{seed}|{number}|{count}").shuffle(ids)  # noqa: S311 - no secret
        shown.append(tuple(ids))
    outcomes = yield [judge.answer(Order(ids)) for ids in shown]
    orders: list[tuple[int, ...]] = []
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome
        if outcome.error is not None:
            raise outcome.error
        orders.append(cast("tuple[int, ...]", outcome.answer))
    pairs = list(combinations(orders, 2))
    return Observation(
        tau=_mean([_tau(*pair) for pair in pairs]),
        flips=_mean([float(one[0] != other[0]) for one, other in pairs]),
        bias=_mean([_tau(ids, order) for ids, order in zip(shown[1:], orders[1:], strict=True)]),
    )


def measured(outcomes: Outcomes[Observation]) -> Probe:
    """Sum up.

    Raises:
        Exception: The first query's, if no query could be measured.
    """
    observed = [outcome for outcome in outcomes if isinstance(outcome, Observation)]
    failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if not observed:
        raise failed[0]
    return Probe(
        queries=len(observed),
        tau=_mean([one.tau for one in observed]),
        first_place_flips=_mean([one.flips for one in observed]),
        position_bias=_mean([one.bias for one in observed]),
        failed=len(failed),
    )


def _tau(one: Sequence[int], other: Sequence[int]) -> float:
    """Kendall's tau between two orders of the same candidates: 1 alike, -1 reversed."""
    place = {candidate: number for number, candidate in enumerate(other)}
    pairs = list(combinations([place[candidate] for candidate in one], 2))
    agreeing = sum(before < after for before, after in pairs)
    return 2 * agreeing / len(pairs) - 1 if pairs else 1.0


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
