"""Figures from timings: medians, ratios of the same round, percentiles, agreement of two orders."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["Ratio", "Timings", "kendall_tau", "percentile", "ratio"]

Timings = Mapping[str, Sequence[float]]
"""Seconds of each round by contestant; the same position is the same round with the same sample."""


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times as fast one is as the other: the median over the rounds, and the range."""

    median: float
    least: float
    most: float


def ratio(timings: Timings, fast: str, slow: str) -> Ratio | None:
    """How many times as fast ``fast`` is as ``slow``, round by round.

    A machine that is slow for a while is slow for both, so rounds are compared before the median is taken.

    Returns:
        ``None`` if either has no timings.
    """
    if not timings.get(fast) or not timings.get(slow):
        return None
    ratios = [theirs / ours for ours, theirs in zip(timings[fast], timings[slow], strict=True)]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios))


def percentile(values: Sequence[float], share: float) -> float:
    """The least value that at least this share of all does not exceed.

    Args:
        values: At least one.
        share: Above 0, up to 1; 0.5 is a median.
    """
    ordered = sorted(values)
    return ordered[max(0, -int(-share * len(ordered) // 1) - 1)]


def kendall_tau(one: Sequence[float], other: Sequence[float]) -> float:
    """Kendall's tau-b of two lists of scores of the same documents: 1 for the same order, −1 for the opposite.

    Returns:
        1.0 where there is nothing to order. Where only one of the two has ties alone, 0.0.
    """
    agree = tied_one = tied_other = pairs = 0
    for i in range(len(one)):
        for j in range(i):
            first, second = one[i] - one[j], other[i] - other[j]
            pairs += 1
            tied_one += first == 0
            tied_other += second == 0
            agree += (first * second > 0) - (first * second < 0)
    if tied_one == pairs and tied_other == pairs:
        return 1.0
    scale = float((pairs - tied_one) * (pairs - tied_other)) ** 0.5
    return agree / scale if scale else 0.0
