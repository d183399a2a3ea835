"""A deadline for one ranking: what ends at it, what counts, and what is then returned."""

from __future__ import annotations

import asyncio
import threading
import time
from types import SimpleNamespace

import pytest

from budget_cases import (
    NUMBERS,
    QUERY,
    RECIPES,
    TEXTS,
    N,
    assert_flagged,
    numbers,
    relevance,
    scorer_for,
    spent,
    stops,
)
from uprank import Reranker
from uprank.errors import RateLimitError
from uprank.scorers.http import retries
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm import Budget
from uprank.scorers.llm.chat import ChatCall
from uprank.testing import MockChatModel


class Timed(MockChatModel):
    """Each call takes a second of a clock that only this model moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        super().__init__(relevance, features=("json_schema", "system"))
        self.now, self.lock = 1000.0, threading.Lock()
        monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: self.now))

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        with self.lock:
            self.now += 1.0
        return super().send(call, timeout)


@pytest.mark.parametrize(
    ("name", "driver"), [*((name, "sync") for name in RECIPES), ("top-down", "async"), ("grades", "async")]
)
def test_a_deadline_at_every_possible_stop(name: str, driver: str, monkeypatch: pytest.MonkeyPatch):
    """A call that has begun is finished, and counts; none begins after the deadline."""
    calls, whole = spent(name)
    for most in stops(calls):
        with monkeypatch.context() as patch:
            model = Timed(patch)
            scorer = scorer_for(name, model, budget=Budget(deadline=most - 0.5), max_concurrency=1)
            if driver == "sync":
                ranking = Reranker(scorer).rank(QUERY, TEXTS)
            else:
                ranking = asyncio.run(Reranker(scorer).arank(QUERY, TEXTS))
        assert len(model.questions) == most
        assert sorted(numbers(ranking)) == sorted(NUMBERS)
        assert_flagged(ranking, f"deadline={most - 0.5:g}")
    with monkeypatch.context() as patch:
        model = Timed(patch)
        scorer = scorer_for(name, model, budget=Budget(deadline=calls + 0.5), max_concurrency=1)
        assert numbers(Reranker(scorer).rank(QUERY, TEXTS)) == numbers(whole)


class Slow(MockChatModel):
    """The first call is answered at once; the others take long, unless the time given ends before."""

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        if self.questions:
            time.sleep(min(timeout, 5.0))
            if timeout < 5.0:
                return Lost("timeout", "the model took too long")
        return super().send(call, timeout)

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        if self.questions:
            await asyncio.sleep(min(timeout, 5.0))
            if timeout < 5.0:
                return Lost("timeout", "the model took too long")
        return MockChatModel.send(self, call, timeout)


@pytest.mark.rotated(2)
@pytest.mark.parametrize("driver", ["sync", "async"])
@pytest.mark.parametrize("name", ["sliding", "top-down", "tree", "scored"])
def test_a_call_on_its_way_is_given_up_at_the_deadline(name: str, driver: str):
    """In real time: what was known before it is returned, in time."""
    model = Slow(relevance, features=("json_schema", "system"))
    scorer = scorer_for(name, model, budget=Budget(deadline=0.6), max_concurrency=1)
    started = time.monotonic()
    if driver == "sync":
        ranking = Reranker(scorer).rank(QUERY, TEXTS)
    else:
        ranking = asyncio.run(Reranker(scorer).arank(QUERY, TEXTS))
    assert 0.5 < time.monotonic() - started < 10.0
    assert_flagged(ranking, "deadline=0.6")
    assert len(ranking) == N
    if name == "top-down":
        assert numbers(ranking) == [*sorted(NUMBERS[:5], reverse=True), *NUMBERS[5:]]


class Busy(MockChatModel):
    """Answers once, then asks to come back later, for ever."""

    wait = 0.3
    refused = 0

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        if len(self.questions) < 1:
            return super().send(call, timeout)
        self.refused += 1
        return Reply(429, {"retry-after": str(self.wait)}, {"error": {"message": "slow down"}})


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_the_pauses_between_attempts_count(driver: str):
    model = Busy(relevance, features=("json_schema", "system"))
    scorer = scorer_for("sliding", model, budget=Budget(deadline=1.0), max_retries=1000)
    started = time.monotonic()
    if driver == "sync":
        ranking = Reranker(scorer).rank(QUERY, TEXTS)
    else:
        ranking = asyncio.run(Reranker(scorer).arank(QUERY, TEXTS))
    assert time.monotonic() - started < 5.0
    assert 1 <= model.refused <= 4
    assert ranking.usage.requests == 1 + model.refused
    assert ranking.degraded
    assert numbers(ranking) == [*NUMBERS[:9], *sorted(NUMBERS[9:], reverse=True)]


def test_a_pause_beyond_the_deadline_is_not_begun():
    model = Busy(relevance, features=("json_schema", "system"))
    model.wait = 30.0
    started = time.monotonic()
    ranking = Reranker(scorer_for("sliding", model, budget=Budget(deadline=5.0))).rank(QUERY, TEXTS)
    assert time.monotonic() - started < 2.0
    assert model.refused == 1
    assert ranking.degraded
    assert any("429" in warning or "slow down" in warning for warning in ranking.warnings)


def test_where_nothing_at_all_was_answered_in_time_it_is_the_error():
    """A ranking that owes nothing to the model is none, unless a fallback is asked for."""
    model = Busy(relevance, features=("json_schema", "system"))
    model.questions.append(None)  # type: ignore[arg-type]  # as if it had answered once
    scorer = scorer_for("sliding", model, budget=Budget(deadline=0.1), max_retries=1000)
    with pytest.raises(RateLimitError, match="mock"):
        Reranker(scorer).rank(QUERY, TEXTS)
    kept = Reranker(scorer, on_error="passthrough").rank(QUERY, TEXTS)
    assert numbers(kept) == list(NUMBERS)
    assert kept.degraded


def test_a_query_waits_for_the_others_of_its_batch_without_spending_its_time():
    """In rounds shared with a slow query, the fast one's clock stands still while it only waits."""

    class SlowQuery(MockChatModel):
        def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
            if "slow" in call.request.messages[-1].content:  # type: ignore[union-attr]  # a ChatCall has one
                time.sleep(0.3)
            return super().send(call, timeout)

    model = SlowQuery(relevance, features=("json_schema", "system"))
    reranker = Reranker(scorer_for("sliding", model, budget=Budget(deadline=0.8)))
    slow, fast = reranker.rank_many(["slow?", "fast?"], [TEXTS, TEXTS])
    assert_flagged(slow, "deadline=0.8")
    assert not fast.degraded
