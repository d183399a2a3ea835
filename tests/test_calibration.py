"""From raw values to reported scores: kinds, the one sigmoid, calibrators, thresholds."""

import math
import re

import numpy as np
import pytest

from uprank import ConfigurationError, InvalidInputError, InvalidScoresError, Reranker, ScoreKindError, ScorerError
from uprank.calibration import sigmoid
from uprank.scorers import Scorer, Scores

RAW = [2.0, -1.0, 0.0]


class Fixed(Scorer):
    """Answers with the values given, whatever it is asked, and counts how often."""

    name = "fixed"

    def __init__(self, values, kind, native=None, declares="as answered"):
        self._answer = Scores(values, kind=kind, native=native)
        self.score_kind = (native or kind) if declares == "as answered" else declares
        self.calls = 0

    def score(self, query, texts, *, instruction=None):
        self.calls += 1
        return self._answer


def rank(scorer, documents=("a", "b", "c"), **options):
    return Reranker(scorer, **options).rank("q", documents)


def logistic(value):
    return 1 / (1 + math.exp(-value))


# --- the sigmoid


@pytest.mark.parametrize("value", [-700.0, -30.0, -1.0, -1e-12, 0.0, 1e-12, 0.5, 3.0, 30.0, 700.0])
def test_the_sigmoid_is_the_logistic_function(value):
    assert sigmoid(value) == pytest.approx(float(1 / (1 + np.exp(-np.float64(value)))), rel=1e-12)
    assert sigmoid(value) + sigmoid(-value) == pytest.approx(1.0, abs=1e-15)


def test_the_sigmoid_does_not_overflow():
    assert (sigmoid(1e308), sigmoid(-1e308), sigmoid(0.0)) == (1.0, 0.0, 0.5)


# --- what is reported


@pytest.mark.parametrize(
    ("kind", "native", "mode", "reported", "reported_kind"),
    [
        ("logit", None, "native", RAW, "logit"),
        ("cosine", None, "native", RAW, "cosine"),
        ("rank", None, "native", RAW, "rank"),
        ("logit", "probability", "native", [logistic(value) for value in RAW], "probability"),
        ("logit", None, "probability", [logistic(value) for value in RAW], "probability"),
        ("logit", "probability", "probability", [logistic(value) for value in RAW], "probability"),
    ],
)
def test_each_kind_is_reported_as_declared_or_asked(kind, native, mode, reported, reported_kind):
    ranking = rank(Fixed(RAW, kind, native), score=mode)
    assert ranking.score_kind == reported_kind
    assert [hit.index for hit in ranking] == [0, 2, 1]
    assert [hit.score for hit in ranking] == pytest.approx([reported[hit.index] for hit in ranking], rel=1e-12)


@pytest.mark.parametrize("mode", ["native", "probability"])
@pytest.mark.parametrize("native", [None, "probability"])
def test_probabilities_are_never_squashed_again(mode, native):
    ranking = rank(Fixed([0.25, 0.75, 0.5], "probability", native), score=mode)
    assert [(hit.index, hit.score) for hit in ranking] == [(1, 0.75), (2, 0.5), (0, 0.25)]
    assert ranking.score_kind == "probability"


@pytest.mark.parametrize(
    ("native", "mode"), [(None, "probability"), ("probability", "native"), ("probability", "probability")]
)
def test_probabilities_that_saturate_do_not_tie(native, mode):
    """sigmoid(40) == sigmoid(41) == 1.0 in double precision; the order comes from the logits."""
    ranking = rank(Fixed([40.0, 41.0, -800.0, -750.0], "logit", native), documents=list("abcd"), score=mode)
    assert [hit.index for hit in ranking] == [1, 0, 3, 2]
    assert [hit.score for hit in ranking] == [1.0, 1.0, pytest.approx(0.0, abs=1e-300), 0.0]


def test_true_ties_stay_in_the_callers_order():
    assert [hit.index for hit in rank(Fixed([41.0, 40.0, 41.0], "logit"), score="probability")] == [0, 2, 1]


@pytest.mark.parametrize("documents", [[], ["a"]], ids=["empty", "scored"])
@pytest.mark.parametrize(
    ("scorer", "options", "kind"),
    [
        (Fixed([1.0], "logit"), {"score": "probability"}, "probability"),
        (Fixed([1.0], "rank"), {"score": "probability", "calibrator": sigmoid}, "probability"),
        (Fixed([1.0], "logit", declares=None), {"score": "probability"}, "probability"),
        (Fixed([1.0], "logit"), {}, "logit"),
        (Fixed([1.0], "logit", "probability"), {}, "probability"),
    ],
    ids=["logit", "calibrated", "undeclared", "native", "native probability"],
)
def test_the_kind_is_the_same_whether_or_not_there_was_something_to_score(documents, scorer, options, kind):
    assert rank(scorer, documents, **options).score_kind == kind


def test_an_empty_ranking_of_a_model_that_is_not_loaded_knows_no_kind():
    assert rank(Fixed([1.0], "logit", declares=None), []).score_kind is None


def test_a_degraded_ranking_has_the_kind_that_was_asked_for():
    def broken(query, texts):
        raise OSError

    ranking = rank(broken, score_kind="logit", score="probability", on_error="passthrough")
    assert (ranking.degraded, ranking.score_kind) == (True, "probability")


# --- probabilities that cannot be had


@pytest.mark.parametrize("kind", ["cosine", "rank"])
def test_no_sigmoid_is_applied_to_what_is_no_logit(kind):
    with pytest.raises(ScoreKindError, match=f"fixed gives '{kind}' scores.*calibrator="):
        rank(Fixed(RAW, kind, declares=None), score="probability")


@pytest.mark.parametrize("kind", ["cosine", "rank"])
def test_a_declared_kind_that_cannot_become_probabilities_is_refused_before_any_call(kind):
    scorer = Fixed(RAW, kind)
    with pytest.raises(ScoreKindError, match="calibrator="):
        Reranker(scorer, score="probability")


def test_an_undeclared_function_gives_no_probabilities():
    def function(query, texts):
        return [0.0] * len(texts)

    with pytest.raises(ScoreKindError, match='function mean: pass score_kind="logit"'):
        Reranker(function, score="probability")
    assert [hit.score for hit in rank(function, score="probability", score_kind="logit")] == [0.5] * 3
    assert [hit.score for hit in rank(function, score="probability", score_kind="probability")] == [0.0] * 3
    assert [hit.score for hit in rank(function, score="probability", calibrator=lambda value: 0.25)] == [0.25] * 3


@pytest.mark.parametrize("mode", ["logit", "Probability", None, "", ["native"]])
def test_an_unknown_mode_is_refused(mode):
    with pytest.raises(ConfigurationError, match='score must be "native" or "probability"'):
        Reranker(lambda query, texts: [0.0], score=mode)


# --- calibrators


@pytest.mark.parametrize("kind", ["logit", "cosine", "rank", "probability"])
def test_a_calibrator_takes_the_raw_value_in_place_of_the_sigmoid(kind):
    seen = []

    def half_and(value):
        seen.append(value)
        return np.float32(0.5 + value / 8)

    ranking = rank(Fixed([0.5, 0.0, 1.0], kind), score="probability", calibrator=half_and, threshold=0.55)
    assert seen == [0.5, 0.0, 1.0]
    assert [(hit.index, hit.score, type(hit.score)) for hit in ranking] == [(2, 0.625, float), (0, 0.5625, float)]
    assert ranking.score_kind == "probability"


def test_a_flat_calibrator_does_not_change_the_order():
    ranking = rank(Fixed(RAW, "logit"), score="probability", calibrator=lambda value: 0.5)
    assert [hit.index for hit in ranking] == [0, 2, 1]


@pytest.mark.parametrize("wrong", [1.5, -0.1, float("nan"), float("inf")])
def test_a_calibrator_that_gives_no_probability_is_an_error(wrong):
    with pytest.raises(InvalidScoresError, match=rf"calibrator given for fixed turned 2\.0 into {wrong!r}"):
        rank(Fixed(RAW, "logit"), score="probability", calibrator=lambda value: wrong)


def _fails(value):
    raise LookupError("no bin")


@pytest.mark.parametrize(
    "calibrator", [_fails, lambda value: None, lambda value: "high"], ids=["raises", "None", "str"]
)
def test_an_error_of_the_calibrator_names_the_calibrator(calibrator):
    with pytest.raises(ScorerError, match="calibrator"):
        rank(Fixed(RAW, "logit"), score="probability", calibrator=calibrator)


def test_a_calibrator_goes_with_probabilities():
    with pytest.raises(ConfigurationError, match='pass score="probability" with it'):
        Reranker(lambda query, texts: [0.0], calibrator=sigmoid)


@pytest.mark.parametrize("calibrator", [3, "platt", [0.1, 0.2]])
def test_a_calibrator_is_a_function(calibrator):
    with pytest.raises(ConfigurationError, match="calibrator"):
        Reranker(lambda query, texts: [0.0], score="probability", calibrator=calibrator)


# --- thresholds


@pytest.mark.parametrize(
    ("scorer", "mode", "threshold", "kept"),
    [
        (Fixed(RAW, "logit"), "native", 0.0, [0, 2]),  # at the threshold is enough
        (Fixed(RAW, "logit"), "native", 0.5, [0]),
        (Fixed(RAW, "logit"), "probability", 0.5, [0, 2]),
        (Fixed(RAW, "logit"), "probability", 0.0, [0, 2, 1]),
        (Fixed(RAW, "logit", "probability"), "native", 0.5, [0, 2]),
        (Fixed([0.9, 0.2, 0.5], "probability"), "native", 0.5, [0, 2]),
        (Fixed([0.9, -0.2, 0.5], "cosine"), "native", -0.1, [0, 2]),
        (Fixed(RAW, "logit"), "native", -5, [0, 2, 1]),
        (Fixed(RAW, "logit"), "native", 5, []),
        (Fixed(RAW, "logit"), "native", np.float32(0.5), [0]),
    ],
)
def test_the_threshold_compares_with_the_reported_score(scorer, mode, threshold, kept):
    assert [hit.index for hit in rank(scorer, score=mode, threshold=threshold)] == kept
    assert [hit.index for hit in Reranker(scorer, score=mode).rank("q", ["a", "b", "c"], threshold=threshold)] == kept


def test_threshold_and_top_n_both_cut():
    assert [hit.index for hit in rank(Fixed(RAW, "logit"), threshold=-0.5, top_n=1)] == [0]
    assert [hit.index for hit in rank(Fixed(RAW, "logit"), threshold=1.0, top_n=3)] == [0]


def test_a_threshold_on_ranks_is_refused_before_the_call_and_says_what_to_do():
    scorer = Fixed(RAW, "rank")
    for call in (
        lambda: Reranker(scorer, threshold=0.5),
        lambda: Reranker(scorer).rank("q", ["a"], threshold=0.5),
        lambda: Reranker(scorer).rank_many(["q"], [["a"]], threshold=0.5),
        lambda: Reranker(scorer, on_error="passthrough").rank("q", [], threshold=0.5),
    ):
        with pytest.raises(
            ScoreKindError, match=r"fixed gives scores of kind 'rank'.*Use top_n, or score=\"probability\""
        ):
            call()
    assert scorer.calls == 0
    assert [hit.index for hit in Reranker(scorer, top_n=1).rank("q", ["a", "b", "c"])] == [0]


def test_a_threshold_is_refused_where_only_the_answer_tells_that_it_is_ranks():
    scorer = Fixed(RAW, "rank", declares=None)
    for policy in ("raise", "passthrough"):
        with pytest.raises(ScoreKindError, match=re.escape("kind 'rank'")):
            rank(scorer, threshold=0.5, on_error=policy)


@pytest.mark.parametrize("threshold", [float("nan"), float("inf"), float("-inf"), np.float32("nan")])
def test_a_threshold_is_finite(threshold):
    with pytest.raises(InvalidInputError, match="threshold must be finite"):
        Reranker(lambda query, texts: [0.0], threshold=threshold)
    with pytest.raises(InvalidInputError, match="threshold must be finite"):
        Reranker(lambda query, texts: [0.0]).rank("q", ["a"], threshold=threshold)


@pytest.mark.parametrize(
    "threshold", ["0.5", b"0.5", True, False, [0.5], {}, object(), 10**400], ids=lambda value: type(value).__name__
)
def test_a_threshold_is_a_number(threshold):
    with pytest.raises(InvalidInputError, match="threshold must be"):
        Reranker(lambda query, texts: [0.0], threshold=threshold)
    with pytest.raises(InvalidInputError, match="threshold must be"):
        Reranker(lambda query, texts: [0.0]).rank("q", ["a"], threshold=threshold)


def test_a_calibrator_that_decreases_is_refused():
    reranker = Reranker(lambda query, texts: [0.1, 0.9, 0.5], score="probability", calibrator=lambda score: 1 - score)
    with pytest.raises(ScoreKindError, match=r"decreases: it turned 0\.1 into 0\.9, but 0\.5 into 0\.5"):
        reranker.rank("q", ["a", "b", "c"])


def test_a_calibrator_may_stay_level():
    reranker = Reranker(lambda query, texts: [0.1, 0.9], score="probability", calibrator=lambda score: 0.5)
    assert [hit.index for hit in reranker.rank("q", ["a", "b"])] == [1, 0]
