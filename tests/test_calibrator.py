"""Calibrators: fitted by hand-made data, kept as JSON, measured, refused where they do not belong."""

from __future__ import annotations

import json
import math
import pickle
import subprocess
import sys
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from uprank import InvalidInputError, MissingDependencyError, Reranker, ScoreKindError
from uprank.calibration import sigmoid
from uprank.calibrations.curves import Interpolated, Logistic
from uprank.calibrations.fitting import fit_curve
from uprank.calibrations.judged import judged_scores
from uprank.calibrator import Calibrator, shipped_calibrator
from uprank.errors import ConfigurationError
from uprank.scorers import CallableScorer, Scores

METHODS = ("platt", "isotonic", "temperature")
LN4 = math.log(4)


def by_hand(**changed: object) -> Calibrator:
    given = {"method": "platt", "curve": Logistic(2.0, -1.0), "model": "m", "kind": "cosine", **changed}
    return Calibrator(**given)


def noisy(slope: float, intercept: float, scores: list[float], each: int = 400) -> tuple[list[float], list[int]]:
    """Scores of which exactly the share that a logistic curve says is relevant."""
    pairs = [(score, n < round(each * sigmoid(slope * score + intercept))) for score in scores for n in range(each)]
    return [score for score, _ in pairs], [int(label) for _, label in pairs]


# --- fitting


def test_platt_by_hand():
    # Told apart without a mistake, so only Platt's targets keep the slope finite: sigmoid(a) = (3 + 1) / (3 + 2).
    calibrator = Calibrator.fit([1, 1, 1, -1, -1, -1], [1, 1, 1, 0, 0, 0], model="m")
    assert calibrator.curve.slope == pytest.approx(LN4, abs=1e-5)
    assert calibrator.curve.intercept == pytest.approx(0.0, abs=1e-6)
    assert calibrator(1.0) == pytest.approx(0.8, abs=1e-6)


def test_temperature_by_hand():
    calibrator = Calibrator.fit(
        [1.0] * 3 + [-1.0] * 3, [1] * 3 + [0] * 3, method="temperature", model="m", kind="logit"
    )
    assert calibrator.curve.slope == pytest.approx(LN4, abs=1e-5)
    assert calibrator(0.0) == 0.5
    assert calibrator(2.0) == pytest.approx(16 / 17, abs=1e-5)


def test_isotonic_by_hand():
    calibrator = Calibrator.fit([1, 2, 3, 4, 5], [0, 1, 0, 1, 1], method="isotonic", model="m")
    # The second and third stand the wrong way round, so they share the mean.
    assert [calibrator(score) for score in (0, 1, 1.5, 2, 2.5, 3, 3.5, 4, 5, 6)] == pytest.approx(
        [0, 0, 0.25, 0.5, 0.5, 0.5, 0.75, 1, 1, 1]
    )


@pytest.mark.parametrize(("slope", "intercept"), [(3.0, -1.0), (0.02, 0.5), (40.0, -20.0)])
def test_platt_finds_the_curve_that_the_data_were_made_of(slope, intercept):
    scores = [(step / 4 - 1.5 - intercept) / slope for step in range(13)]
    calibrator = Calibrator.fit(*noisy(slope, intercept, scores), model="m")
    for score in scores:
        assert calibrator(score) == pytest.approx(sigmoid(slope * score + intercept), abs=0.003)


def test_temperature_finds_the_one_that_the_data_were_made_of():
    scores = [step / 2 for step in range(-8, 9)]
    calibrator = Calibrator.fit(*noisy(0.5, 0.0, scores), method="temperature", model="m", kind="logit")
    assert 1 / calibrator.curve.slope == pytest.approx(2.0, rel=0.01)


@pytest.mark.parametrize("method", ["platt", "isotonic"])
def test_the_unit_of_scores_does_not_matter(method):
    scores, labels = noisy(1.0, 0.0, [-2.0, -1.0, 0.0, 1.0, 2.0], each=50)
    plain = Calibrator.fit(scores, labels, method=method, model="m")
    for unit, zero in ((1e-4, 0.3), (1e5, -7e5)):
        other = Calibrator.fit([score * unit + zero for score in scores], labels, method=method, model="m")
        for score in (-1.7, 0.0, 0.4, 2.0):
            assert other(score * unit + zero) == pytest.approx(plain(score), abs=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_probabilities_are_taken_as_log_odds(method):
    logits, labels = noisy(0.7, 0.0, [-6.0, -2.0, 0.0, 1.0, 5.0], each=50)
    of_logits = Calibrator.fit(logits, labels, method=method, model="m", kind="logit")
    of_probabilities = Calibrator.fit(
        [sigmoid(one) for one in logits], labels, method=method, model="m", kind="probability"
    )
    for logit in (-5.0, -0.3, 3.0):
        assert of_probabilities(sigmoid(logit)) == pytest.approx(of_logits(logit), abs=1e-6)
    assert 0.0 <= of_probabilities(0.0) <= of_probabilities(1.0) <= 1.0


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(-50, 50), st.booleans()), min_size=4, max_size=40), st.sampled_from(METHODS))
def test_whatever_is_fitted_is_a_non_decreasing_probability(pairs, method):
    scores, labels = zip(*pairs, strict=True)
    try:
        calibrator = Calibrator.fit(scores, labels, method=method, model="m")
    except (InvalidInputError, ScoreKindError):
        return
    values = [calibrator(score) for score in sorted([*scores, -1e300, -51.0, 0.0, 51.0, 1e300])]
    assert all(0.0 <= one <= 1.0 for one in values)
    assert all(low <= high for low, high in pairwise(values))
    assert values[0] < values[-1]


@pytest.mark.parametrize("method", METHODS)
def test_scores_that_do_not_tell_relevance_are_an_error(method):
    wrong = ([1.0, 2.0, 3.0, 4.0, -1.0, -3.0], [1, 1, 0, 0, 1, 1])
    for scores, labels in (wrong, ([2.0] * 4, [0, 1, 0, 1]) if method != "temperature" else wrong):
        with pytest.raises(ScoreKindError, match="do not tell relevance"):
            Calibrator.fit(scores, labels, method=method, model="m", kind="logit")


@pytest.mark.parametrize(
    ("scores", "labels", "told"),
    [
        ([1.0, 2.0], [1, 1], "all are of relevant"),
        ([1.0, 2.0], [0, 0], "none are of relevant"),
        ([], [], "nothing to learn"),
        ([1.0, 2.0], [None, None], "nothing to learn"),
        ([1.0, 2.0], [1], "2 scores but 1 labels"),
        ([1.0, math.nan], [1, 0], "Score 1 is nan"),
        ([1.0, math.inf], [1, 0], "Score 1 is inf"),
        ([1.0, None], [1, 0], "Score 1 is None"),
        ([1.0, "2"], [1, 0], "Score 1 is '2'"),
        ([1.0, 2.0], [1, math.nan], "Label 1 is nan"),
        ([1.0, 2.0], ["no", "yes"], "Label 0 is 'no'"),
        ("12", [1, 0], "scores must be a list"),
        (iter([1.0]), [1], "scores must be a list"),
        ([1.0, 2.0], "10", "labels must be a list"),
    ],
)
def test_unfit_data_say_what_is_wrong(scores, labels, told):
    with pytest.raises(InvalidInputError, match=told):
        Calibrator.fit(scores, labels, model="m")


def test_grades_count_from_where_they_are_said_to_and_unjudged_are_left_out():
    judged = judged_scores([1, 2, 3, 4, 5], [0, 1, 2, None, 3], relevant_from=2)
    assert (judged.scores, judged.relevant, judged.positives) == ((1, 2, 3, 5), (False, False, True, True), 2)
    assert judged_scores([1, 2], [0.4, 1]).relevant == (False, True)
    assert judged_scores([1, 2], [False, True]).relevant == (False, True)
    for wrong in (math.nan, "1", True):
        with pytest.raises(InvalidInputError, match="relevant_from"):
            judged_scores([1, 2], [0, 1], relevant_from=wrong)


def test_numpy_arrays_are_lists_too():
    import numpy as np

    judged = judged_scores(np.array([0.5, 1.5], dtype=np.float32), np.array([0, 2]))
    assert (judged.scores, judged.relevant) == ((0.5, 1.5), (False, True))
    assert [type(one) for one in (*judged.scores, *judged.relevant)] == [float, float, bool, bool]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"method": "beta"}, "method must be one of platt, isotonic, temperature; got 'beta'"),
        ({"method": ["platt"]}, "method must be one of"),
        ({"model": None}, "name it"),
        ({"model": ""}, "name it"),
        ({"kind": "cos"}, "kind must be one of"),
        ({"kind": "cosine", "method": "temperature"}, "odds are not even"),
        ({"revision": 3}, "revision must be a string"),
        ({"prompt": b"p"}, "prompt must be a string"),
    ],
)
def test_unfit_options_are_refused_before_the_data_are_looked_at(options, told):
    with pytest.raises(ConfigurationError, match=told):
        Calibrator.fit([1.0, 2.0], [0, 1], **{"model": "m", **options})


def test_what_it_was_fitted_on_is_told_without_the_data():
    scores, labels = [0.1, 0.4, 0.3, 0.9], [0, 1, 0, 1]
    on = Calibrator.fit(scores, labels, model="m").fitted_on
    assert (on.count, on.positives, len(on.digest)) == (4, 2, 64)
    report = Calibrator.fit(scores, labels, model="m").evaluate(scores, labels)
    assert (on.ece, on.brier, on.log_loss) == (report.ece, report.brier, report.log_loss)
    turned = Calibrator.fit(scores[::-1], labels[::-1], model="m").fitted_on
    assert turned.digest == on.digest
    for other in (([0.1, 0.4, 0.3, 0.8], labels), (scores, [0, 1, 1, 1]), (scores[1:], labels[1:])):
        assert Calibrator.fit(*other, model="m").fitted_on.digest != on.digest


def test_fitting_without_scikit_learn_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingDependencyError, match=r'pip install "uprank\[calibration\]"'):
        fit_curve("platt", [0.0, 1.0], [False, True])


# --- rankings


def words(query: str, texts: list[str]) -> list[float]:
    return [float(len(set(query.split()) & set(text.split()))) for text in texts]


QUERIES = ["red fox", "blue whale", "lazy dog"]
DOCUMENTS = [
    ["a fox", "the red fox", "nothing", "the red fox"],
    ["whale blue", "a blue sky", "no"],
    ["dog", "lazy afternoon", "lazy dog here", "x"],
]
LABELS = [[0, 1, 0, 1], [1, None, 0], [1, 0, 1, 0]]


def test_rankings_are_read_by_index_and_tell_model_and_kind():
    rankings = Reranker(words, name="words", score_kind="logit").rank_many(QUERIES, DOCUMENTS)
    judged = judged_scores(rankings, LABELS)
    assert (judged.model, judged.kind) == ("words", "logit")
    expected = [(1, 0), (2, 1), (0, 0), (2, 1), (2, 1), (0, 0), (1, 1), (1, 0), (2, 1), (0, 0)]
    assert sorted(zip(judged.scores, judged.relevant, strict=True)) == sorted(expected)
    calibrator = Calibrator.fit(rankings, LABELS)
    assert (calibrator.model, calibrator.kind, calibrator.fitted_on.count) == ("words", "logit", 10)
    flat = Calibrator.fit([score for score, _ in expected], [label for _, label in expected], model="words")
    assert calibrator(1.0) == pytest.approx(flat(1.0), abs=1e-9)
    assert calibrator.evaluate(rankings, LABELS).count == 10
    assert calibrator.threshold_for(rankings, LABELS, precision=1.0).score == 2.0


def test_a_calibrator_fitted_on_shown_probabilities_takes_the_logits_behind_them():
    def logits(query, texts):
        return Scores(words(query, texts), kind="logit", native="probability")

    rankings = Reranker(logits, name="words").rank_many(QUERIES, DOCUMENTS)
    assert {ranking.score_kind for ranking in rankings} == {"probability"}
    calibrator = Calibrator.fit(rankings, LABELS)
    of_logits = calibrator.for_scores(logits("", []), "words")
    assert of_logits.kind == "logit"
    assert of_logits(2.0) == pytest.approx(calibrator(sigmoid(2.0)), abs=1e-12)
    assert calibrator.for_scores(Scores([], "probability"), "words") == calibrator
    shown = Scores([], "rank", reported=[])
    assert calibrator.for_scores(shown, "words") == calibrator
    assert of_logits.evaluate(rankings, LABELS) == calibrator.evaluate(rankings, LABELS)


def test_rankings_of_different_scorers_or_without_scores_are_refused():
    rankings = Reranker(words, name="words", score_kind="logit").rank_many(QUERIES, DOCUMENTS)
    others = Reranker(words, name="others", score_kind="logit").rank_many(QUERIES, DOCUMENTS)
    ranks = Reranker(words, name="words", score_kind="rank").rank_many(QUERIES, DOCUMENTS)
    for mixed in ([*rankings[:2], others[2]], [*rankings[:2], ranks[2]]):
        with pytest.raises(InvalidInputError, match="Ranking 2 has"):
            judged_scores(mixed, LABELS)

    def fails(query, texts):
        raise OSError("down")

    degraded = Reranker(fails, name="words", score_kind="logit", on_error="passthrough").rank("q", ["a", "b"])
    with pytest.raises(InvalidInputError, match="Ranking 1 is degraded"):
        judged_scores([rankings[0], degraded], LABELS[:2])
    with pytest.raises(InvalidInputError, match=r"Ranking 1.*there are 1 labels"):
        judged_scores(rankings[:2], [LABELS[0], [1]])
    with pytest.raises(InvalidInputError, match="labels of ranking 0 must be a list"):
        judged_scores(rankings[:1], [1])
    with pytest.raises(ConfigurationError, match="rankings of words, not of fast"):
        Calibrator.fit(rankings, LABELS, model="fast")
    with pytest.raises(ConfigurationError, match="'logit' scores, not 'cosine'"):
        Calibrator.fit(rankings, LABELS, kind="cosine")
    calibrator = Calibrator.fit(rankings, LABELS)
    with pytest.raises(ScoreKindError, match="scores of words, not others"):
        calibrator.evaluate(others, LABELS)
    with pytest.raises(ScoreKindError, match="'logit', not 'rank'"):
        calibrator.threshold_for(ranks, LABELS, recall=0.5)


# --- files


@pytest.mark.parametrize("method", METHODS)
def test_a_file_brings_back_the_very_same_calibrator(method, tmp_path):
    scores, labels = noisy(1.3, 0.1, [-3.0, -0.7, 0.0, 0.9, 3.1], each=30)
    calibrator = Calibrator.fit(
        scores, labels, method=method, model="m", kind="logit", revision="abc", prompt='say "yes" – or no'
    )
    path = tmp_path / "calibrator.json"
    calibrator.save(path)
    loaded = Calibrator.load(str(path))
    assert loaded == calibrator
    assert hash(loaded) == hash(calibrator)
    assert [loaded(one) for one in (-9.0, 0.1, 1.23)] == [calibrator(one) for one in (-9.0, 0.1, 1.23)]
    assert pickle.loads(pickle.dumps(calibrator)) == calibrator  # noqa: S301 - just made
    content = json.loads(path.read_text(encoding="utf-8"))
    assert (content["format"], content["version"], content["method"]) == ("uprank-calibrator", 1, method)
    assert (content["model"], content["revision"], content["kind"]) == ("m", "abc", "logit")
    assert content["prompt"] == 'say "yes" – or no'
    assert content["fitted_on"]["count"] == 150
    assert repr(loaded) == f"<Calibrator of m by {method}>"


def test_one_made_by_hand_is_kept_too(tmp_path):
    by_hand().save(tmp_path / "c.json")
    assert Calibrator.load(tmp_path / "c.json") == by_hand()


def test_applying_needs_the_standard_library_alone(tmp_path):
    Calibrator.fit([1.0, 2.0, 3.0], [0, 1, 1], model="m").save(tmp_path / "c.json")
    program = """
import sys
from uprank.calibrator import Calibrator
calibrator = Calibrator.load(sys.argv[1])
assert 0 < calibrator(1.0) < calibrator(3.0) < 1
assert calibrator.evaluate([1.0, 3.0], [0, 1]).count == 2
heavy = {"numpy", "scipy", "sklearn", "torch"} & set(sys.modules)
assert not heavy, heavy
"""
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "c.json")], check=True, timeout=60)


GOOD = {
    "format": "uprank-calibrator",
    "version": 1,
    "method": "platt",
    "parameters": {"slope": 2.0, "intercept": -1.0},
    "model": "m",
    "kind": "cosine",
    "revision": None,
    "prompt": None,
    "fitted_on": None,
}


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("", "no calibrator that can be read"),
        ("{", "no calibrator that can be read"),
        ("[]", "no file of a calibrator"),
        ("3", "no file of a calibrator"),
        ('{"slope": 1}', "no file of a calibrator"),
        ({"version": 2}, r"version is 2, and this uprank reads version 1"),
        ({"version": None}, "version is None"),
        ({"method": "spline"}, "method must be one of platt, isotonic, temperature; got 'spline'"),
        ({"parameters": {"slope": 1.0}}, "KeyError"),
        ({"parameters": {"slope": -1.0, "intercept": 0.0}}, "slope above 0"),
        ({"parameters": {"slope": math.nan, "intercept": 0.0}}, "slope above 0"),
        ({"parameters": {"slope": "2", "intercept": 0.0}}, "made of numbers"),
        ({"parameters": {"slope": True, "intercept": 0.0}}, "made of numbers"),
        ({"parameters": {"slope": 10**400, "intercept": 0}}, "no calibrator that can be read"),
        ({"parameters": None}, "TypeError"),
        ({"method": "isotonic", "parameters": {"scores": [0, 1], "probabilities": [0.9, 0.1]}}, "must not decrease"),
        ({"method": "isotonic", "parameters": {"scores": 1, "probabilities": 2}}, "TypeError"),
        ({"method": "temperature", "parameters": {"inverse_temperature": 1.0}}, "odds are not even"),
        ({"model": 3}, "of one model"),
        ({"kind": "zeal"}, "kind must be one of"),
        ({"fitted_on": {"rows": 3}}, "TypeError"),
    ],
)
def test_a_file_that_is_no_calibrator_is_refused_by_name(content, told, tmp_path):
    path = tmp_path / "broken.json"
    path.write_text(content if isinstance(content, str) else json.dumps({**GOOD, **content}))
    with pytest.raises(ConfigurationError, match=rf"(?s)broken\.json.*{told}"):
        Calibrator.load(path)
    path.write_text(json.dumps(GOOD))
    assert Calibrator.load(path) == by_hand()


def test_bytes_that_are_no_text_and_files_that_are_not_there(tmp_path):
    (tmp_path / "c.json").write_bytes(b"\xff\xfe{}")
    with pytest.raises(ConfigurationError, match="UnicodeDecodeError"):
        Calibrator.load(tmp_path / "c.json")
    with pytest.raises(FileNotFoundError):
        Calibrator.load(tmp_path / "none.json")


# --- refusal


def test_another_models_scores_are_refused_and_both_are_named():
    calibrator = by_hand(model="cross-encoder:a", kind="logit", revision="r1", prompt="judge facts")
    calibrator.check("cross-encoder:a")
    calibrator.check("cross-encoder:a", kind="probability", revision="r1", prompt="judge facts")
    for model, context, told in (
        ("cross-encoder:b", {}, "scores of cross-encoder:a, not cross-encoder:b"),
        ("cross-encoder:a", {"revision": "r2"}, "cross-encoder:a of revision r1, not r2"),
        ("cross-encoder:a", {"prompt": None}, "with the prompt 'judge facts', not None"),
        ("cross-encoder:a", {"prompt": "other"}, "with the prompt 'judge facts', not 'other'"),
        ("cross-encoder:a", {"kind": "cosine"}, "that are 'logit', not 'cosine'"),
        ("cross-encoder:a", {"kind": "rank"}, "that are 'logit', not 'rank'"),
    ):
        with pytest.raises(ScoreKindError, match=f"{told}.*Calibrator.fit"):
            calibrator.check(model, **context)


def test_what_is_not_known_is_not_checked():
    by_hand(kind=None).check("m", kind="rank", revision="r")
    by_hand(revision="r").check("m")
    by_hand(prompt="p").check("m")
    assert by_hand(kind=None).for_scores(Scores([], "rank"), "m") == by_hand(kind=None)


def test_a_preset_stands_for_its_model():
    calibrator = by_hand(model="multilingual")
    assert calibrator.model == "cross-encoder:BAAI/bge-reranker-v2-m3"
    calibrator.check("multilingual")
    calibrator.check("cross-encoder:BAAI/bge-reranker-v2-m3")
    with pytest.raises(ScoreKindError):
        calibrator.check("fast")


def test_a_score_that_is_no_number_has_no_probability():
    with pytest.raises(InvalidInputError, match="NaN"):
        by_hand()(math.nan)
    assert (by_hand()(-math.inf), by_hand()(math.inf)) == (0.0, 1.0)


def test_a_method_and_its_curve_belong_together():
    with pytest.raises(ConfigurationError, match="isotonic has no curve of Logistic"):
        by_hand(method="isotonic")
    with pytest.raises(ConfigurationError, match="platt has no curve of Interpolated"):
        by_hand(curve=Interpolated((0.0,), (0.5,)))


# --- the one that is shipped


def test_the_shipped_one_is_the_embedded_models():
    calibrator = shipped_calibrator("embedded")
    assert (calibrator.model, calibrator.kind, calibrator.prompt) == ("embedded", "cosine", None)
    assert 0.0 < calibrator(-1.0) < 0.01 < calibrator(0.6) < calibrator(1.0) < 1.0
    assert shipped_calibrator("embedded") is calibrator
    from uprank.scorers.local.embedded import EmbeddedScorer

    assert calibrator.revision == EmbeddedScorer()._digest()
    assert CallableScorer(words, name="x").calibrated is False


def test_the_file_that_is_shipped_holds_numbers_and_names_alone():
    content = (Path(sys.modules["uprank"].__file__).parent / "calibrations" / "embedded.json").read_text()
    assert len(content) < 1_000
    assert json.loads(content)["fitted_on"]["count"] > 4_000
