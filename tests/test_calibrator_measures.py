"""Curves that turn scores into probabilities, the measures of these, and the thresholds found on them."""

from __future__ import annotations

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uprank import InvalidInputError, Reranker
from uprank.calibration import sigmoid
from uprank.calibrations.curves import Interpolated, Logistic, log_odds
from uprank.calibrations.reliability import find_threshold, reliability
from uprank.calibrator import Calibrator
from uprank.errors import ConfigurationError

FINITE = st.floats(allow_nan=False, allow_infinity=False)
PROBABILITY = st.floats(0.0, 1.0)


# --- curves


def test_logistic_by_hand():
    curve = Logistic(2.0, -1.0)
    assert curve(0.5) == 0.5
    assert curve(1.0) == pytest.approx(1 / (1 + math.exp(-1)))
    assert curve(-1.0) == pytest.approx(math.exp(-3) / (1 + math.exp(-3)), rel=1e-15)
    assert Logistic(1.0)(-720.0) == pytest.approx(math.exp(-720.0))  # and no overflow
    assert [curve(score) for score in (-math.inf, -1e308, 1e308, math.inf)] == [0.0, 0.0, 1.0, 1.0]


def test_interpolated_by_hand():
    curve = Interpolated((0.0, 1.0, 3.0), (0.1, 0.5, 0.5))
    assert [curve(score) for score in (-math.inf, -5.0, 0.0)] == [0.1] * 3
    assert curve(0.25) == pytest.approx(0.2)
    assert [curve(score) for score in (1.0, 2.0, 3.0, 9.0, math.inf)] == [0.5] * 5
    assert Interpolated((7.0,), (0.25,))(-1.0) == 0.25
    # Just below the second point, rounding makes the whole step of it, and of the step a little more than there is.
    low, high = 0.0009948581911962129, 0.5588010109499965
    assert low + (high - low) > high == Interpolated((-1e16, 0.0), (low, high))(-0.5)


def near(score: float) -> list[float]:
    """Neighbours among floats: where rounding could turn an order around."""
    found = [score]
    for _ in range(3):
        found.append(math.nextafter(found[-1], math.inf))
    return found


@settings(max_examples=60, deadline=None)
@given(FINITE, st.floats(1e-3, 1e3), st.floats(-20, 20))
def test_a_logistic_curve_stays_in_range_and_never_decreases(score, slope, intercept):
    values = [Logistic(slope, intercept)(one) for one in near(score)]
    assert all(0.0 <= one <= 1.0 for one in values)
    assert all(low <= high for low, high in pairwise(values))


def test_neighbouring_scores_keep_their_order():
    curve, chance = Logistic(1.0), random.Random(5)
    for _ in range(3_000):  # of odds / (1 + odds), one in 500 such pairs comes out the wrong way round
        low = chance.uniform(-6, 2)
        assert curve(low) <= curve(math.nextafter(low, math.inf))
    for low in near(math.nextafter(-700.0, -math.inf)):
        assert curve(low) <= curve(math.nextafter(low, math.inf))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(FINITE, PROBABILITY), min_size=1, max_size=8, unique_by=lambda pair: pair[0]), FINITE)
def test_an_interpolated_curve_stays_in_range_and_never_decreases(points, score):
    scores = tuple(sorted(one for one, _ in points))
    curve = Interpolated(scores, tuple(sorted(one for _, one in points)))
    places = sorted([*near(score), *(neighbour for one in scores for neighbour in near(one))])
    values = [curve(one) for one in places]
    assert all(curve.probabilities[0] <= one <= curve.probabilities[-1] for one in values)
    assert all(low <= high for low, high in pairwise(values))
    assert [curve(one) for one in scores] == list(curve.probabilities)


@pytest.mark.parametrize(
    ("kind", "parameters"),
    [
        (Logistic, (0.0,)),
        (Logistic, (-1.0,)),
        (Logistic, (math.nan,)),
        (Logistic, (math.inf,)),
        (Logistic, (1.0, math.nan)),
        (Interpolated, ((), ())),
        (Interpolated, ((0.0,), (0.1, 0.2))),
        (Interpolated, ((0.0, 0.0), (0.1, 0.2))),
        (Interpolated, ((1.0, 0.0), (0.1, 0.2))),
        (Interpolated, ((0.0, 1.0), (0.2, 0.1))),
        (Interpolated, ((0.0, 1.0), (0.2, 1.5))),
        (Interpolated, ((0.0, 1.0), (math.nan, 0.5))),
        (Interpolated, ((0.0, math.inf), (0.1, 0.5))),
    ],
)
def test_a_curve_that_decreases_or_is_no_function_cannot_be_made(kind, parameters):
    with pytest.raises(ConfigurationError):
        kind(*parameters)


def test_log_odds_invert_the_logistic_function_and_end_somewhere():
    assert [log_odds(sigmoid(x)) for x in (-30.0, -0.5, 0.0, 4.0)] == pytest.approx([-30.0, -0.5, 0.0, 4.0], abs=1e-12)
    assert log_odds(0.0) == -log_odds(1.0) == pytest.approx(-53 * math.log(2))


# --- measures


def test_measures_by_hand():
    report = reliability([0.2] * 10 + [0.9] * 10, [True] * 2 + [False] * 8 + [True] * 7 + [False] * 3)
    assert report.ece == pytest.approx(0.5 * 0.0 + 0.5 * 0.2)
    assert report.brier == pytest.approx((2 * 0.64 + 8 * 0.04 + 7 * 0.01 + 3 * 0.81) / 20)
    expected = -(2 * math.log(0.2) + 8 * math.log(0.8) + 7 * math.log(0.9) + 3 * math.log(0.1)) / 20
    assert report.log_loss == pytest.approx(expected)
    assert (report.count, report.positives) == (20, 9)
    low, high = report.bins
    assert (low.lowest, low.highest, low.observed, low.count) == (0.2, 0.2, 0.2, 10)
    assert (high.predicted, high.observed) == (pytest.approx(0.9), 0.7)
    assert (
        str(report)
        == f"ECE 0.1000, Brier {report.brier:.4f}, log loss {expected:.4f} over 20 scores, 9 of them relevant"
    )


def test_bins_hold_equal_numbers_where_probabilities_differ():
    report = reliability([n / 300 for n in range(300)], [n % 3 == 0 for n in range(300)])
    assert [one.count for one in report.bins] == [20] * 15
    assert report.bins[3].lowest == 60 / 300
    assert report.bins[3].predicted == pytest.approx(69.5 / 300)


def test_certainty_that_was_wrong_costs_much_but_not_infinitely():
    assert reliability([0.0, 1.0], [True, False]).log_loss == pytest.approx(-math.log(1e-15), rel=1e-3)
    assert reliability([0.0, 1.0], [False, True]).log_loss == pytest.approx(0.0, abs=1e-14)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.7, 1.0]) | PROBABILITY, st.booleans()), min_size=1))
def test_measures_keep_their_promises(pairs):
    report = reliability(*zip(*pairs, strict=True))
    assert report == reliability(*zip(*pairs[::-1], strict=True))
    assert 0.0 <= report.ece <= 1.0
    assert report.ece**2 <= report.brier + 1e-12  # a mean distance, and by Jensen's inequality
    assert len(report.bins) <= 15
    assert sum(one.count for one in report.bins) == len(pairs)
    assert all(one.highest < other.lowest for one, other in pairwise(report.bins))


def test_brier_and_log_loss_are_those_of_scikit_learn():
    from sklearn.metrics import brier_score_loss, log_loss

    chance = random.Random(3)
    probabilities = [chance.random() for _ in range(200)]
    outcomes = [chance.random() < one**2 for one in probabilities]
    report = reliability(probabilities, outcomes)
    assert report.brier == pytest.approx(brier_score_loss(outcomes, probabilities), abs=1e-12)
    assert report.log_loss == pytest.approx(log_loss(outcomes, probabilities), abs=1e-9)


@pytest.mark.parametrize(
    ("probabilities", "outcomes"), [([], []), ([0.5], []), ([1.5], [True]), ([math.nan], [True]), ([-0.1], [False])]
)
def test_what_is_no_probability_is_not_measured(probabilities, outcomes):
    with pytest.raises(InvalidInputError):
        reliability(probabilities, outcomes)


# --- thresholds

CURVE = Logistic(2.0, -1.0)
SCORES = [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]
JUDGED = [1, 1, 0, 1, 0, 0]


def test_thresholds_by_hand():
    calibrator = Calibrator("platt", CURVE, "m")
    sure = calibrator.threshold_for(SCORES, JUDGED, precision=1.0)
    assert (sure.score, sure.precision, sure.recall, sure.kept) == (0.8, 1.0, pytest.approx(2 / 3), 2)
    assert sure.probability == calibrator(0.8)
    most = calibrator.threshold_for(SCORES, JUDGED, precision=0.7)
    assert (most.score, most.precision, most.recall, most.kept) == (0.6, 0.75, 1.0, 4)
    assert calibrator.threshold_for(SCORES, JUDGED, recall=0.5).score == 0.8
    assert calibrator.threshold_for(SCORES, JUDGED, recall=0.3).score == 0.9
    assert calibrator.threshold_for(SCORES, JUDGED, recall=1).score == 0.6
    assert calibrator.threshold_for(SCORES, [1, 2, 0, 2, 0, 0], recall=1.0, relevant_from=2).recall == 1.0


def test_the_threshold_does_in_a_reranker_what_it_promised():
    calibrator = Calibrator("platt", CURVE, "given", "logit")
    found = calibrator.threshold_for(SCORES, JUDGED, precision=0.7)
    reranker = Reranker(
        lambda query, texts: SCORES, name="given", score_kind="logit", score="probability", calibrator=calibrator
    )
    kept = reranker.rank("q", [f"text {n}" for n in range(6)], threshold=found.probability)
    assert [hit.index for hit in kept] == [0, 1, 2, 3]
    assert sum(JUDGED[hit.index] for hit in kept) / len(kept) == found.precision


def test_a_precision_that_cannot_be_had_is_an_error_that_says_what_can():
    with pytest.raises(InvalidInputError, match=r"No threshold has a precision of 0\.9; the best there is has 0\.600"):
        Calibrator("platt", CURVE, "m").threshold_for(SCORES, [0, 1, 0, 1, 1, 0], precision=0.9)
    with pytest.raises(InvalidInputError, match="None of these documents is relevant"):
        Calibrator("platt", CURVE, "m").threshold_for(SCORES, [0] * 6, recall=0.5)


@pytest.mark.parametrize(
    "wanted",
    [{}, {"precision": 0.5, "recall": 0.5}, {"precision": 0}, {"recall": 1.01}, {"recall": math.nan},
     {"precision": True}, {"precision": "0.9"}],
)  # fmt: skip
def test_one_thing_is_wanted_and_it_is_a_share(wanted):
    with pytest.raises(InvalidInputError, match="precision"):
        Calibrator("platt", CURVE, "m").threshold_for(SCORES, JUDGED, **wanted)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from([0.1, 0.2, 0.4, 0.8]), st.booleans()), min_size=1, max_size=12).filter(
        lambda pairs: any(outcome for _, outcome in pairs)
    ),
    st.floats(0.01, 1.0),
)
def test_thresholds_are_the_best_of_all_that_there_are(pairs, wanted):
    values, outcomes = zip(*pairs, strict=True)

    def cut(at: float) -> tuple[float, float]:
        kept = [outcome for value, outcome in pairs if value >= at]
        return sum(kept) / len(kept), sum(kept) / sum(outcomes)

    precise = [at for at in set(values) if cut(at)[0] >= wanted and cut(at)[1]]
    if precise:
        found = find_threshold(values, values, outcomes, precision=wanted, recall=None)
        assert (found.probability, found.precision, found.recall) == (min(precise), *cut(min(precise)))
    else:
        with pytest.raises(InvalidInputError, match="No threshold"):
            find_threshold(values, values, outcomes, precision=wanted, recall=None)
    complete = max(at for at in set(values) if cut(at)[1] >= wanted)
    assert find_threshold(values, values, outcomes, precision=None, recall=wanted).probability == complete
