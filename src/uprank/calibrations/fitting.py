"""Fitting curves to judged scores, by scikit-learn, which nothing else needs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, TypeAlias, get_args

from uprank.calibrations.curves import Curve, Interpolated, Logistic
from uprank.errors import ConfigurationError, InvalidInputError, ScoreKindError
from uprank.extras import require

__all__ = ["Method", "fit_curve", "valid_method"]

Method: TypeAlias = Literal["platt", "isotonic", "temperature"]
"""How a curve is fitted.

* ``"platt"``: a logistic function with slope and intercept; two numbers, so a hundred judged scores are enough. Platt,
  "Probabilistic Outputs for Support Vector Machines", 1999, with the targets given there.
* ``"isotonic"``: any non-decreasing function; it follows the data, so give it a thousand or more. Zadrozny and Elkan,
  "Transforming Classifier Scores into Accurate Multiclass Probability Estimates", 2002.
* ``"temperature"``: a logistic function of the score over one number; for logits and probabilities that are only too
  sure or not sure enough. Guo et al., "On Calibration of Modern Neural Networks", 2017.
"""

_UNREGULARISED = 1e10  # LogisticRegression's C: how little it draws the slope to 0


def valid_method(method: str) -> Method:
    """Return the method, if there is one of that name.

    Raises:
        ConfigurationError: If there is none.
    """
    for known in get_args(Method):
        if method == known:
            return known  # type: ignore[no-any-return]  # one of the Literal's
    raise ConfigurationError(f"method must be one of {', '.join(get_args(Method))}; got {method!r}.")


def fit_curve(method: Method, scores: Sequence[float], relevant: Sequence[bool]) -> Curve:
    """Fit a curve.

    Args:
        method: How.
        scores: Finite.
        relevant: As many.

    Raises:
        InvalidInputError: If all are relevant, or none.
        ScoreKindError: If relevant documents do not tend to have the higher scores.
        MissingDependencyError: If scikit-learn is not installed.
    """
    positives = sum(relevant)
    if positives in (0, len(relevant)):
        which = "none" if positives == 0 else "all"
        raise InvalidInputError(
            f"Of {len(relevant)} judged scores {which} are of relevant documents; a calibrator is learned from both."
        )
    require("Fitting a calibrator", "calibration", "sklearn")
    if method == "isotonic":
        return _isotonic(scores, relevant)
    return _logistic(scores, relevant, intercept=method == "platt")


def _isotonic(scores: Sequence[float], relevant: Sequence[bool]) -> Interpolated:
    from sklearn.isotonic import IsotonicRegression

    model = IsotonicRegression(y_min=0.0, y_max=1.0, increasing=True, out_of_bounds="clip")
    model.fit(list(scores), [float(one) for one in relevant])
    heights = [min(1.0, max(0.0, float(one))) for one in model.y_thresholds_]
    if heights[0] == heights[-1]:
        raise _tells_nothing()
    return Interpolated(tuple(float(one) for one in model.X_thresholds_), tuple(heights))


def _logistic(scores: Sequence[float], relevant: Sequence[bool], *, intercept: bool) -> Logistic:
    from sklearn.linear_model import LogisticRegression

    count = len(scores)
    # Of like size whatever the model's scale, since the solver and its penalty would notice it.
    middle = math.fsum(scores) / count if intercept else 0.0
    scale = math.sqrt(math.fsum((score - middle) ** 2 for score in scores) / count)
    if not 0.0 < scale < math.inf:
        raise _tells_nothing()
    inputs = [[(score - middle) / scale] for score in scores]
    positives = sum(relevant)
    negatives = count - positives
    # Platt's targets: a little less sure than the labels, so that scores that tell all apart get a finite slope.
    high, low = (positives + 1.0) / (positives + 2.0), 1.0 / (negatives + 2.0)
    targets = [high if one else low for one in relevant]
    model = LogisticRegression(C=_UNREGULARISED, fit_intercept=intercept, tol=1e-8, max_iter=1_000)
    model.fit(
        [*inputs, *inputs],
        [1] * count + [0] * count,
        sample_weight=[*targets, *(1.0 - target for target in targets)],
    )
    slope = float(model.coef_[0][0]) / scale
    if not slope > 0.0:
        raise _tells_nothing()
    return Logistic(slope, float(model.intercept_[0]) - slope * middle if intercept else 0.0)


def _tells_nothing() -> ScoreKindError:
    return ScoreKindError(
        "These scores do not tell relevance: relevant documents have no higher scores than the others. Check that "
        "scores and labels are in the same order, and that a higher score means a better document."
    )
