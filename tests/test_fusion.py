"""Fusion: votes counted by rank and by probability, the first stage's vote, what is shown."""

from __future__ import annotations

import asyncio
import itertools
import json
import pickle
import random
import threading
from collections.abc import Callable, Sequence
from fractions import Fraction

import pytest

from table_scorer import Ask, TableScorer, both_ways, scored
from uprank import Reranker
from uprank.errors import (
    InvalidInputError,
    ScoreKindError,
)
from uprank.scorers.base import Outcome, Scorer, ScoreRequest, Scores
from uprank.scorers.callable import CallableScorer
from uprank.scorers.combined.fusion import Fusion
from uprank.scorers.evidence import Attempt, Evidence, Passage

TEXTS = ["a", "b", "c", "d"]
FIRST = dict(zip(TEXTS, [4.0, 3.0, 2.0, 1.0], strict=True))  # a b c d
SECOND = dict(zip(TEXTS, [1.0, 2.0, 4.0, 3.0], strict=True))  # c d b a
LIKELY = dict(zip(TEXTS, [0.9, 0.5, 0.3, 0.1], strict=True))
UNLIKELY = dict(zip(TEXTS, [0.1, 0.2, 0.4, 0.1], strict=True))


def one(scorer: Scorer, retrieval_scores: Sequence[float] | None = None, texts: Sequence[str] = TEXTS) -> Scores:
    return scored(scorer.score_many([ScoreRequest("q", texts, None, retrieval_scores)])[0])


def probable(name: str, table: dict[str, float], **options: object) -> TableScorer:
    return TableScorer(name, table, kind="probability", **options)  # type: ignore[arg-type]  # as given


class TestByRank:
    @both_ways
    def test_by_hand(self, ask: Ask):
        members = [TableScorer("x", FIRST), TableScorer("y", SECOND)]
        scores = scored(ask(Fusion(members), [ScoreRequest("q", TEXTS)])[0])
        assert list(scores.values) == pytest.approx(
            [1 / 61 + 1 / 64, 1 / 62 + 1 / 63, 1 / 63 + 1 / 61, 1 / 64 + 1 / 62]
        )
        assert scores.kind == "rank"
        assert scores.reported is None
        assert scores.usage.pairs == 8
        assert not scores.degraded
        assert [member.texts for member in members] == [[TEXTS], [TEXTS]]

    def test_equal_scores_share_the_mean_of_their_ranks(self):
        flat = {"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}
        scores = one(Fusion([TableScorer("x", flat), TableScorer("y", SECOND)], weights=[2, 0.5], k=1))
        # x has a at 1 and the others at (2 + 3 + 4) / 3
        assert list(scores.values) == pytest.approx(
            [2 / 2 + 0.5 / 5, 2 / 4 + 0.5 / 4, 2 / 4 + 0.5 / 2, 2 / 4 + 0.5 / 3]
        )

    def test_the_first_stage_votes_by_its_scores(self):
        fusion = Fusion([TableScorer("x", FIRST)], retrieval_weight=0.5)
        scores = one(fusion, [1.0, 1.0, 7.0, 3.0])
        expected = [1 / 61 + 0.5 / 63.5, 1 / 62 + 0.5 / 63.5, 1 / 63 + 0.5 / 61, 1 / 64 + 0.5 / 62]
        assert list(scores.values) == pytest.approx(expected)

    def test_the_first_stage_votes_by_its_order_where_it_has_no_scores(self):
        scores = one(Fusion([TableScorer("x", SECOND)], retrieval_weight=2))
        expected = [1 / 64 + 2 / 61, 1 / 63 + 2 / 62, 1 / 61 + 2 / 63, 1 / 62 + 2 / 64]
        assert list(scores.values) == pytest.approx(expected)

    def test_any_votes_give_what_exact_arithmetic_gives(self):
        chance = random.Random(3)
        for _ in range(80):
            texts = [str(number) for number in range(chance.randint(1, 7))]
            tables = [{text: float(chance.randint(0, 3)) for text in texts} for _ in range(chance.randint(1, 4))]
            weights = [chance.randint(1, 5) for _ in tables]
            given = [float(chance.randint(0, 3)) for _ in texts]
            k = chance.randint(0, 60)
            fusion = Fusion(
                [TableScorer(f"m{n}", table) for n, table in enumerate(tables)],
                weights=weights,
                k=k,
                retrieval_weight=3,
            )
            ballots = [*zip(weights, tables, strict=True), (3, dict(zip(texts, given, strict=True)))]
            expected = []
            for text in texts:
                total = Fraction(0)
                for weight, table in ballots:
                    better = sum(table[other] > table[text] for other in texts)
                    alike = sum(table[other] == table[text] for other in texts)
                    total += Fraction(weight) / (k + better + Fraction(alike + 1, 2))
                expected.append(float(total))
            assert list(one(fusion, given, texts).values) == pytest.approx(expected, rel=1e-14)

    def test_the_order_of_the_members_changes_not_a_bit(self):
        chance = random.Random(4)
        texts = [str(number) for number in range(12)]
        tables = [{text: chance.random() for text in texts} for _ in range(4)]
        found = {
            tuple(one(Fusion([TableScorer("m", table) for table in several]), texts=texts).values)
            for several in itertools.permutations(tables)
        }
        assert len(found) == 1

    def test_the_order_of_the_documents_does_not_matter(self):
        fusion = Fusion([TableScorer("x", FIRST), TableScorer("y", SECOND)], retrieval_weight=1)
        found = set()
        for texts in itertools.permutations(TEXTS):
            scores = one(fusion, [FIRST[text] for text in texts], texts)
            found.add(tuple(sorted(zip(texts, scores.values, strict=True))))
        assert len(found) == 1

    def test_scales_do_not_matter(self):
        plain = one(Fusion([TableScorer("x", FIRST), TableScorer("y", SECOND)]))
        steep = {text: score**9 - 1e6 for text, score in SECOND.items()}
        assert one(Fusion([TableScorer("x", FIRST), TableScorer("y", steep, kind="rank")])).values == plain.values


class TestByProbability:
    @both_ways
    def test_by_hand(self, ask: Ask):
        members = [probable("x", LIKELY), probable("y", UNLIKELY)]
        fusion = Fusion(members, method="weighted", weights=[3, 1])
        scores = scored(ask(fusion, [ScoreRequest("q", TEXTS)])[0])
        assert list(scores.values) == pytest.approx([0.7, 0.425, 0.325, 0.1])
        assert scores.kind == fusion.score_kind == "probability"
        assert not fusion.listwise  # each document is scored by itself

    def test_logits_and_calibrated_scores_become_probabilities_first(self):
        cosines = TableScorer("cosines", UNLIKELY, kind="cosine", calibrator=lambda cosine: cosine / 2)
        cosines.calibrated = True
        logits = TableScorer("logits", dict.fromkeys(TEXTS, 0.0))
        scores = one(Fusion([cosines, logits], method="weighted"))
        assert list(scores.values) == pytest.approx([0.275, 0.3, 0.35, 0.275])

    def test_certain_voters_stay_probabilities(self):
        sure = dict.fromkeys(TEXTS, 1.0)
        fusion = Fusion([probable(str(n), sure) for n in range(3)], method="weighted", weights=[0.1, 0.2, 0.7])
        assert list(one(fusion).values) == [1.0] * 4
        assert [hit.score for hit in Reranker(fusion).rank("q", TEXTS)] == [1.0] * 4

    def test_retrieval_scores_by_their_calibrator(self):
        fusion = Fusion(
            [probable("x", LIKELY)],
            method="weighted",
            retrieval_weight=1,
            retrieval_calibrator=lambda score: score / 10,
        )
        scores = one(fusion, [1.0, 2.0, 10.0, 0.0])
        assert list(scores.values) == pytest.approx([0.5, 0.35, 0.65, 0.05])
        assert scores.kind == "probability"
        with pytest.raises(InvalidInputError, match="not all documents have one"):
            one(fusion)

    def test_retrieval_scores_without_one_are_stretched_and_make_ranks(self):
        fusion = Fusion([probable("x", LIKELY)], method="weighted", retrieval_weight=1)
        scores = one(fusion, [30.0, 10.0, 20.0, 10.0])
        assert list(scores.values) == pytest.approx([0.95, 0.25, 0.4, 0.05])
        assert scores.kind == fusion.score_kind == "rank"
        assert fusion.listwise
        assert list(one(fusion).values) == pytest.approx([(0.9 + 1) / 2, (0.5 + 2 / 3) / 2, (0.3 + 1 / 3) / 2, 0.05])
        assert list(one(fusion, [5.0] * 4).values) == pytest.approx([0.7, 0.5, 0.4, 0.3])  # it prefers none
        assert list(one(fusion, [1e308, -1e308, 0.0, 0.0]).values) == pytest.approx([0.95, 0.25, 0.4, 0.3])

    def test_what_a_member_has_not_scored_shows_nothing_and_stays_below(self):
        members = [probable("x", LIKELY), Reported("llm", [None, 0.8, 0.6, None])]
        scores = one(Fusion(members, method="weighted"))
        assert list(scores.values) == pytest.approx([0.75, 0.65, 0.45, 0.35])  # a and d count as 0.6
        assert scores.reported == [None, pytest.approx(0.65), pytest.approx(0.45), None]

    @pytest.mark.parametrize("kind", ["rank", "cosine"])
    def test_a_model_without_any_is_refused_at_once(self, kind: str):
        without = TableScorer("without", FIRST, kind=kind)  # type: ignore[arg-type]  # one of the kinds
        with pytest.raises(ScoreKindError, match=f'without gives {kind!r} scores.*method="rrf".*Calibrated'):
            Fusion([probable("x", LIKELY), without], method="weighted")
        without.score_kind = None  # as before a model is loaded
        fusion = Fusion([probable("x", LIKELY), without], method="weighted")
        without.score_kind = kind  # type: ignore[assignment]  # one of the kinds
        with pytest.raises(ScoreKindError, match="without gives"):
            fusion.score("q", TEXTS)

    def test_a_function_that_nobody_has_declared_is_refused(self):
        function = CallableScorer(lambda query, texts: [1.0] * len(texts), name="f")
        with pytest.raises(ScoreKindError, match="what the numbers of f mean"):
            Fusion([function, probable("x", LIKELY)], method="weighted")
        assert one(Fusion([function, probable("x", LIKELY)])).kind == "rank"

    def test_stand_ins_without_any_do_not_vote(self):
        down = (Attempt("x", "down", "ServerError", 0.1),)
        stand_in = TableScorer("x", FIRST, model="bm25", attempts=down)
        fusion = Fusion([stand_in, probable("y", UNLIKELY)], method="weighted")
        alone = Fusion([stand_in], method="weighted", retrieval_weight=1, retrieval_calibrator=lambda score: 0.5)
        stand_in.score_kind = "rank"
        scores = one(fusion)
        assert list(scores.values) == list(UNLIKELY.values())
        assert scores.warnings == ("bm25 has no probabilities, and did not vote.",)
        assert scores.degraded
        assert scores.attempts == down
        scores = one(alone, [1.0, 2.0, 3.0, 4.0])
        assert scores.reported == [None] * 4
        assert scores.kind == "rank"


class Reported(TableScorer):
    """Places all documents, and gives a probability for some."""

    def __init__(self, name: str, reported: list[float | None]) -> None:
        super().__init__(name, {}, kind="probability")
        self.reported = reported

    def _one(self, request: ScoreRequest) -> Outcome:
        return Scores([one or -float(place) for place, one in enumerate(self.reported)], "rank", reported=self.reported)


class TestAsAScorer:
    def test_members_are_asked_at_once(self):
        """Each waits for the other: asked one after the other, they would wait in vain."""
        both = threading.Barrier(2, timeout=10)

        def waits(query: str, texts: list[str]) -> list[float]:
            both.wait()
            return [float(len(text)) for text in texts]

        assert [hit.index for hit in Reranker(Fusion([waits, waits])).rank("q", ["a", "abc", "ab"])] == [1, 2, 0]

        met = [asyncio.Event(), asyncio.Event()]

        def meeting(mine: asyncio.Event, other: asyncio.Event) -> Callable[[str, list[str]], object]:
            async def score(query: str, texts: list[str]) -> list[float]:
                mine.set()
                await asyncio.wait_for(other.wait(), 10)
                return [float(len(text)) for text in texts]

            return score

        fusion = Fusion([meeting(*met), meeting(*reversed(met))])  # type: ignore[list-item]  # async functions
        assert [hit.index for hit in asyncio.run(Reranker(fusion).arank("q", ["a", "abc", "ab"]))] == [1, 2, 0]

    def test_the_instruction_goes_to_those_that_take_one(self):
        plain, instructed = TableScorer("plain", FIRST), TableScorer("instructed", SECOND, instructed=True)
        Reranker(Fusion([plain, instructed])).rank("q", TEXTS, instruction="be strict")
        assert plain.calls[0][0].instruction is None
        assert instructed.calls[0][0].instruction == "be strict"

    def test_the_passage_of_the_weightiest_voter_is_shown(self):
        left, right = Passage(0, 1, "a"), Passage(1, 2, "b")
        members = [
            TableScorer("x", FIRST, evidence=lambda text: Evidence(passage=left, truncated=False)),
            TableScorer("y", SECOND, evidence=lambda text: Evidence(passage=right, truncated=text == "a")),
            TableScorer("z", SECOND),
        ]
        known = one(Fusion(members, weights=[1, 2, 3])).evidence or ()
        assert known[0] == Evidence(passage=right, truncated=True)
        assert known[1] == Evidence(passage=right, truncated=None)  # z does not say
        assert (one(Fusion(members[:2])).evidence or ())[1] == Evidence(passage=left, truncated=False)

    def test_in_a_reranker(self):
        ranking = Reranker(Fusion([TableScorer("x", FIRST), TableScorer("y", FIRST)], retrieval_weight=1)).rank(
            "q", ["d", "b", "a", "b"], top_n=3
        )
        assert [(hit.index, hit.document.text) for hit in ranking] == [(2, "a"), (1, "b"), (3, "b")]
        assert ranking.model == "fusion(x, y, first stage)"
        assert ranking.score_kind == "rank"
        assert ranking.usage.pairs == 6

    def test_identity_holds_all_that_scores_depend_on(self):
        x, y, nameless = probable("x", LIKELY), probable("y", UNLIKELY), probable("nameless", LIKELY)
        different = [
            Fusion([x, y]),
            Fusion([y, x]),
            Fusion([x, y], k=10),
            Fusion([x, y], weights=[1, 2]),
        ]
        assert len({json.dumps(fusion.identity(), sort_keys=True) for fusion in different}) == len(different)
        assert Fusion([x, y]).identity() == Fusion([x, y], weights=[1, 1], on_error="skip").identity()
        assert Fusion([x, nameless]).identity() is None
        assert Fusion([x, y], method="weighted").identity() is None  # a calibrator may be in it
        assert Fusion([x, y], retrieval_weight=1).identity() is None  # the first stage's scores are not in it

    def test_copies_and_other_members(self):
        fusion = Fusion([TableScorer("x", FIRST), TableScorer("y", SECOND)], weights=[1, 2])
        again = pickle.loads(pickle.dumps(fusion))  # noqa: S301 - our own bytes
        assert one(again).values == one(fusion).values
        replaced = fusion.with_members([TableScorer("v", FIRST), TableScorer("w", FIRST)])
        assert replaced.name == "fusion(v, w)"
        assert replaced.listwise
        fusion.close()
        assert [member.closed for member in fusion.members] == [1, 1]  # type: ignore[attr-defined]  # table scorers

    def test_with_real_models(self):
        texts = ["Bread is baked from flour.", "json.loads parses JSON text.", "JSON is text.", "Rain falls."]
        reranker = Reranker(Fusion(["bm25", "embedded"], retrieval_weight=0.5))
        ranking = reranker.rank("how do I parse JSON text?", texts)
        assert [hit.index for hit in ranking[:2]] == [1, 2]
        assert asyncio.run(reranker.arank("how do I parse JSON text?", texts)).hits == ranking.hits
