"""Non-decreasing functions from scores to probabilities; the standard library is all they need."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TypeAlias

from uprank.calibration import sigmoid
from uprank.errors import ConfigurationError

__all__ = ["Curve", "Interpolated", "Logistic", "log_odds"]

_NEAR_CERTAIN = 2.0**-53  # what is left to 1.0 of the largest float below it


@dataclass(frozen=True, slots=True)
class Logistic:
    """A logistic function of the score, as Platt scaling and temperature scaling fit it.

    Args:
        slope: Above 0; of a temperature T it is 1/T.
        intercept: The log odds at a score of 0.

    Raises:
        ConfigurationError: If one of them is not finite, or the slope is not above 0.
    """

    slope: float
    intercept: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 < self.slope < math.inf or not math.isfinite(self.intercept):
            raise ConfigurationError(
                f"A logistic curve needs a finite slope above 0 and a finite intercept; got {self.slope!r} and "
                f"{self.intercept!r}."
            )

    def __call__(self, score: float) -> float:
        return sigmoid(self.slope * score + self.intercept)

    def inverse(self, probability: float) -> float:
        """The score that gets a probability strictly between 0 and 1."""
        return (log_odds(probability) - self.intercept) / self.slope


@dataclass(frozen=True, slots=True)
class Interpolated:
    """Straight lines between points, level beyond the outermost two, as isotonic regression fits it.

    Args:
        scores: Finite and increasing; at least one.
        probabilities: As many, in [0, 1], not decreasing.

    Raises:
        ConfigurationError: If they are not.
    """

    scores: tuple[float, ...] = field(repr=False)
    probabilities: tuple[float, ...] = field(repr=False)

    def __post_init__(self) -> None:
        if not self.scores or len(self.scores) != len(self.probabilities):
            raise ConfigurationError(
                f"A curve needs as many scores as probabilities, at least one; got {len(self.scores)} and "
                f"{len(self.probabilities)}."
            )
        if not all(map(math.isfinite, self.scores)) or any(low >= high for low, high in pairwise(self.scores)):
            raise ConfigurationError("The scores of a curve must be finite, each above the one before.")
        if not all(0.0 <= one <= 1.0 for one in self.probabilities):  # also refuses NaN
            raise ConfigurationError("The probabilities of a curve must lie in [0, 1].")
        if any(low > high for low, high in pairwise(self.probabilities)):
            raise ConfigurationError("The probabilities of a curve must not decrease.")

    def __call__(self, score: float) -> float:
        place = bisect_right(self.scores, score)
        if place == 0:
            return self.probabilities[0]
        if place == len(self.scores):
            return self.probabilities[-1]
        left, right = self.scores[place - 1], self.scores[place]
        low, high = self.probabilities[place - 1], self.probabilities[place]
        if math.isinf(right - left):
            score, left, right = score / 2, left / 2, right / 2
        share = (score - left) / (right - left)
        return min(high, low + (high - low) * share)  # min: rounding must not step over the next point


Curve: TypeAlias = "Logistic | Interpolated"


def log_odds(probability: float) -> float:
    """What the logistic function turns into a probability; 0 and 1 are taken as the next best certainty, ±36.7."""
    inside = min(1.0 - _NEAR_CERTAIN, max(_NEAR_CERTAIN, probability))
    return math.log(inside) - math.log1p(-inside)


def as_floats(values: Sequence[object]) -> tuple[float, ...]:
    """Numbers of a file as floats.

    Raises:
        ConfigurationError: If one of them is none.
    """
    if not all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values):
        raise ConfigurationError("A curve is made of numbers.")
    return tuple(float(one) for one in values)  # type: ignore[arg-type]  # numbers, as just seen
