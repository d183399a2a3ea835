"""From the raw numbers that order documents to the scores that are reported."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, TypeAlias

from uprank.errors import InvalidScoresError, ScoreKindError, ScorerError
from uprank.scorers.base import ScoreKind, Scores

__all__ = ["Calibration", "ScoreMode", "no_probabilities", "report", "sigmoid"]

ScoreMode: TypeAlias = Literal["native", "probability"]

_EXP_LIMIT = -700.0  # math.exp overflows at 710

Calibration: TypeAlias = Callable[[float], float]
"""Turns a scorer's raw value into a probability; must not decrease."""


def sigmoid(logit: float) -> float:
    """The logistic function: without overflow at either end, and never lower for a higher logit, to the last bit."""
    # One branch for nearly all: in odds / (1 + odds) rounding lets a higher logit get the lower probability.
    return 1.0 / (1.0 + math.exp(-logit)) if logit > _EXP_LIMIT else math.exp(logit)


def report(
    scores: Scores, mode: ScoreMode, calibrator: Calibration | None, *, model: str
) -> tuple[list[float | None], ScoreKind]:
    """Return the scores to show, and what they mean. The sigmoid is applied here and nowhere else.

    Args:
        scores: A scorer's checked answer.
        mode: ``"native"``, or ``"probability"``.
        calibrator: Used for ``"probability"`` instead of the sigmoid; by default the scores' own.
        model: Named in errors.

    Raises:
        ScoreKindError: If probabilities were asked for and cannot be had.
        InvalidScoresError: If the calibrator's answer is no probability.
    """
    calibrator = calibrator or scores.calibrator
    if scores.reported is not None:
        if mode == "native" or calibrator is None:
            return list(scores.reported), "probability"
        known = [one for one in scores.reported if one is not None]
        calibrated = [_calibrated(calibrator, one, model) for one in known]
        _check_order(known, calibrated, model)
        found = iter(calibrated)
        return [None if one is None else next(found) for one in scores.reported], "probability"
    if mode == "native":
        if scores.native is None or scores.native == scores.kind:
            return list(scores.values), scores.kind
        return [sigmoid(value) for value in scores.values], scores.native
    if calibrator is not None:
        probabilities = [_calibrated(calibrator, value, model) for value in scores.values]
        _check_order(scores.values, probabilities, model)
        return [*probabilities], "probability"
    if scores.kind == "probability":
        return list(scores.values), "probability"
    if scores.kind == "logit":
        return [sigmoid(value) for value in scores.values], "probability"
    raise no_probabilities(model, scores.kind)


def no_probabilities(model: str, kind: ScoreKind) -> ScoreKindError:
    """The error where probabilities are asked of scores that no sigmoid turns into them."""
    return ScoreKindError(
        f'{model} gives {kind!r} scores, which no sigmoid turns into probabilities. Use score="native", '
        "or pass calibrator=: a Calibrator fitted on its scores, or a function from them to probabilities."
    )


def _calibrated(calibrator: Calibration, value: float, model: str) -> float:
    try:
        probability = float(calibrator(value))
    except Exception as error:
        raise ScorerError(
            f"The calibrator given for {model} failed on {value!r} with {type(error).__name__}: {error}"
        ) from error
    if not 0.0 <= probability <= 1.0:  # also refuses NaN
        raise InvalidScoresError(
            f"The calibrator given for {model} turned {value!r} into {probability!r}, not in [0, 1]."
        )
    return probability


def _check_order(values: Sequence[float], probabilities: Sequence[float], model: str) -> None:
    ascending = sorted(zip(values, probabilities, strict=True))
    for (low, before), (high, after) in pairwise(ascending):
        if after < before and high > low:
            raise ScoreKindError(
                f"The calibrator given for {model} decreases: it turned {low!r} into {before!r}, but {high!r} into "
                f"{after!r}. The better document must not get the lower probability."
            )
