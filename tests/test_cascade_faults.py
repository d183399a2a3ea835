"""Cascades set up wrongly, with stages that fail, and within a budget."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Sequence

import pytest

from table_scorer import Ask, Clock, TableScorer, both_ways, order, scored
from uprank.errors import (
    ConfigurationError,
    ScorerError,
    ServerError,
)
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.scorers.combined.cascade import Cascade
from uprank.scorers.combined.spending import Measured
from uprank.scorers.evidence import Evidence

TEXTS = ["a", "b", "c", "d", "e"]
CHEAP = dict(zip(TEXTS, [1.0, 5.0, 3.0, 4.0, 2.0], strict=True))  # b d c e a
DEAR = dict(zip(TEXTS, [9.0, 1.0, 3.0, 2.0, 8.0], strict=True))  # a e c d b


def one(scorer: Scorer, query: str = "q", texts: Sequence[str] = TEXTS) -> Scores:
    return scored(scorer.score_many([ScoreRequest(query, texts)])[0])


SETUPS = [
    ({"keep": []}, "2 models need 1 numbers, got 0"),
    ({"keep": [3, 2]}, "2 models need 1 numbers, got 2"),
    ({"keep": [0]}, "at least 1"),
    ({"keep": [-1]}, "at least 1"),
    ({"keep": 3}, "list of whole numbers"),
    ({"keep": "3"}, "list of whole numbers"),
    ({"keep": [True]}, "list of whole numbers"),
    ({"keep": [2.5]}, "list of whole numbers"),
    ({"models": "embedded"}, "list of models"),
    ({"models": 3}, "list of models"),
    ({"models": [TableScorer("x", CHEAP)], "keep": []}, "at least two models"),
    ({"models": [TableScorer("x", CHEAP)] * 3, "keep": [2, 3]}, "must not rise"),
    ({"scores": "logit"}, "scores must be one of 'rank', 'probability'"),
    ({"on_stage_error": "skip"}, "on_stage_error must be one of"),
    ({"max_ms": 0}, "max_ms must be"),
    ({"max_ms": True}, "max_ms must be"),
    ({"max_ms": float("inf")}, "max_ms must be"),
    ({"max_cost": -1.0}, "max_cost must be"),
    ({"max_cost": "1"}, "max_cost must be"),
]


@pytest.mark.parametrize(("options", "problem"), SETUPS)
def test_set_up_wrongly(options: dict[str, object], problem: str):
    given: dict[str, object] = {"models": [TableScorer("x", CHEAP), TableScorer("y", DEAR)], "keep": [3]}
    with pytest.raises(ConfigurationError, match=problem):
        Cascade(**(given | options))  # type: ignore[arg-type]  # wrong on purpose


DOWN = ServerError("the service is down")


class TestFaults:
    @pytest.mark.parametrize("stage", [0, 1, 2])
    @both_ways
    def test_raised_for_the_query_that_fails_alone(self, stage: int, ask: Ask):
        models = [TableScorer(name, table) for name, table in (("x", CHEAP), ("y", DEAR), ("z", CHEAP))]
        models[stage].fails["bad"] = DOWN
        bad, good = ask(Cascade(models, [3, 2]), [ScoreRequest("bad", TEXTS), ScoreRequest("good", TEXTS)])
        assert bad is DOWN
        assert order(scored(good), TEXTS) == "dcbea"
        later = [request.query for model in models[stage + 1 :] for call in model.calls for request in call]
        assert set(later) <= {"good"}

    @pytest.mark.parametrize(("stage", "left"), [(0, "cabde"), (1, "bdcea"), (2, "cdbea")])
    @both_ways
    def test_kept_order_of_the_stages_before(self, stage: int, left: str, ask: Ask):
        models = [TableScorer(name, table) for name, table in (("x", CHEAP), ("y", DEAR), ("z", CHEAP))]
        models[stage].fails["*"] = DOWN
        cascade = Cascade(models, [3, 2], on_stage_error="keep")
        scores = scored(ask(cascade, [ScoreRequest("q", TEXTS)])[0])
        assert order(scores, TEXTS) == left
        assert scores.degraded
        assert [(attempt.model, attempt.kind) for attempt in scores.attempts] == [("xyz"[stage], "ServerError")]
        before = "of the stages before it" if stage else "in which the documents were given"
        assert scores.warnings == (f"{'xyz'[stage]} failed, so the order is that {before}: the service is down",)
        assert stage not in [known.stage for known in scores.evidence or ()]

    def test_documents_that_no_stage_has_scored_show_nothing(self):
        models = [TableScorer("x", CHEAP, fails={"*": DOWN}), TableScorer("y", DEAR)]
        scores = one(Cascade(models, [2], scores="probability", on_stage_error="keep"))
        assert order(scores, TEXTS) == "abcde"
        assert scores.reported is not None
        assert [score is None for score in scores.reported] == [False, False, True, True, True]
        assert (scores.evidence or ())[4] == Evidence()

    @both_ways
    def test_all_stages_failing_is_an_error(self, ask: Ask):
        models = [TableScorer("x", CHEAP, fails={"*": DOWN}), TableScorer("y", DEAR, fails={"q": ScorerError("no y")})]
        q, p = ask(Cascade(models, [2], on_stage_error="keep"), [ScoreRequest("q", TEXTS), ScoreRequest("p", TEXTS)])
        assert isinstance(q, ScorerError)
        assert "the service is down" in str(q)
        assert "no y" in str(q)
        assert order(scored(p), TEXTS) == "abcde"

    @pytest.mark.parametrize(
        "table", [{**DEAR, "b": float("nan")}, {}, {**DEAR, "b": "high"}], ids=["nan", "key error", "no number"]
    )
    def test_an_unusable_answer_is_a_failure(self, table: dict[str, float]):
        class Raw(TableScorer):
            def score_many(self, requests: Sequence[ScoreRequest]) -> list[Outcome]:
                return [Scores([table[text] for text in request.texts], "logit") for request in requests]

        models = [TableScorer("x", CHEAP), Raw("y", {})]
        with pytest.raises(ScorerError, match=r"^y "):
            Cascade(models, [3]).score("q", TEXTS)
        assert order(one(Cascade(models, [3], on_stage_error="keep")), TEXTS) == "bdcea"

    def test_a_calibrator_that_fails_is_a_failure(self):
        broken = TableScorer("y", DEAR, calibrator=lambda value: 2.0)
        cascade = Cascade([TableScorer("x", CHEAP), broken], [3], scores="probability", on_stage_error="keep")
        scores = one(cascade)
        assert order(scores, TEXTS) == "bdcea"
        assert scores.degraded
        cascade = Cascade([TableScorer("x", CHEAP), broken], [3], scores="probability")
        with pytest.raises(ScorerError, match="not in"):
            cascade.score("q", TEXTS)

    def test_what_a_member_tells_is_told(self):
        tired = TableScorer("y", DEAR, degraded=True, warnings=("ran out of steam",))
        scores = one(Cascade([TableScorer("x", CHEAP), tired], [2]))
        assert scores.degraded
        assert scores.warnings == ("y: ran out of steam",)


HUNDRED = [str(number) for number in range(100)]


class TestBudget:
    def stages(self, clock: Clock) -> tuple[TableScorer, TableScorer, TableScorer]:
        """Of 1 ms, 20 ms and 100 ms a document."""
        x = TableScorer("x", {str(n): -float(n) for n in range(100)}, clock=clock, seconds=0.001)
        y = TableScorer("y", x.table, clock=clock, seconds=0.02)
        z = TableScorer("z", x.table, clock=clock, seconds=0.1)
        return x, y, z

    def test_time_decides_how_many_go_on(self):
        clock = Clock()
        x, y, z = self.stages(clock)
        cascade = Cascade([x, y, z], [50, 10], max_ms=1_100, clock=clock)
        assert one(cascade, texts=HUNDRED).warnings == ()
        assert [len(texts) for texts in y.texts + z.texts] == [50, 10]  # never used before: as keep says
        scores = one(cascade, texts=HUNDRED)
        # 100 ms are used, 1,000 left; 50 * 20 ms + 10 * 100 ms would take 2,000: so half of each.
        assert [len(texts) for texts in y.texts[1:] + z.texts[1:]] == [25, 5]
        assert clock.now == pytest.approx(1_000 + 2.1 + 1.1)
        assert scores.warnings == (
            "The budget sufficed for 25 of 50 documents with y.",
            "The budget sufficed for 5 of 10 documents with z.",
        )
        assert not scores.degraded

    def test_enough_time_changes_nothing(self):
        clock = Clock()
        _, y, z = stages = self.stages(clock)
        cascade = Cascade(stages, [50, 10], max_ms=2_101, clock=clock)
        for _ in range(3):
            one(cascade, texts=HUNDRED)
        assert [len(texts) for texts in y.texts + z.texts] == [50] * 3 + [10] * 3

    def test_never_less_than_one_while_anything_is_left(self):
        clock = Clock()
        _, y, z = stages = self.stages(clock)
        cascade = Cascade(stages, [50, 10], max_ms=121, clock=clock)
        one(cascade, texts=HUNDRED)
        one(cascade, texts=HUNDRED)
        assert (len(y.texts[1]), len(z.texts[1])) == (1, 1)

    def test_where_nothing_is_left_the_rest_is_skipped(self):
        clock = Clock()
        _, y, z = stages = self.stages(clock)
        cascade = Cascade(stages, [50, 10], max_ms=100, clock=clock)
        one(cascade, texts=HUNDRED)
        scores = one(cascade, texts=HUNDRED)
        assert (len(y.calls), len(z.calls)) == (1, 1)
        assert scores.degraded
        assert scores.warnings == ("Nothing was left of max_ms=100 for y, z: the order is that of the stages before.",)
        assert {known.stage for known in scores.evidence or ()} == {0}

    def test_a_batch_has_a_budget_for_each_query(self):
        clock = Clock()
        _, y, _ = stages = self.stages(clock)
        cascade = Cascade(stages, [50, 10], max_ms=2_101, clock=clock)
        for _ in range(2):
            cascade.score_many([ScoreRequest(query, HUNDRED) for query in "pq"])
        assert [len(texts) for texts in y.texts] == [50] * 4

    def test_loading_is_forgotten_and_what_changes_is_followed(self):
        measured = Measured(1)
        assert measured.seconds(0) is None
        assert not measured.used(0)
        measured.note(0, 10, 30.0, None)
        assert measured.seconds(0) == 3.0
        measured.note(0, 10, 1.0, None)
        assert measured.seconds(0) == pytest.approx(0.1)  # the first call loaded the model
        for _ in range(30):
            measured.note(0, 10, 2.0, 5.0)
        assert measured.seconds(0) == pytest.approx(0.2, rel=0.01)
        assert measured.cost(0) == 0.5

    def test_a_stage_gets_no_more_than_the_one_before_it(self):
        clock = Clock()
        _, y, z = stages = self.stages(clock)
        cascade = Cascade(stages, [50, 50], max_ms=1_300, clock=clock)
        one(cascade, texts=HUNDRED)
        y.seconds = 0.0  # so that there is time again for all that z is to score
        z.seconds = 0.0
        one(cascade, texts=HUNDRED)
        assert [len(texts) for texts in y.texts + z.texts] == [50, 10, 50, 10]

    def test_a_failure_teaches_nothing(self):
        clock = Clock()
        _, y, _ = stages = self.stages(clock)
        cascade = Cascade(stages, [50, 10], max_ms=1_100, clock=clock, on_stage_error="keep")
        y.fails["bad"], y.seconds = DOWN, 30.0
        cascade.score_many([ScoreRequest("bad", HUNDRED), ScoreRequest("good", HUNDRED)])
        assert cascade._measured.seconds(1) is None
        assert cascade._measured.used(1)

    def test_money_decides_too_and_what_costs_nothing_is_not_held_back(self):
        table = {str(n): -float(n) for n in range(100)}
        free, dear = TableScorer("free", table), TableScorer("dear", table, cost=0.01)
        last = TableScorer("last", table, cost=0.05)
        cascade = Cascade([dear, free, last], [50, 10], max_cost=1.2)
        one(cascade, texts=HUNDRED)
        scores = one(cascade, texts=HUNDRED)
        assert [len(texts) for texts in free.texts + last.texts] == [50, 50, 10, 4]  # 0.2 is left for the last
        assert scores.usage.cost == pytest.approx(1.2)
        spent = Cascade([dear, free, last], [50, 10], max_cost=1.0)
        one(spent, texts=HUNDRED)
        scores = one(spent, texts=HUNDRED)
        assert len(free.texts[-1]) == 50
        assert scores.warnings == ("Nothing was left of max_cost=1 for last: the order is that of the stages before.",)

    def test_a_budget_of_money_that_nobody_counts_is_told(self):
        cascade = Cascade([TableScorer("x", CHEAP), TableScorer("y", DEAR)], [3], max_cost=1)
        assert one(cascade).warnings == ("max_cost had no effect: no model of the cascade says what it costs.",)

    def test_copies_begin_anew(self):
        clock = Clock()
        cascade = Cascade(self.stages(clock), [50, 10], max_ms=100, clock=clock)
        one(cascade, texts=HUNDRED)
        assert cascade._measured.used(1)
        for again in (
            pickle.loads(pickle.dumps(cascade)),  # noqa: S301 - our own bytes
            copy.deepcopy(cascade),
            cascade.with_members(cascade.members),
        ):
            assert not again._measured.used(1)
            assert again.keep == (50, 10)
