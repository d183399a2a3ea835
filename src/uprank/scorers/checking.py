"""What scorers answer, checked wherever it is used."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from itertools import pairwise
from typing import SupportsFloat, get_args

from uprank.errors import InvalidScoresError
from uprank.scorers.base import ScoreKind, Scores

__all__ = ["check_scores"]

_KINDS = get_args(ScoreKind)
_ROUNDING = 1e-6  # half and single precision may step out of [0, 1] by this much


def check_scores(scores: Scores, expected: int, model: str) -> Scores:
    """Return the scores as plain floats, one finite number a text, or say what is wrong with them."""
    if not isinstance(scores, Scores):
        raise InvalidScoresError(f"{model} must answer with Scores, got {type(scores).__name__}.")
    if scores.kind not in _KINDS or scores.native not in (None, "probability"):
        raise InvalidScoresError(f"{model} gave scores of kind {scores.kind!r}, native {scores.native!r}.")
    if scores.native is not None and scores.kind not in ("logit", "probability"):
        raise InvalidScoresError(f"{model} gave {scores.kind!r} scores, which no sigmoid makes probabilities.")
    if (
        isinstance(scores.values, (str, bytes, Mapping, Set))
        or not isinstance(scores.values, Iterable)
        or getattr(scores.values, "ndim", 1) == 0
    ):
        raise InvalidScoresError(f"{model} must give a list of numbers, got {type(scores.values).__name__}.")
    values: Sequence[float] = list(scores.values)
    if set(map(type, values)) != {float} or not all(map(math.isfinite, values)):
        values = [_number(value, position, model) for position, value in enumerate(values)]
    if len(values) != expected:
        raise InvalidScoresError(f"{model} gave {len(values)} scores for {expected} texts.")
    if scores.kind == "probability":
        for position, value in enumerate(values):
            if not -_ROUNDING <= value <= 1.0 + _ROUNDING:
                raise InvalidScoresError(f"{model} gave {value} for text {position}; a probability lies in [0, 1].")
    if scores.evidence is not None and len(scores.evidence) != expected:
        raise InvalidScoresError(f"{model} gave evidence of {len(scores.evidence)} scores for {expected} texts.")
    return replace(scores, values=values, reported=_check_reported(scores.reported, values, model))


def _check_reported(
    reported: Sequence[float | None] | None, values: Sequence[float], model: str
) -> Sequence[float | None] | None:
    if reported is None:
        return None
    if len(reported) != len(values):
        raise InvalidScoresError(f"{model} reported {len(reported)} scores for {len(values)} texts.")
    known = [(value, score) for value, score in zip(values, reported, strict=True) if score is not None]
    for _, score in known:
        if not 0.0 <= score <= 1.0:  # also refuses NaN
            raise InvalidScoresError(f"{model} reported {score}; a probability lies in [0, 1].")
    for (low, before), (high, after) in pairwise(sorted(known)):
        if after < before and high > low:
            raise InvalidScoresError(f"{model} reported {before} for a text that it placed below one with {after}.")
    return reported


def _number(value: SupportsFloat, position: int, model: str) -> float:
    try:
        if isinstance(value, (str, bytes)) or getattr(value, "ndim", 0) > 0:
            raise TypeError
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise InvalidScoresError(f"{model} gave {value!r} for text {position}; a score must be a number.") from None
    if not math.isfinite(number):
        raise InvalidScoresError(f"{model} gave the score {number} for text {position}; scores must be finite.")
    return number
