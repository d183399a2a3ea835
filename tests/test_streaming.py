"""Any number of queries, a few groups in memory at a time."""

from __future__ import annotations

import asyncio
import threading

import pytest

from uprank import InvalidInputError, Reranker, ScorerError


def lengths(query, texts):
    return [float(len(text)) for text in texts]


def test_rankings_come_in_order_and_queries_are_read_as_they_are_needed():
    read = []

    def queries():
        for number in range(100):
            read.append(number)
            yield f"query {number}", ["x" * (number + 1), "y"]

    rankings = Reranker(lengths).rank_stream(queries(), group=5)
    assert read == []
    for number, ranking in enumerate(rankings):
        assert ranking.query == f"query {number}"
        assert ranking[0].score == number + 1
        assert len(read) <= number + 15  # the group handed out, and two under way
    assert number == 99


def test_no_queries_give_no_rankings():
    assert list(Reranker(lengths).rank_stream([])) == []


def test_the_next_group_is_scored_while_one_is_handed_out():
    second = threading.Event()

    def score(query, texts):
        if query == "second":
            second.set()
        return lengths(query, texts)

    stream = Reranker(score).rank_stream([("first", ["a"]), ("second", ["b"])], group=1)
    assert next(stream).query == "first"
    assert second.wait(10)


def test_a_caller_who_stops_early_leaves_nothing_running():
    asked = []

    def score(query, texts):
        asked.append(query)
        return lengths(query, texts)

    stream = Reranker(score).rank_stream(((f"q{n}", ["a"]) for n in range(1000)), group=1)
    next(stream)
    stream.close()
    assert len(asked) <= 3


async def test_what_is_under_way_is_cancelled_where_the_caller_stops():
    started, cancelled = threading.Event(), threading.Event()

    async def score(query, texts):
        if query == "slow":
            started.set()
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancelled.set()
                raise
        return lengths(query, texts)

    stream = Reranker(score).rank_stream([("fast", ["a"]), ("slow", ["b"])], group=1)
    assert next(stream).query == "fast"
    assert started.wait(10)
    stream.close()
    assert cancelled.wait(10)


def test_what_is_wrong_with_a_query_names_it_by_its_place_in_the_stream():
    good = ("good", ["a"])
    for bad, message in ((("bad", [1]), "Document 0 of query 5"), ("bad", "Query 5"), (("a", "b", "c"), "Query 5")):
        stream = Reranker(lengths).rank_stream([good] * 5 + [bad], group=1)
        assert [next(stream).query for _ in range(5)] == ["good"] * 5
        with pytest.raises(InvalidInputError, match=message):
            next(stream)
    with pytest.raises(InvalidInputError, match="pairs of a query"):
        Reranker(lengths).rank_stream(None)


def test_an_error_is_raised_at_its_group():
    def score(query, texts):
        if query == "bad":
            raise ValueError("no")
        return lengths(query, texts)

    stream = Reranker(score).rank_stream([("good", ["a"]), ("bad", ["b"])], group=1)
    assert next(stream).query == "good"
    with pytest.raises(ScorerError, match="no"):
        next(stream)


def test_options_are_those_of_rank():
    (ranking,) = Reranker(lengths).rank_stream([("q", ["a", "bb", "ccc"])], top_n=1, threshold=2)
    assert [hit.document.text for hit in ranking] == ["ccc"]
    with pytest.raises(InvalidInputError, match="top_n"):
        Reranker(lengths).rank_stream([], top_n=0)
    with pytest.raises(InvalidInputError, match="group"):
        Reranker(lengths).rank_stream([], group=0)
