"""Fusion set up wrongly, and with members that fail."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from table_scorer import Ask, TableScorer, both_ways, scored
from uprank.errors import (
    ConfigurationError,
    InvalidScoresError,
    ScorerError,
    ServerError,
)
from uprank.scorers.base import Scorer, ScoreRequest, Scores
from uprank.scorers.combined.fusion import Fusion

TEXTS = ["a", "b", "c", "d"]
FIRST = dict(zip(TEXTS, [4.0, 3.0, 2.0, 1.0], strict=True))  # a b c d
SECOND = dict(zip(TEXTS, [1.0, 2.0, 4.0, 3.0], strict=True))  # c d b a
LIKELY = dict(zip(TEXTS, [0.9, 0.5, 0.3, 0.1], strict=True))
UNLIKELY = dict(zip(TEXTS, [0.1, 0.2, 0.4, 0.1], strict=True))


def one(scorer: Scorer, retrieval_scores: Sequence[float] | None = None, texts: Sequence[str] = TEXTS) -> Scores:
    return scored(scorer.score_many([ScoreRequest("q", texts, None, retrieval_scores)])[0])


def probable(name: str, table: dict[str, float], **options: object) -> TableScorer:
    return TableScorer(name, table, kind="probability", **options)  # type: ignore[arg-type]  # as given


SETUPS = [
    ({"models": "embedded"}, "list of models"),
    ({"models": []}, "needs two voters"),
    ({"models": [TableScorer("x", FIRST)]}, "needs two voters, got 1 models.*retrieval_weight"),
    ({"method": "mean"}, "method must be one of 'rrf', 'weighted'"),
    ({"on_error": "keep"}, "on_error must be one of"),
    ({"weights": [1]}, "as many as the models: 2, got 1"),
    ({"weights": [1, 0]}, "above 0"),
    ({"weights": [1, -1]}, "at least 0"),
    ({"weights": [1, float("nan")]}, "finite"),
    ({"weights": [1, True]}, "finite"),
    ({"weights": "12"}, "list of numbers"),
    ({"weights": 2}, "list of numbers"),
    ({"k": -1}, "k must be"),
    ({"k": "60"}, "k must be"),
    ({"retrieval_weight": -0.5}, "retrieval_weight must be"),
    ({"retrieval_weight": float("inf")}, "retrieval_weight must be"),
    ({"retrieval_calibrator": abs}, "retrieval_calibrator= takes"),
    ({"retrieval_calibrator": abs, "retrieval_weight": 1}, "retrieval_calibrator= takes"),
    ({"retrieval_calibrator": abs, "method": "weighted"}, "retrieval_calibrator= takes"),
]


@pytest.mark.parametrize(("options", "problem"), SETUPS)
def test_set_up_wrongly(options: dict[str, object], problem: str):
    given: dict[str, object] = {"models": [TableScorer("x", FIRST), TableScorer("y", SECOND)]}
    with pytest.raises(ConfigurationError, match=problem):
        Fusion(**(given | options))  # type: ignore[arg-type]  # wrong on purpose


DOWN = ServerError("the service is down")


class TestFaults:
    @pytest.mark.parametrize("method", ["rrf", "weighted"])
    @pytest.mark.parametrize("failing", [0, 1, 2])
    @both_ways
    def test_raised_for_the_query_that_fails_alone(self, failing: int, method: str, ask: Ask):
        members = [probable(name, table) for name, table in (("x", LIKELY), ("y", UNLIKELY), ("z", LIKELY))]
        members[failing].fails["bad"] = DOWN
        fusion = Fusion(members, method=method)  # type: ignore[arg-type]  # one of the two
        bad, good = ask(fusion, [ScoreRequest("bad", TEXTS), ScoreRequest("good", TEXTS)])
        assert bad is DOWN
        assert len(scored(good).values) == 4

    @pytest.mark.parametrize("method", ["rrf", "weighted"])
    @pytest.mark.parametrize("failing", [0, 1, 2])
    @both_ways
    def test_skipped(self, failing: int, method: str, ask: Ask):
        members = [probable(name, table) for name, table in (("x", LIKELY), ("y", UNLIKELY), ("z", LIKELY))]
        weights = [1.0, 2.0, 3.0]
        members[failing].fails["*"] = DOWN
        fusion = Fusion(members, method=method, weights=weights, on_error="skip")  # type: ignore[arg-type]  # likewise
        scores = scored(ask(fusion, [ScoreRequest("q", TEXTS)])[0])
        left = [number for number in range(3) if number != failing]
        others = Fusion(
            [members[number] for number in left],
            method=method,  # type: ignore[arg-type]  # likewise
            weights=[weights[number] for number in left],
        )
        assert list(scores.values) == list(one(others).values)
        assert scores.degraded
        name = "xyz"[failing]
        assert [(attempt.model, attempt.kind) for attempt in scores.attempts] == [(name, "ServerError")]
        assert scores.warnings == (f"{name} failed, so the order is that of the other voters: the service is down",)

    @both_ways
    def test_all_models_failing_is_an_error_though_the_first_stage_could_vote(self, ask: Ask):
        members = [
            TableScorer("x", FIRST, fails={"*": DOWN}),
            TableScorer("y", SECOND, fails={"q": ScorerError("no y")}),
        ]
        fusion = Fusion(members, retrieval_weight=1, on_error="skip")
        q, p = ask(fusion, [ScoreRequest("q", TEXTS), ScoreRequest("p", TEXTS)])
        assert isinstance(q, ScorerError)
        assert "the service is down" in str(q)
        assert "no y" in str(q)
        assert scored(p).degraded
        alone = Fusion([members[0]], retrieval_weight=1, on_error="skip")
        assert ask(alone, [ScoreRequest("q", TEXTS)]) == [DOWN]

    def test_a_calibrator_that_fails_is_its_members_failure(self):
        broken = TableScorer("x", FIRST, calibrator=lambda value: 2.0)
        with pytest.raises(ScorerError, match="not in"):
            Fusion([broken, probable("y", LIKELY)], method="weighted").score("q", TEXTS)
        scores = one(Fusion([broken, probable("y", LIKELY)], method="weighted", on_error="skip"))
        assert list(scores.values) == list(LIKELY.values())

    @pytest.mark.parametrize("given", [[1.0, 2.0, float("nan"), 0.0], [1.0, 2.0]])
    def test_unusable_retrieval_scores(self, given: list[float]):
        fusion = Fusion([TableScorer("x", FIRST)], retrieval_weight=1)
        bad, good = fusion.score_many([ScoreRequest("q", TEXTS, None, given), ScoreRequest("q", TEXTS)])
        assert isinstance(bad, InvalidScoresError)
        assert "the first stage" in str(bad)
        scored(good)

    def test_a_retrieval_calibrator_that_fails(self):
        fusion = Fusion([probable("x", LIKELY)], method="weighted", retrieval_weight=1, retrieval_calibrator=abs)
        (outcome,) = fusion.score_many([ScoreRequest("q", TEXTS, None, [1.0, 2.0, 3.0, 4.0])])
        assert isinstance(outcome, ScorerError)
        assert "first stage" in str(outcome)

    def test_what_members_tell_is_told(self):
        members = [
            TableScorer("x", FIRST, degraded=True, warnings=("tired",), cost=0.25),
            TableScorer("y", SECOND, warnings=("tired",), cost=0.5),
        ]
        scores = one(Fusion(members))
        assert scores.degraded
        assert scores.warnings == ("x: tired", "y: tired")
        assert scores.usage.cost == 3.0
