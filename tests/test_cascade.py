"""Cascades: who is asked about what, the order that comes of it, what is shown."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Sequence

import pytest

from table_scorer import Ask, TableScorer, both_ways, order, scored
from uprank import Reranker
from uprank.errors import (
    ScoreKindError,
)
from uprank.scorers.base import Scorer, ScoreRequest, Scores
from uprank.scorers.callable import CallableScorer
from uprank.scorers.combined.calibrated import Calibrated
from uprank.scorers.combined.cascade import Cascade
from uprank.scorers.combined.fusion import Fusion
from uprank.scorers.evidence import Attempt, Evidence

TEXTS = ["a", "b", "c", "d", "e"]
CHEAP = dict(zip(TEXTS, [1.0, 5.0, 3.0, 4.0, 2.0], strict=True))  # b d c e a
DEAR = dict(zip(TEXTS, [9.0, 1.0, 3.0, 2.0, 8.0], strict=True))  # a e c d b


def one(scorer: Scorer, query: str = "q", texts: Sequence[str] = TEXTS) -> Scores:
    return scored(scorer.score_many([ScoreRequest(query, texts)])[0])


@both_ways
def test_by_hand(ask: Ask):
    cheap, dear = TableScorer("cheap", CHEAP), TableScorer("dear", DEAR)
    scores = scored(ask(Cascade([cheap, dear], [3]), [ScoreRequest("q", TEXTS)])[0])
    assert cheap.texts == [["a", "b", "c", "d", "e"]]
    assert dear.texts == [["b", "d", "c"]]  # the best three, in the order of the stage before
    assert order(scores, TEXTS) == "cdbea"
    assert list(scores.values) == [1.0, 3.0, 5.0, 4.0, 2.0]  # of five documents, the first has 5
    assert scores.kind == "rank"
    assert scores.reported is None
    assert [(known.stage, known.model) for known in scores.evidence or ()] == [
        (0, "cheap"),
        (1, "dear"),
        (1, "dear"),
        (1, "dear"),
        (0, "cheap"),
    ]
    assert scores.usage.pairs == 8
    assert scores.usage.tokens == 8
    assert not scores.degraded


def test_ties_keep_the_order_of_the_stage_before():
    flat = dict.fromkeys(TEXTS, 0.0)
    dear = TableScorer("dear", flat)
    assert order(one(Cascade([TableScorer("cheap", flat), dear], [2])), TEXTS) == "abcde"
    assert dear.texts == [["a", "b"]]
    assert order(one(Cascade([TableScorer("cheap", CHEAP), TableScorer("dear", flat)], [4])), TEXTS) == "bdcea"


def expected(tables: Sequence[dict[str, float]], keep: Sequence[int], texts: list[str]) -> list[str]:
    """The definition, told by recursion."""
    best = sorted(texts, key=lambda text: (-tables[0][text], texts.index(text)))
    if len(tables) == 1:
        return best
    return expected(tables[1:], keep[1:], best[: keep[0]]) + best[keep[0] :]


@both_ways
def test_any_cascade_is_what_its_definition_says(ask: Ask):
    chance = random.Random(5)
    for _ in range(60):
        stages = chance.randint(2, 4)
        keep = sorted((chance.randint(1, 9) for _ in range(stages - 1)), reverse=True)
        requests = [
            ScoreRequest(str(number), [f"{number}.{i}" for i in range(chance.randint(1, 8))]) for number in range(3)
        ]
        every = [text for request in requests for text in request.texts]
        tables = [{text: float(chance.randint(0, 4)) for text in every} for _ in range(stages)]
        cascade = Cascade([TableScorer(f"m{n}", table) for n, table in enumerate(tables)], keep)
        for request, outcome in zip(requests, ask(cascade, requests), strict=True):
            values = scored(outcome).values
            found = sorted(request.texts, key=lambda text: -values[request.texts.index(text)])
            assert found == expected(tables, keep, list(request.texts))
            assert sorted(values) == list(range(1, len(values) + 1))


def test_the_order_of_the_documents_given_does_not_matter_without_ties():
    chance = random.Random(1)
    cascade = Cascade([TableScorer("cheap", CHEAP), TableScorer("dear", DEAR)], [3])
    for _ in range(10):
        texts = chance.sample(TEXTS, len(TEXTS))
        assert order(one(cascade, texts=texts), texts) == "cdbea"


def test_all_queries_are_in_one_stage_at_the_same_time():
    cheap, dear = TableScorer("cheap", CHEAP), TableScorer("dear", DEAR)
    Cascade([cheap, dear], [2]).score_many([ScoreRequest(query, TEXTS) for query in "pqr"])
    assert [len(call) for call in cheap.calls] == [3]
    assert [len(call) for call in dear.calls] == [3]


def test_what_a_stage_is_told():
    """The instruction only where it is taken; retrieval scores beside the texts they belong to."""
    plain, instructed = TableScorer("plain", CHEAP), TableScorer("instructed", DEAR, instructed=True)
    cascade = Cascade([plain, instructed], [2])
    assert cascade.accepts_instruction
    cascade.score_many([ScoreRequest("q", TEXTS, "be strict", [50.0, 40.0, 30.0, 20.0, 10.0])])
    (first,), (second,) = plain.calls[0], instructed.calls[0]
    assert first.instruction is None
    assert second.instruction == "be strict"
    assert (list(second.texts), list(second.retrieval_scores or ())) == (["b", "d"], [40.0, 20.0])


def test_evidence_of_a_stage_goes_on():
    cut = TableScorer("cut", CHEAP, evidence=lambda text: Evidence(truncated=text == "e"))
    named = TableScorer("outer", DEAR, model="inner")
    known = one(Cascade([cut, named], [1])).evidence or ()
    assert known[4] == Evidence(model="cut", stage=0, truncated=True)
    assert known[1] == Evidence(model="inner", stage=1)


class TestProbabilities:
    @both_ways
    def test_no_document_shows_more_than_one_above_it(self, ask: Ask):
        cheap = TableScorer("cheap", {"a": 0.95, "b": 0.9, "c": 0.2}, kind="probability")
        dear = TableScorer("dear", {"a": 0.3, "b": 0.6}, kind="probability")
        cascade = Cascade([cheap, dear], [2], scores="probability")
        scores = scored(ask(cascade, [ScoreRequest("q", ["a", "b", "c"])])[0])
        assert order(scores, "abc") == "bac"
        assert scores.reported == [0.3, 0.6, 0.2]
        cheap.table = {"a": 0.95, "b": 0.9, "c": 0.8}
        assert one(cascade, texts=["a", "b", "c"]).reported == [0.3, 0.6, 0.3]  # c had 0.8 of the weaker model

    def test_logits_become_probabilities_and_saturated_ones_keep_their_order(self):
        logits = {"a": 40.0, "b": 50.0, "c": 0.0, "d": -1.0, "e": -2.0}
        cascade = Cascade([TableScorer("x", logits), TableScorer("y", logits)], [3], scores="probability")
        scores = one(cascade)
        assert order(scores, TEXTS) == "bacde"
        assert scores.reported is not None
        assert scores.reported[2] == 0.5
        assert scores.reported[3] == pytest.approx(0.26894142)

    def test_the_calibrator_of_a_stage_is_used(self):
        cosines = TableScorer(
            "cosines", {"a": 0.0, "b": 1.0}, kind="cosine", calibrator=lambda cosine: 0.25 + cosine / 2
        )
        cosines.calibrated = True
        cascade = Cascade([cosines, TableScorer("y", {"b": 0.0})], [1], scores="probability")
        assert one(cascade, texts=["a", "b"]).reported == [0.25, 0.5]

    def test_any_cascade_reports_what_the_pipeline_accepts(self):
        chance = random.Random(7)
        for _ in range(60):
            texts = [str(number) for number in range(chance.randint(1, 8))]
            models: list[Scorer] = [
                TableScorer(f"m{stage}", {text: chance.uniform(-3, 3) for text in texts}) for stage in range(3)
            ]
            cascade = Cascade(models, sorted(chance.choices(range(1, 9), k=2), reverse=True), scores="probability")
            ranking = Reranker(cascade).rank("q", texts)
            shown = [hit.score for hit in ranking]
            assert ranking.score_kind == "probability"
            assert shown == sorted(shown, reverse=True)
            stages = [hit.stage for hit in ranking]
            assert stages == sorted(stages, reverse=True)

    def test_a_threshold_keeps_the_beginning(self):
        cascade = Cascade([TableScorer("x", CHEAP), TableScorer("y", DEAR)], [3], scores="probability")
        ranking = Reranker(cascade, threshold=0.88).rank("q", TEXTS)
        assert "".join(hit.document.text for hit in ranking) == "cd"  # sigmoid(3), sigmoid(2); b has sigmoid(1)

    @pytest.mark.parametrize("kind", ["rank", "cosine"])
    def test_a_model_without_any_is_refused_at_once(self, kind: str):
        without = TableScorer("without", CHEAP, kind=kind)  # type: ignore[arg-type]  # one of the kinds
        with pytest.raises(ScoreKindError, match=f'without gives {kind!r} scores.*scores="rank".*Calibrated'):
            Cascade([TableScorer("with", CHEAP), without], [2], scores="probability")

    def test_a_function_that_nobody_has_declared_is_refused(self):
        function = CallableScorer(lambda query, texts: [1.0] * len(texts), name="f")
        with pytest.raises(ScoreKindError, match="what the numbers of f mean"):
            Cascade([TableScorer("x", CHEAP), function], [2], scores="probability")
        inside = Cascade([TableScorer("x", CHEAP), TableScorer("y", DEAR)], [2], scores="probability")
        with pytest.raises(ScoreKindError, match="what the numbers of f mean"):
            Cascade([inside.with_members([TableScorer("x", CHEAP), function]), function], [2], scores="probability")
        scores = one(
            Cascade([Calibrated(function, lambda value: 0.25), TableScorer("x", CHEAP)], [2], scores="probability")
        )
        assert (scores.reported or [])[4] == 0.25
        declared = CallableScorer(lambda query, texts: [0.5] * len(texts), score_kind="probability")
        scores = one(Cascade([TableScorer("x", CHEAP), declared], [2], scores="probability"))
        assert (scores.reported or [])[1] == (scores.reported or [])[3] == 0.5

    def test_a_model_that_only_tells_when_it_is_loaded(self):
        late = TableScorer("late", CHEAP, kind="cosine")
        late.score_kind = None
        cascade = Cascade([late, TableScorer("x", DEAR)], [2], scores="probability")
        late.score_kind = "cosine"
        with pytest.raises(ScoreKindError, match="late gives 'cosine' scores"):
            cascade.score("q", TEXTS)

    def test_a_stand_in_without_any_makes_no_outage(self):
        stand_in = TableScorer("first", DEAR, model="bm25", attempts=(Attempt("first", "down", "ServerError", 0.1),))
        cascade = Cascade([TableScorer("cheap", CHEAP), stand_in], [2], scores="probability")
        stand_in.score_kind = "rank"
        scores = one(cascade)
        assert order(scores, TEXTS) == "dbcea"
        assert scores.reported is not None
        assert scores.reported[1] is scores.reported[3] is None
        assert scores.reported[2] == pytest.approx(0.9525741)
        assert [known.model for known in scores.evidence or ()][1] == "bm25"
        assert scores.attempts[0].model == "first"


class TestAsAScorer:
    def test_in_a_reranker(self):
        ranking = Reranker(Cascade([TableScorer("x", CHEAP), TableScorer("y", DEAR)], [3])).rank("q", [*TEXTS, "c"])
        assert [(hit.document.text, hit.index, hit.stage, hit.model) for hit in ranking] == [
            ("c", 2, 1, "y"),
            ("c", 5, 1, "y"),
            ("d", 3, 1, "y"),
            ("b", 1, 1, "y"),
            ("e", 4, 0, "x"),
            ("a", 0, 0, "x"),
        ]
        assert ranking.model == "cascade(x, y)"
        assert ranking.score_kind == "rank"
        assert ranking.usage.pairs == 8

    def test_of_scorers_that_are_made_of_scorers(self):
        inner = Cascade([TableScorer("x", CHEAP), TableScorer("y", DEAR)], [3])
        fused = Fusion([TableScorer("z", DEAR), TableScorer("w", CHEAP)], weights=[3, 1])
        scores = one(Cascade([inner, fused], [2]))
        assert order(scores, TEXTS) == "cdbea"
        assert [(known.stage, known.model) for known in scores.evidence or ()] == [
            (0, "x"),
            (0, "y"),
            (1, "fusion(z, w)"),
            (1, "fusion(z, w)"),
            (0, "x"),
        ]
        assert scores.usage.pairs == 5 + 3 + 2 + 2

    def test_members_can_be_replaced(self):
        cascade = Cascade([TableScorer("x", CHEAP), TableScorer("y", CHEAP)], [3], scores="probability")
        replaced = cascade.with_members([TableScorer("v", DEAR), TableScorer("w", DEAR)])
        assert replaced.name == "cascade(v, w)"
        assert replaced.listwise
        assert replaced.score_kind == "probability"
        assert order(one(replaced), TEXTS) == "aecdb"
        assert order(one(cascade), TEXTS) == "bdcea"

    def test_identity_holds_all_that_scores_depend_on(self):
        x, y, nameless = TableScorer("x", CHEAP), TableScorer("y", DEAR), TableScorer("nameless", DEAR)
        different = [
            Cascade([x, y], [3]),
            Cascade([y, x], [3]),
            Cascade([x, y], [2]),
            Cascade([x, y, y], [3, 3]),
        ]
        assert len({json.dumps(cascade.identity(), sort_keys=True) for cascade in different}) == len(different)
        assert Cascade([x, y], [3]).identity() == Cascade([x, y], [3], on_stage_error="keep").identity()
        assert Cascade([x, nameless], [3]).identity() is None
        assert Cascade([x, y], [3], scores="probability").identity() is None  # a calibrator may be in it
        assert Cascade([x, y], [3], max_ms=100).identity() is None
        assert Cascade([x, y], [3], max_cost=100).identity() is None

    def test_closing_closes_all(self):
        members = [TableScorer("x", CHEAP), TableScorer("y", DEAR)]
        Cascade(members, [3]).close()
        assert [member.closed for member in members] == [1, 1]

    def test_with_real_models(self):
        texts = ["Bread is baked from flour.", "json.loads parses JSON text.", "JSON is text.", "Rain falls."]
        reranker = Reranker(Cascade(["bm25", "embedded"], [2]))
        ranking = reranker.rank("how do I parse JSON text?", texts)
        assert ranking[0].index == 1
        assert [hit.stage for hit in ranking] == [1, 1, 0, 0]
        assert [hit.model for hit in ranking] == ["embedded", "embedded", "bm25", "bm25"]
        alone = Reranker("embedded").rank("how do I parse JSON text?", texts)
        assert [hit.index for hit in ranking[:2]] == [hit.index for hit in alone if hit.index in (1, 2)]
        again = asyncio.run(reranker.arank("how do I parse JSON text?", texts))
        assert [hit.index for hit in again] == [hit.index for hit in ranking]
