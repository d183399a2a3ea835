"""How far probabilities are from what is seen, and which of them is worth a threshold."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from uprank.errors import InvalidInputError

__all__ = ["BINS", "CalibrationReport", "ReliabilityBin", "Threshold", "find_threshold", "reliability"]

BINS = 15
_CERTAIN = 1e-15  # a probability of 0 for what happened would cost infinitely much


@dataclass(frozen=True, slots=True)
class ReliabilityBin:
    """Scores of about the same probability.

    Args:
        lowest: The least probability among them.
        highest: The greatest.
        predicted: The mean of their probabilities.
        observed: The share of relevant documents among them.
        count: How many.
    """

    lowest: float
    highest: float
    predicted: float
    observed: float
    count: int


@dataclass(frozen=True, slots=True)
class CalibrationReport:
    """How good probabilities are.

    Args:
        ece: The expected calibration error, from 0 (perfect) to 1: over bins of as equal a size as equal
            probabilities allow, the mean distance of predicted and observed, weighted by size. With bins of equal
            size instead of equal width, as few scores are high (Nguyen and O'Connor, "Posterior calibration and
            exploratory analysis for natural language processing models", 2015, arXiv 1508.05154); the error itself
            as in Guo et al., "On Calibration of Modern Neural Networks", 2017, arXiv 1706.04599.
        brier: The mean squared distance of probability and outcome, from 0 (perfect) to 1. Brier, "Verification of
            forecasts expressed in terms of probability", 1950.
        log_loss: The mean negative natural logarithm of the probability given to the outcome, 0 being perfect;
            probabilities are taken as no nearer to 0 and 1 than 1e-15.
        count: Judged scores.
        positives: Those of relevant documents.
        bins: At most 15, from low probabilities to high ones.
    """

    ece: float
    brier: float
    log_loss: float
    count: int
    positives: int
    bins: tuple[ReliabilityBin, ...]

    def __str__(self) -> str:
        return (
            f"ECE {self.ece:.4f}, Brier {self.brier:.4f}, log loss {self.log_loss:.4f} over {self.count} scores, "
            f"{self.positives} of them relevant"
        )


@dataclass(frozen=True, slots=True)
class Threshold:
    """Where to cut, and what that keeps on the data it was found on.

    Args:
        probability: For ``Reranker(..., score="probability", threshold=...)``.
        score: The least raw score that has it.
        precision: The share of relevant documents among those kept.
        recall: The share of the relevant documents that is kept.
        kept: How many documents are kept.
    """

    probability: float
    score: float
    precision: float
    recall: float
    kept: int


def reliability(probabilities: Sequence[float], relevant: Sequence[bool]) -> CalibrationReport:
    """Compare probabilities with outcomes.

    Args:
        probabilities: In [0, 1]; at least one.
        relevant: As many.

    Raises:
        InvalidInputError: If they are not.
    """
    count = len(probabilities)
    if not count or count != len(relevant):
        raise InvalidInputError(f"Got {count} probabilities and {len(relevant)} outcomes; give as many, at least one.")
    if not all(0.0 <= one <= 1.0 for one in probabilities):  # also refuses NaN
        raise InvalidInputError("Probabilities must lie in [0, 1].")
    pairs = sorted(zip(probabilities, map(bool, relevant), strict=True))
    bins = [_bin(part) for part in _parts(pairs)]
    return CalibrationReport(
        ece=math.fsum(one.count * abs(one.predicted - one.observed) for one in bins) / count,
        brier=math.fsum((probability - outcome) ** 2 for probability, outcome in pairs) / count,
        log_loss=math.fsum(_surprise(probability, outcome) for probability, outcome in pairs) / count,
        count=count,
        positives=sum(outcome for _, outcome in pairs),
        bins=tuple(bins),
    )


def find_threshold(
    probabilities: Sequence[float],
    scores: Sequence[float],
    relevant: Sequence[bool],
    *,
    precision: float | None,
    recall: float | None,
) -> Threshold:
    """The threshold that reaches one of two, with as much as there can be of the other.

    Args:
        probabilities: Of the scores, in the same order as these.
        scores: At least one of them of a relevant document.
        relevant: As many.
        precision: At least this share of what is kept must be relevant; the lowest threshold that reaches it is taken.
        recall: At least this share of the relevant must be kept; the highest threshold that reaches it is taken.

    Raises:
        InvalidInputError: If not one of the two is wanted, it is not above 0 and at most 1, nothing is relevant, or
            the precision is reached nowhere.
    """
    if (precision is None) == (recall is None):
        raise InvalidInputError("Say either precision= or recall=: one of them is wanted, the other is what it costs.")
    wanted = precision if precision is not None else recall
    if not isinstance(wanted, (int, float)) or isinstance(wanted, bool) or not 0.0 < wanted <= 1.0:
        raise InvalidInputError(f"precision and recall are shares above 0, at most 1; got {wanted!r}.")
    positives = sum(relevant)
    if not positives:
        raise InvalidInputError("None of these documents is relevant: there is no threshold that keeps those that are.")
    reached: Threshold | None = None
    best = 0.0
    kept = found = 0
    descending = sorted(zip(probabilities, scores, relevant, strict=True), reverse=True)
    for probability, group in groupby(descending, key=lambda one: one[0]):
        together = list(group)
        kept += len(together)
        found += sum(outcome for _, _, outcome in together)
        one = Threshold(probability, together[-1][1], found / kept, found / positives, kept)
        best = max(best, one.precision)
        if recall is not None and one.recall >= recall:
            return one
        if precision is not None and one.precision >= precision and found:
            reached = one  # a later one keeps more
    if reached is None:
        raise InvalidInputError(f"No threshold has a precision of {wanted}; the best there is has {best:.3f}.")
    return reached


def _parts(pairs: Sequence[tuple[float, bool]]) -> list[list[tuple[float, bool]]]:
    """Split sorted pairs into bins; equal probabilities stay together, so that the data's order changes nothing."""
    parts: list[list[tuple[float, bool]]] = []
    part: list[tuple[float, bool]] = []
    done = 0
    for _, group in groupby(pairs, key=lambda pair: pair[0]):
        part += group
        if (done + len(part)) * BINS >= (len(parts) + 1) * len(pairs):
            done += len(part)
            parts.append(part)
            part = []
    return parts


def _bin(part: Sequence[tuple[float, bool]]) -> ReliabilityBin:
    return ReliabilityBin(
        lowest=part[0][0],
        highest=part[-1][0],
        predicted=math.fsum(probability for probability, _ in part) / len(part),
        observed=sum(outcome for _, outcome in part) / len(part),
        count=len(part),
    )


def _surprise(probability: float, outcome: bool) -> float:  # noqa: FBT001 - a pair's second half
    given = probability if outcome else 1.0 - probability
    return -math.log(min(1.0 - _CERTAIN, max(_CERTAIN, given)))
