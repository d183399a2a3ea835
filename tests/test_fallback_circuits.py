"""Fallback: which models are left alone, who tries them again, and what time each has."""

from __future__ import annotations

import asyncio
import copy
import pickle
import re
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from fallback_parts import LEADING, QUERY, TEXTS, Clock, Model, both_ways, made, ranked
from rerank_servers import serve, status
from uprank import (
    ContentRefusedError,
    DeadlineExceededError,
    InvalidInputError,
    QueryTooLongError,
    RateLimitError,
    RequestTooLargeError,
    Reranker,
    ServerError,
)
from uprank.errors import AllModelsFailedError
from uprank.scorers import HTTPScorer, ScoreRequest
from uprank.scorers.combined.breaker import Breaker
from uprank.scorers.combined.fallback import Fallback


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_down_service_gets_five_requests_then_one_try_a_cooldown_and_all_of_them_once_it_is_back(clock):
    with serve("jina", key="k") as first, serve("jina", key="k") as second:
        models = [HTTPScorer(n, provider="jina", base_url=s.base_url, api_key="k", max_retries=0)
                  for n, s in (("a", first), ("b", second))]  # fmt: skip
        with Reranker(Fallback(models, clock=clock)) as reranker:

            def asked(calls: int) -> list[str]:
                return [reranker.rank(QUERY, TEXTS).model for _ in range(calls)]

            first.fail_always(status(503))
            assert asked(40) == ["jina:b"] * 40
            assert (len(first.posts), len(second.posts)) == (5, 40)
            clock.now += 30.0
            assert asked(10) == ["jina:b"] * 10
            assert len(first.posts) == 6
            clock.now += 60.0  # the second cooldown is twice as long
            first.heal()
            assert asked(10) == ["jina:a"] * 10
            assert (len(first.posts), len(second.posts)) == (16, 50)


def fail_until_open(reranker: Reranker, times: int = 5) -> None:
    for _ in range(times):
        reranker.rank(QUERY, TEXTS)


def test_a_model_left_alone_is_told_of(clock):
    first, second = Model("first", ServerError("down")), Model("second")
    fallback = Fallback([first, second], clock=clock)
    reranker = Reranker(fallback)
    fail_until_open(reranker)
    clock.now += 10.0
    ranking = reranker.rank(QUERY, TEXTS)
    assert len(first.asked) == 5
    [attempt] = ranking.attempts
    assert (attempt.model, attempt.kind, attempt.seconds) == ("first", "CircuitOpen", 0.0)
    assert attempt.error == "not asked after 5 failures in a row, the last ServerError: down (asked again in 20 s)"
    assert ranking.warnings == (f"second answered; first did not (CircuitOpen: {attempt.error})",)
    states = [(state.model, state.state, state.failures, state.retry_in) for state in fallback.states]
    assert states == [("first", "open", 5, 20.0), ("second", "closed", 0, 0.0)]


@pytest.mark.parametrize("name", LEADING)
def test_what_says_nothing_of_the_model_does_not_count(name):
    fallback = Fallback([Model("first", made(name)), Model("second")], breaker=Breaker(failures=2))
    fail_until_open(Reranker(fallback), 3)
    neutral = isinstance(made(name), (QueryTooLongError, RequestTooLargeError, ContentRefusedError))
    assert (fallback.states[0].state, fallback.states[0].failures) == (("closed", 0) if neutral else ("open", 2))


def test_of_queries_asked_together_one_answer_proves_that_the_model_works():
    first = Model("first", lambda query: None if query == "7" else ServerError("down"))
    fallback = Fallback([first, Model("second")], breaker=Breaker(failures=2))
    reranker = Reranker(fallback)
    queries = [str(number) for number in range(9)]
    reranker.rank_many(queries, [TEXTS] * 9)
    assert fallback.states[0].state == "closed"
    reranker.rank_many(queries[:2], [TEXTS] * 2)  # none
    assert (fallback.states[0].state, fallback.states[0].failures) == ("open", 2)


def test_one_failure_of_a_whole_batch_counts_once():
    class Broken(Model):
        def score_many(self, requests):
            raise RuntimeError("out of memory")

    fallback = Fallback([Broken("first"), Model("second")], breaker=Breaker(failures=2))
    assert [ranking.model for ranking in Reranker(fallback).rank_many(["a", "b", "c"], [TEXTS] * 3)] == ["second"] * 3
    assert (fallback.states[0].state, fallback.states[0].failures) == ("closed", 1)


def test_a_service_that_asks_to_wait_longer_is_left_alone_longer(clock):
    first = Model("first", RateLimitError("too many", retry_after=50.0))
    fallback = Fallback([first, Model("second")], breaker=Breaker(failures=1), clock=clock)
    fail_until_open(Reranker(fallback), 1)
    assert fallback.states[0].retry_in == 50.0


def test_where_all_are_left_alone_the_last_is_asked_all_the_same_and_may_recover(clock):
    models = [Model("first", ServerError("down")), Model("second", ServerError("down"))]
    fallback = Fallback(models, clock=clock)
    reranker = Reranker(fallback)
    for _ in range(8):
        with pytest.raises(AllModelsFailedError) as raised:
            reranker.rank(QUERY, TEXTS)
    assert [attempt.kind for attempt in raised.value.attempts] == ["CircuitOpen", "ServerError"]
    assert [len(model.asked) for model in models] == [5, 8]
    assert [state.state for state in fallback.states] == ["open", "open"]
    models[1].fail = None
    assert reranker.rank(QUERY, TEXTS).model == "second"
    assert [state.state for state in fallback.states] == ["open", "closed"]


def test_without_a_breaker_every_model_is_asked_every_time():
    first = Model("first", ServerError("down"))
    fail_until_open(Reranker(Fallback([first, Model("second")], breaker=None)), 20)
    assert len(first.asked) == 20


def test_of_threads_that_come_while_it_is_tried_none_asks_it_too(clock):
    trying, go_on = threading.Event(), threading.Event()

    def tried(query: str) -> None:
        trying.set()
        assert go_on.wait(20)

    first = Model("first", ServerError("down"))
    fallback = Fallback([first, Model("second")], breaker=Breaker(failures=1), clock=clock)
    reranker = Reranker(fallback)
    fail_until_open(reranker, 1)
    clock.now += 30.0
    first.fail = tried
    with ThreadPoolExecutor(9) as threads:
        probe = threads.submit(reranker.rank, QUERY, TEXTS)
        try:
            assert trying.wait(10)
            others = [threads.submit(reranker.rank, QUERY, TEXTS) for _ in range(8)]
            rankings = [other.result(10) for other in others]
        finally:
            go_on.set()
        assert probe.result(10).model == "first"
    assert {ranking.model for ranking in rankings} == {"second"}
    assert "a call is trying it again" in rankings[0].attempts[0].error
    assert len(first.asked) == 2
    assert fallback.states[0].state == "closed"


async def test_of_tasks_that_race_for_the_try_one_gets_it_and_a_cancelled_one_frees_it(clock):
    started, release = asyncio.Event(), asyncio.Event()
    calls = []

    async def first(query: str, texts: list[str]) -> list[float]:
        calls.append(query)
        if len(calls) == 1:
            raise ServerError("down")
        started.set()
        await release.wait()
        return [1.0] * len(texts)

    fallback = Fallback([first, Model("second")], breaker=Breaker(failures=1), clock=clock)
    reranker = Reranker(fallback)
    await reranker.arank(QUERY, TEXTS)
    clock.now += 30.0
    probe = asyncio.create_task(reranker.arank(QUERY, TEXTS))
    await asyncio.wait_for(started.wait(), 10)
    rankings = await asyncio.gather(*(reranker.arank(QUERY, TEXTS) for _ in range(5)))
    assert {ranking.model for ranking in rankings} == {"second"}
    assert len(calls) == 2
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert (fallback.states[0].state, fallback.states[0].retry_in) == ("half-open", 0.0)  # the next may try, at once
    release.set()
    assert (await reranker.arank(QUERY, TEXTS)).attempts == ()
    assert (fallback.states[0].state, len(calls)) == ("closed", 3)


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(3), InvalidInputError("a mistake")])
def test_an_interrupt_or_a_mistake_frees_the_try(error, clock):
    first = Model("first", ServerError("down"))
    fallback = Fallback([first, Model("second")], breaker=Breaker(failures=1), clock=clock)
    reranker = Reranker(fallback)
    fail_until_open(reranker, 1)
    clock.now += 30.0

    def end(query: str) -> None:
        raise error

    first.fail = end
    with pytest.raises(type(error)):
        reranker.rank(QUERY, TEXTS)
    assert (fallback.states[0].state, fallback.states[0].retry_in) == ("half-open", 0.0)
    first.fail = None
    assert reranker.rank(QUERY, TEXTS).model == "first"


def test_a_try_that_says_nothing_of_the_model_leaves_the_next_to_try(clock):
    first = Model("first", ServerError("down"))
    fallback = Fallback([first, Model("second")], breaker=Breaker(failures=1), clock=clock)
    reranker = Reranker(fallback)
    fail_until_open(reranker, 1)
    clock.now += 30.0
    first.fail = QueryTooLongError("too long")
    fail_until_open(reranker, 3)
    assert len(first.asked) == 4
    assert fallback.states[0].state == "half-open"


def test_copies_begin_with_closed_circuits(clock):
    fallback = Fallback([lengths_down, "bm25"], breaker=Breaker(failures=1, cooldown=7.0), deadline=60.0)
    fail_until_open(Reranker(fallback), 1)
    assert fallback.states[0].state == "open"
    pickled = pickle.loads(pickle.dumps(fallback))  # noqa: S301 - our own bytes
    for other in (copy.copy(fallback), copy.deepcopy(fallback), pickled, fallback.with_members(fallback.members)):
        assert [state.state for state in other.states] == ["closed", "closed"]
        assert Reranker(other).rank(QUERY, TEXTS).attempts[0].kind == "ScorerError"
        assert (other.states[0].state, other.states[0].retry_in > 6.0) == ("open", True)
    assert pickled.deadline == 60.0
    assert fallback.states[0].state == "open"


def lengths_down(query: str, texts: list[str]) -> list[float]:
    raise RuntimeError("down")


# --- the deadline


@both_ways
async def test_a_slow_model_is_given_up_in_time_for_the_next(way):
    release = threading.Event()

    def slow(query: str, texts: list[str]) -> list[float]:
        assert release.wait(20)
        return [1.0] * len(texts)

    async def aslow(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(20)
        return [1.0] * len(texts)

    fallback = Fallback([slow if way == "sync" else aslow, Model("second")], deadline=0.1)
    try:
        ranking = await ranked(Reranker(fallback), way)
    finally:
        release.set()
    assert ranking.model == "second"
    assert ranking.attempts[0].kind == "DeadlineExceededError"
    assert re.search(r"slow gave no answer within the 0\.0\d+ s that were left", ranking.attempts[0].error)
    assert 0.04 < ranking.attempts[0].seconds < 5.0
    assert fallback.states[0].failures == 1


def shares(fallback: Fallback, clock: Clock, used: Sequence[float]) -> list[float | None]:
    """What each model asked may use, where each takes so long, and fails."""
    plan = fallback._plan([ScoreRequest(QUERY, TEXTS)])
    [ask] = next(plan)
    found = [ask.seconds]
    for seconds in used:
        clock.now += seconds
        try:
            [ask] = plan.send([[ServerError("down")]])
        except StopIteration:
            break
        found.append(ask.seconds)
    plan.close()
    return found


def test_each_model_may_use_an_even_share_of_what_is_left(clock):
    fallback = Fallback([Model("a"), Model("b"), Model("c")], deadline=9.0, clock=clock)
    assert shares(fallback, clock, [3.0, 3.0]) == [3.0, 3.0, 3.0]
    assert shares(fallback, clock, [1.0, 0.0]) == [3.0, 4.0, 8.0]
    assert shares(Fallback([Model("a"), Model("b")], clock=clock), clock, [3.0]) == [None, None]


def test_no_time_is_kept_for_models_that_are_left_alone_but_for_the_last(clock):
    fallback = Fallback([Model(name) for name in "abcd"], deadline=9.0, clock=clock, breaker=Breaker(failures=2))
    for circuit in fallback._circuits[2:]:
        circuit.enter().failed("down", count=2)
    assert [state.state for state in fallback.states] == ["closed", "closed", "open", "open"]
    assert shares(fallback, clock, [1.0, 2.0]) == [3.0, 4.0, 6.0]


def test_a_model_is_not_asked_after_the_deadline(clock):
    def overrunning(query: str) -> Exception:
        clock.now += 10.0
        return ServerError("down")

    second = Model("second")
    fallback = Fallback([Model("first", overrunning), second], deadline=9.0, clock=clock)
    with pytest.raises(AllModelsFailedError, match="second was not asked: the deadline of 9 s had passed") as raised:
        Reranker(fallback).rank(QUERY, TEXTS)
    assert isinstance(raised.value.__cause__, DeadlineExceededError)
    assert second.asked == []
    assert fallback.states[1].failures == 0  # no fault of its own
