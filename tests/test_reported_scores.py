"""A scorer that orders by one thing and reports another: what the pipeline makes of it."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from uprank import InvalidScoresError, Reranker, ScoreKindError
from uprank.scorers import Scorer, Scores


class Reporting(Scorer):
    name = "reporting"

    def __init__(self, reported: Sequence[float | None] | None, *, degraded: bool = False) -> None:
        self.reported, self.degraded = reported, degraded
        self.score_kind = "probability" if reported is not None else "rank"

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        values = [float(len(texts) - place) for place in range(len(texts))]
        return Scores(values, "rank", reported=self.reported, degraded=self.degraded)


TEXTS = ["first", "second", "third"]


@pytest.mark.parametrize("mode", ["native", "probability"])
def test_the_values_order_and_the_reported_are_shown(mode: str) -> None:
    ranking = Reranker(Reporting([0.9, 0.9, None]), score=mode).rank("q", TEXTS)
    assert [hit.index for hit in ranking] == [0, 1, 2]
    assert [hit.score for hit in ranking] == [0.9, 0.9, None]
    assert ranking.score_kind == "probability"
    assert not ranking.degraded


def test_what_has_no_score_passes_no_threshold() -> None:
    ranking = Reranker(Reporting([0.9, 0.4, None])).rank("q", TEXTS, threshold=0.0)
    assert [hit.index for hit in ranking] == [0, 1]


def test_copies_of_a_text_are_reported_alike() -> None:
    ranking = Reranker(Reporting([0.9, 0.4])).rank("q", ["a", "b", "a"])
    assert [(hit.index, hit.score) for hit in ranking] == [(0, 0.9), (2, 0.9), (1, 0.4)]


def test_a_calibrator_is_given_what_is_reported() -> None:
    reranker = Reranker(Reporting([0.8, 0.4, None]), score="probability", calibrator=lambda score: score / 2)
    assert [hit.score for hit in reranker.rank("q", TEXTS)] == [0.4, 0.2, None]


def test_degraded_orders_keep_their_scores_and_say_so() -> None:
    ranking = Reranker(Reporting(None, degraded=True)).rank("q", TEXTS)
    assert ranking.degraded
    assert [hit.score for hit in ranking] == [3.0, 2.0, 1.0]


@pytest.mark.parametrize(
    ("reported", "problem"),
    [
        ([0.9, 0.5], "2 scores for 3 texts"),
        ([0.9, 1.2, None], "1.2"),
        ([0.9, float("nan"), None], "nan"),
        ([0.4, 0.9, None], "placed below"),
    ],
)
def test_reports_that_cannot_be_are_refused(reported: list[float | None], problem: str) -> None:
    with pytest.raises(InvalidScoresError, match=problem):
        Reranker(Reporting(reported)).rank("q", TEXTS)


def test_a_threshold_on_places_is_refused() -> None:
    with pytest.raises(ScoreKindError, match="only their order"):
        Reranker(Reporting(None)).rank("q", TEXTS, threshold=0.5)
