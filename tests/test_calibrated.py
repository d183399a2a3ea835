"""A calibrator tied to a scorer, on its own and inside compositions; the embedded model's own."""

from __future__ import annotations

import asyncio
import pickle
from collections.abc import Sequence

import pytest

from uprank import Reranker, ScoreKindError, ServerError
from uprank.calibrations.curves import Logistic
from uprank.calibrator import Calibrator, shipped_calibrator
from uprank.errors import ConfigurationError, ScorerError
from uprank.scorers.base import Outcome, ScoreKind, Scorer, ScoreRequest, Scores
from uprank.scorers.combined.calibrated import Calibrated
from uprank.scorers.combined.fallback import Fallback
from uprank.scorers.combined.fusion import Fusion

TEXTS = ["a", "b", "c"]
CURVE = Logistic(1.0, -2.0)
SHOWN = [CURVE(value) for value in (1.0, 3.0, 2.0)]


class Table(Scorer):
    """Reads scores from a table; or fails."""

    def __init__(self, name: str, kind: ScoreKind, table: dict[str, float], error: Exception | None = None) -> None:
        self.name, self.score_kind, self.table, self.error = name, kind, table, error

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        if self.error is not None:
            raise self.error
        return Scores([self.table[text] for text in texts], self.score_kind)


class Judge(Scorer):
    """Takes an instruction, and scores by length."""

    name = "judge"
    score_kind = "logit"
    accepts_instruction = True

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return Scores([float(len(text)) for text in texts], "logit", native="probability")


def table(kind: ScoreKind = "cosine", name: str = "table") -> Table:
    return Table(name, kind, dict(zip(TEXTS, [1.0, 3.0, 2.0], strict=True)))


def down(name: str) -> Table:
    return Table(name, "logit", {}, ServerError("down"))


def fitted(model: str = "table", kind: str = "rank", prompt: str | None = None) -> Calibrator:
    return Calibrator("platt", CURVE, model, kind, prompt=prompt)


def first(outcomes: Sequence[Outcome]) -> Scores:
    (outcome,) = outcomes
    assert isinstance(outcome, Scores), outcome
    return outcome


@pytest.mark.parametrize("calibrator", [fitted(), CURVE], ids=["Calibrator", "function"])
def test_scores_get_the_calibrator_and_stay_as_they_are(calibrator):
    scorer = Calibrated(table("rank"), calibrator)
    for scores in (
        first(scorer.score_many([ScoreRequest("q", TEXTS)])),
        first(asyncio.run(scorer.ascore_many([ScoreRequest("q", TEXTS)]))),
    ):
        assert scores.values == [1.0, 3.0, 2.0]
        assert [scores.calibrator(value) for value in scores.values] == SHOWN
    assert (scorer.name, scorer.score_kind, scorer.calibrated) == ("table", "rank", True)
    plain = Reranker(scorer).rank("q", TEXTS)
    assert ([hit.score for hit in plain], plain.score_kind) == ([3.0, 2.0, 1.0], "rank")


def test_a_ranking_by_ranks_gets_probabilities_and_a_threshold():
    ranking = Reranker(Calibrated(table("rank"), fitted()), score="probability", threshold=0.5).rank("q", TEXTS)
    assert [(hit.index, hit.score) for hit in ranking] == [(1, CURVE(3.0)), (2, 0.5)]
    assert (ranking.score_kind, ranking.model) == ("probability", "table")


def test_a_weighted_fusion_can_use_a_model_that_gives_no_probabilities():
    other = Table("other", "probability", dict(zip(TEXTS, [0.9, 0.1, 0.2], strict=True)))
    with pytest.raises(ScoreKindError, match="Calibrated"):
        Fusion([table("rank"), other], method="weighted")
    fused = first(Fusion([Calibrated(table("rank"), fitted()), other], method="weighted").score_many(
        [ScoreRequest("q", TEXTS)]
    ))  # fmt: skip
    expected = [(shown + by) / 2 for shown, by in zip(SHOWN, (0.9, 0.1, 0.2), strict=True)]
    shown = fused.reported if fused.reported is not None else fused.values
    assert list(shown) == pytest.approx(expected)


def test_another_models_calibrator_is_refused_when_they_are_tied():
    with pytest.raises(ScoreKindError, match="scores of bm25, not table"):
        Calibrated(table(), fitted("bm25"))
    scorer = Calibrated(table("rank"), fitted())
    with pytest.raises(ScoreKindError, match="scores of table, not other"):
        scorer.with_members([table(name="other")])
    again = scorer.with_members([table("rank")])
    assert first(again.score_many([ScoreRequest("q", TEXTS)])).calibrator == fitted()


def test_a_reranker_refuses_another_models_calibrator():
    with pytest.raises(ScoreKindError, match="scores of other, not table"):
        Reranker(table("rank"), score="probability", calibrator=fitted("other")).rank("q", TEXTS)
    own = Reranker(table("rank"), score="probability", calibrator=fitted())
    assert [hit.score for hit in own.rank("q", TEXTS)] == sorted(SHOWN, reverse=True)


def test_another_kind_of_score_is_refused_when_it_shows():
    with pytest.raises(ScoreKindError, match="that are 'rank', not 'cosine'"):
        Reranker(Calibrated(table("cosine"), fitted(kind="rank")), score="probability").rank("q", TEXTS)


def test_logits_and_probabilities_stand_for_each_other():
    scores = first(Calibrated(Judge(), fitted("judge", "probability")).score_many([ScoreRequest("q", ["xxx"])]))
    assert scores.calibrator(3.0) == pytest.approx(CURVE(3.0))


def test_a_calibrator_is_of_one_instruction():
    judge = Calibrated(Judge(), fitted("judge", "logit", prompt="be strict"))
    ranking = Reranker(judge, score="probability", instruction="be strict").rank("q", ["xxx"])
    assert ranking[0].score == pytest.approx(CURVE(3.0))
    for instruction in (None, "be kind"):
        with pytest.raises(ScoreKindError, match="with the prompt 'be strict', not"):
            Reranker(judge, score="probability", instruction=instruction).rank("q", ["xxx"])


def test_behind_a_fallback_it_is_not_applied_to_the_stand_ins_scores():
    chain = Fallback([down("first"), table("logit", name="second")])
    scores = first(Calibrated(chain, fitted("first", "logit")).score_many([ScoreRequest("q", TEXTS)]))
    assert scores.model == "second"
    assert scores.calibrator is None
    ranking = Reranker(Calibrated(chain, fitted("first", "logit")), score="probability").rank("q", TEXTS)
    assert ranking[0].score == pytest.approx(Logistic(1.0)(3.0))  # its own sigmoid


def test_an_error_goes_through():
    broken = down("table")
    (outcome,) = Calibrated(broken, fitted()).score_many([ScoreRequest("q", TEXTS)])
    assert isinstance(outcome, ScorerError)


@pytest.mark.parametrize("wrong", [None, 0.5, "platt", Calibrator])
def test_a_calibrator_can_be_called(wrong):
    with pytest.raises(ConfigurationError, match="calibrator must be"):
        Calibrated(table(), wrong)


def test_it_can_be_sent_to_another_process():
    scorer = pickle.loads(pickle.dumps(Calibrated("embedded", shipped_calibrator("embedded"))))  # noqa: S301 - our own
    assert (scorer.name, scorer.calibrator) == ("embedded", shipped_calibrator("embedded"))
    assert scorer.identity() == Calibrated("embedded", lambda value: 0.5).identity()


# --- the embedded model


def test_the_embedded_model_gives_probabilities_out_of_the_box():
    reranker = Reranker("embedded")
    query, texts = (
        "who wrote the opera Carmen?",
        ["Carmen is an opera by Georges Bizet.", "Bread is baked.", "The opera."],
    )
    plain = reranker.rank(query, texts)
    ranking = Reranker(reranker.scorer, score="probability").rank(query, texts)
    assert (plain.score_kind, ranking.score_kind) == ("cosine", "probability")
    assert [hit.index for hit in ranking] == [hit.index for hit in plain]
    shipped = shipped_calibrator("embedded")
    assert [hit.score for hit in ranking] == [shipped(hit.score) for hit in plain]
    assert ranking[0].score > 0.4 > 0.05 > ranking[-1].score
    own = Calibrated(reranker.scorer, Calibrator("platt", Logistic(3.0), "embedded", "cosine"))
    assert Reranker(own, score="probability").rank(query, texts)[0].score == Logistic(3.0)(plain[0].score)
