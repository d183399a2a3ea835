"""Scores on the scale that a client asks for, made of those that the model gave."""

from __future__ import annotations

import math

from uprank.calibration import sigmoid
from uprank.ranking import Ranking
from uprank.scorers.base import ScoreKind

__all__ = ["kind_on_scale", "on_scale"]

_LEAST = 5e-324  # the smallest float above 0
_MOST = 1.0 - 2.0**-53  # the largest below 1


def kind_on_scale(kind: ScoreKind | None, *, raw: bool) -> ScoreKind | None:
    """What scores mean once they are on a scale.

    Args:
        kind: What the model's mean.
        raw: As for :func:`on_scale`.
    """
    if kind in ("logit", "probability"):
        return "logit" if raw else "probability"
    return kind


def on_scale(ranking: Ranking, *, raw: bool) -> list[float | None]:
    """The scores of a ranking, best first.

    Cosines and scores that only give an order stay as they are: nothing makes probabilities or logits of them.

    Args:
        ranking: Any.
        raw: Whether logits are wanted, rather than probabilities. Certainty has no finite log odds: 0 and 1 are taken
            as the floats next to them. The order stays.
    """
    scores = [hit.score for hit in ranking.hits]
    if kind_on_scale(ranking.score_kind, raw=raw) == ranking.score_kind:
        return scores
    turned = _log_odds if raw else sigmoid
    return [None if score is None else turned(score) for score in scores]


def _log_odds(probability: float) -> float:
    # Not cut at the same distance from 0 as from 1: most documents are irrelevant, and their order counts too.
    inside = min(_MOST, max(_LEAST, probability))
    return math.log(inside) - math.log1p(-inside)
