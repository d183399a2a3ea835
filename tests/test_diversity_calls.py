"""Diversity as it is driven: choices of several queries in step, by the embedded model, through a reranker."""

from __future__ import annotations

import asyncio
import re

import pytest

from diversity_cases import FOUR, TABLE, choice, steps
from uprank import Reranker
from uprank.choosing import Kept, chosen, similarity_scorer
from uprank.errors import ConfigurationError, QueryTooLongError, ScorerError
from uprank.rounds import adrive, drive
from uprank.scorers.callable import CallableScorer
from uprank.scorers.combined.cascade import Cascade
from uprank.scorers.combined.fallback import Fallback
from uprank.scorers.local.embedded import EmbeddedScorer

# --- several at once


def table_scorer(calls):
    def similar(query, asked):
        calls.append(query)
        return [TABLE["".join(sorted(query + text))] for text in asked]

    return CallableScorer(similar, score_kind="cosine")


def test_choices_in_step_share_calls():
    calls, seen = [], []
    scorer = table_scorer(calls)
    given_choices = [
        choice(FOUR, diversity=0.5, top_n=3),
        choice(FOUR, top_n=2),
        choice(FOUR, diversity=0.5, top_n=2),
    ]
    result = drive(chosen(given_choices, lambda: scorer), steps(scorer, seen))
    assert [one.positions for one in result] == [(0, 1, 2), (0, 1), (0, 2)]
    assert seen == [2, 1]
    assert calls == ["a", "a", "c"]


def test_choices_are_driven_by_asyncio_alike():
    async def similar(query, asked):
        await asyncio.sleep(0)
        return [TABLE["".join(sorted(query + text))] for text in asked]

    scorer = CallableScorer(similar, score_kind="cosine")

    async def run():
        return await adrive(
            chosen([choice(FOUR, diversity=0.5, top_n=3)], lambda: scorer),
            lambda ask: ask.scorer.ascore_many(ask.requests),
        )

    (result,) = asyncio.run(run())
    assert result == Kept((0, 1, 2))


def test_where_no_similarity_is_asked_no_model_is_made():
    def never():
        raise AssertionError

    assert drive(chosen([choice(FOUR, diversity=0.5)], never), never) == [Kept((0, 1, 2, 3))]
    assert drive(chosen([], never), never) == []


def test_one_choice_that_fails_does_not_spoil_the_others():
    def similar(query, asked):
        if "z" in query:
            raise OSError("broken")
        return [TABLE["".join(sorted(query + text))] for text in asked]

    scorer = CallableScorer(similar, score_kind="cosine")
    bad = [("z", 3.0), ("b", 2.0), ("c", 1.0)]
    given_choices = [
        choice(bad, diversity=0.5, top_n=2),
        choice(FOUR, diversity=0.5, top_n=2),
        choice(bad, diversity=0.5, top_n=2, strict=False),
    ]
    failed, good, without = drive(chosen(given_choices, lambda: scorer), steps(scorer, []))
    assert isinstance(failed, ScorerError)
    assert isinstance(failed.__cause__, OSError)
    assert good == Kept((0, 2))
    assert (without.positions, without.degraded) == ((0, 1), True)


def test_a_scorer_that_cannot_be_made_fails_those_that_need_it():
    def missing():
        raise ConfigurationError("not installed")

    first, second = drive(chosen([choice(FOUR, diversity=0.5, top_n=2), choice(FOUR, top_n=1)], missing), missing)
    assert isinstance(first, ConfigurationError)
    assert second == Kept((0,))


# --- the real model


@pytest.fixture(scope="module")
def embedded():
    scorer = similarity_scorer()
    yield scorer
    scorer.close()


NEWS = [
    ("Python 3.12 was released in October 2023 with better error messages.", 9.0),
    ("In October 2023 Python 3.12 came out, and its error messages are better.", 8.9),
    ("Python 3.12, released October 2023, has improved error messages.", 8.8),
    ("The per-interpreter GIL lets subinterpreters run in parallel.", 8.5),
    ("Whales are mammals that live in the sea.", 1.0),
]


def by_length(query, asked):
    return [float(len(text)) for text in asked]


def test_one_model_serves_the_whole_process(embedded):
    """Else it would be loaded for each step of each call."""
    assert similarity_scorer() is similarity_scorer(CallableScorer(by_length)) is embedded
    assert similarity_scorer(EmbeddedScorer(store=False)) is embedded  # it would read all documents at each step


def test_a_model_that_has_read_the_documents_is_asked(embedded):
    own = EmbeddedScorer()
    assert similarity_scorer(own) is own
    assert similarity_scorer(Fallback([by_length, Cascade([by_length, own], keep=[3])])) is own


def test_a_model_that_refuses_long_queries_is_asked_by_a_documents_beginning(embedded, monkeypatch):
    """By the default of the embedded model, a document longer than the window is an error as a query."""
    monkeypatch.setattr(embedded, "_long_query", "error")
    text = " ".join(NEWS[0][0] for _ in range(40))
    with pytest.raises(QueryTooLongError):
        embedded.score(text, ["a"])
    documents = [(text, 9.0), *NEWS[1:]]
    (result,) = drive(chosen([choice(documents, top_n=2, diversity=0.5)], lambda: embedded), steps(embedded, []))
    assert result == Kept((0, 3))


def test_the_embedded_model_tells_repetition_from_news(embedded):
    plain = drive(chosen([choice(NEWS, top_n=2)], lambda: embedded), steps(embedded, []))
    assert plain == [Kept((0, 1))]
    (result,) = drive(chosen([choice(NEWS, top_n=2, diversity=0.5)], lambda: embedded), steps(embedded, []))
    assert result == Kept((0, 3))  # neither one that says the same again, nor one off the subject


def test_a_document_longer_than_the_window_is_compared_by_its_beginning(embedded):
    long = re.sub(r"\s+", " ", NEWS[0][0] + " More of it follows here." * 400)
    documents = [(long, 9.0), *NEWS[1:]]
    (result,) = drive(chosen([choice(documents, top_n=2, diversity=0.5)], lambda: embedded), steps(embedded, []))
    assert isinstance(result, Kept)
    assert result.positions[0] == 0


async def test_a_reranker_chooses_what_differs(embedded):
    relevance = dict(NEWS)
    reranker = Reranker(lambda query, texts: [relevance[text] for text in texts], top_n=2, diversity=0.5)
    given = [text for text, _ in NEWS]
    rankings = reranker.rank_many(["python", "news"], [given, given[::-1]])
    assert [[hit.index for hit in ranking] for ranking in rankings] == [[0, 3], [4, 1]]
    assert [hit.score for hit in rankings[0]] == [9.0, 8.5]
    assert [hit.index for hit in await reranker.arank("python", given)] == [0, 3]
    assert [hit.index for hit in await reranker.arank("python", given, diversity=None)] == [0, 1]


@pytest.mark.parametrize("policy", ["raise", "passthrough"])
def test_a_reranker_without_similarities_says_so(policy, monkeypatch, embedded):
    def broken(requests):
        raise OSError("no disk")

    monkeypatch.setattr(embedded, "score_many", broken)
    reranker = Reranker(lambda query, texts: [9.0, 8.0, 7.0], top_n=2, diversity=0.5, on_error=policy)
    if policy == "raise":
        with pytest.raises(ScorerError, match="OSError: no disk"):
            reranker.rank("python", ["a", "b", "c"])
        return
    ranking = reranker.rank("python", ["a", "b", "c"])
    assert [(hit.index, hit.score) for hit in ranking] == [(0, 9.0), (1, 8.0)]  # the scores are there, and shown
    assert ranking.degraded
    assert any("Diversity was left out" in warning for warning in ranking.warnings)
