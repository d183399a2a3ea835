"""Scores on the scale that a dialect defines, made of those that the model gave."""

from __future__ import annotations

import math

from uprank.calibration import sigmoid
from uprank.ranking import Ranking

__all__ = ["as_logits", "as_probabilities", "on_scale"]

_LEAST = 5e-324  # the smallest float above 0
_MOST = 1.0 - 2.0**-53  # the largest below 1


def on_scale(ranking: Ranking, *, raw: bool | None) -> list[float | None]:
    """The scores of a ranking, best first.

    Args:
        ranking: Any.
        raw: True for logits, false for probabilities, ``None`` for what the model gave.
    """
    if raw is None:
        return [hit.score for hit in ranking.hits]
    return as_logits(ranking) if raw else as_probabilities(ranking)


def as_probabilities(ranking: Ranking) -> list[float | None]:
    """The sigmoid of logits; scores that are none stay as they are, since no sigmoid makes probabilities of them."""
    if ranking.score_kind != "logit":
        return [hit.score for hit in ranking.hits]
    return [None if hit.score is None else sigmoid(hit.score) for hit in ranking.hits]


def as_logits(ranking: Ranking) -> list[float | None]:
    """The log odds of probabilities; scores that are none stay as they are.

    Certainty has no finite log odds: 0 and 1 are taken as the floats next to them. The order stays.
    """
    if ranking.score_kind != "probability":
        return [hit.score for hit in ranking.hits]
    return [None if hit.score is None else _log_odds(hit.score) for hit in ranking.hits]


def _log_odds(probability: float) -> float:
    # Not cut at the same distance from 0 as from 1: most documents are irrelevant, and their order counts too.
    inside = min(_MOST, max(_LEAST, probability))
    return math.log(inside) - math.log1p(-inside)
