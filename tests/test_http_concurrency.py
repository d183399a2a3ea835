"""Many calls at once, cancelled calls, and how few connections they take; timed where time is the promise."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor

import pytest

from http_loopback import MODELS, QUERY, TEXTS, assert_right, eventually, made
from rerank_servers import RerankServer, closed, reset, serve, silent, status
from uprank import Ranking, Reranker
from uprank.errors import ConnectionFailedError, DeadlineExceededError, ServerError
from uprank.scorers.http import retries

AT_ONCE = 48


@pytest.fixture(params=list(MODELS))
def service(request: pytest.FixtureRequest) -> str:
    if request.param == "cohere":
        pytest.importorskip("cohere")
    return request.param


def queries() -> list[str]:
    return [f"{QUERY} number {number}" for number in range(AT_ONCE)]


def within(seconds: float, measured: Callable[[], float], tries: int = 3) -> bool:
    """Whether one of a few tries is fast enough: another process may take the processor from one of them."""
    taken = [seconds]
    for _ in range(tries):
        taken.append(measured())
        if taken[-1] < seconds:
            return True
    pytest.fail(f"none of {[round(value, 3) for value in taken[1:]]} s is under {seconds} s")


def timed(call: Callable[[], object]) -> float:
    started = time.monotonic()
    call()
    return time.monotonic() - started


# 48 at once against a server that takes a second.


def in_tasks(reranker: Reranker) -> list[Ranking]:
    async def all_of_them() -> list[Ranking]:
        return list(await asyncio.gather(*(reranker.arank(query, TEXTS) for query in queries())))

    return asyncio.run(all_of_them())


def in_threads(reranker: Reranker) -> list[Ranking]:
    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(lambda query: reranker.rank(query, TEXTS), queries()))


def in_one_async_call(reranker: Reranker) -> list[Ranking]:
    return asyncio.run(reranker.arank_many(queries(), [TEXTS] * AT_ONCE))


def in_one_call(reranker: Reranker) -> list[Ranking]:
    return reranker.rank_many(queries(), [TEXTS] * AT_ONCE)


all_ways = pytest.mark.parametrize(
    ("service", "run"),
    [
        *(("jina", run) for run in (in_tasks, in_threads, in_one_async_call, in_one_call)),
        *(("cohere", run) for run in (in_tasks, in_threads)),
    ],
    indirect=["service"],
)


@pytest.mark.no_cover
@all_ways
def test_48_reranks_are_in_flight_at_once(service: str, run: Callable[[Reranker], list[Ranking]]) -> None:
    """The server answers none of them before all are there."""
    with serve(service) as server, made(service, server) as reranker:
        server.hold_until(AT_ONCE)
        assert_right(run(reranker), queries(), service)
        assert server.most_at_once == AT_ONCE
        assert len(server.posts) == AT_ONCE


@pytest.mark.no_cover
@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_chunks_of_one_query_are_in_flight_at_once(asynchronous: bool) -> None:
    texts = [f"Document {number}." for number in range(AT_ONCE)]
    with serve("jina") as server, made("jina", server, max_documents=1) as reranker:
        server.hold_until(AT_ONCE)
        found = asyncio.run(reranker.arank(QUERY, texts)) if asynchronous else reranker.rank(QUERY, texts)
        assert_right([found], [QUERY], "jina", texts)
        assert server.most_at_once == AT_ONCE


@pytest.mark.slow
@pytest.mark.no_cover
@all_ways
def test_48_reranks_at_once_take_little_more_than_one(service: str, run: Callable[[Reranker], list[Ranking]]) -> None:
    with serve(service, delay=1.0) as server:

        def measured() -> float:
            server.most_at_once = 0
            with made(service, server) as reranker:
                started = time.monotonic()
                rankings = run(reranker)
                taken = time.monotonic() - started
            assert_right(rankings, queries(), service)
            assert server.most_at_once == AT_ONCE
            return taken

        assert within(1.5, measured)


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize("asynchronous", [False, True])
def test_48_chunks_of_one_query_take_little_more_than_one(asynchronous: bool) -> None:
    texts = [f"Document {number}." for number in range(AT_ONCE)]
    with serve("jina", delay=1.0) as server:

        def measured() -> float:
            server.most_at_once = 0
            with made("jina", server, max_documents=1) as reranker:
                started = time.monotonic()
                found = asyncio.run(reranker.arank(QUERY, texts)) if asynchronous else reranker.rank(QUERY, texts)
                taken = time.monotonic() - started
            assert_right([found], [QUERY], "jina", texts)
            assert server.most_at_once == AT_ONCE
            return taken

        assert within(1.5, measured)


@pytest.mark.no_cover
@pytest.mark.parametrize("run", [in_tasks, in_threads, in_one_async_call, in_one_call])
def test_max_concurrency_holds_for_all_ways_to_call(service: str, run: Callable[[Reranker], list[Ranking]]) -> None:
    with serve(service, delay=0.02) as server, made(service, server, max_concurrency=5) as reranker:
        assert_right(run(reranker), queries(), service)
        assert server.most_at_once == 5
        assert len(server.posts) == AT_ONCE


def test_max_concurrency_holds_for_threads_tasks_and_chunks_together() -> None:
    texts = [f"Document {number}." for number in range(6)]
    with serve("jina", delay=0.02) as server, made("jina", server, max_concurrency=4, max_documents=2) as reranker:

        async def tasks() -> list[Ranking]:
            return list(await asyncio.gather(*(reranker.arank(QUERY, texts) for _ in range(8))))

        with ThreadPoolExecutor(10) as pool:
            loops = [pool.submit(asyncio.run, tasks()) for _ in range(2)]
            calls = [pool.submit(reranker.rank, QUERY, texts) for _ in range(8)]
            rankings = [ranking for loop in loops for ranking in loop.result()] + [call.result() for call in calls]
        assert_right(rankings, [QUERY] * 24, "jina", texts)
        assert server.most_at_once == 4
        assert len(server.posts) == 72


# Cancelled calls.


async def no_other_task() -> bool:
    return asyncio.all_tasks() == {asyncio.current_task()}


async def cancelled_after(seconds: float, call: Awaitable[object]) -> float:
    """The seconds until a call is given up that may take so many."""
    started = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(call, seconds)
    taken = time.monotonic() - started
    assert await no_other_task()
    return taken


@pytest.mark.no_cover
@pytest.mark.parametrize(("chunks", "calls"), [(1, 1), (3, 1), (1, 6), (3, 6)])
def test_a_cancelled_call_returns_at_once_and_gives_up_its_connections(service: str, chunks: int, calls: int) -> None:
    async def main(reranker: Reranker, server: RerankServer) -> float:
        if calls == 1:
            call: Awaitable[object] = reranker.arank(QUERY, TEXTS)
        else:
            call = reranker.arank_many(queries()[:calls], [TEXTS] * calls)
        taken = await cancelled_after(0.1, call)
        given_up = await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
        assert given_up, "the server still has a connection that nobody listens to"
        return taken

    with serve(service, delay=30.0) as server:

        def measured() -> float:
            before = server.connections
            reranker = made(service, server, max_documents=-(-len(TEXTS) // chunks))
            taken = asyncio.run(main(reranker, server))
            assert server.connections - before == chunks * calls
            return taken

        assert within(0.2, measured)
        server.delay = 0.0
        with made(service, server) as reranker:  # the cancelled calls hold no place
            assert_right([reranker.rank(QUERY, TEXTS)], [QUERY], service)


def test_a_call_cancelled_while_it_waits_for_its_place_returns_at_once() -> None:
    async def main(reranker: Reranker) -> float:
        first = asyncio.ensure_future(reranker.arank(QUERY, TEXTS))
        await asyncio.sleep(0.05)
        started = time.monotonic()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(reranker.arank(QUERY, TEXTS), 0.1)
        taken = time.monotonic() - started
        first.cancel()
        await asyncio.wait([first])
        assert await no_other_task()
        return taken

    with serve("jina", delay=30.0) as server:

        def measured() -> float:
            server.requests.clear()
            with made("jina", server, max_concurrency=1) as reranker:
                taken = asyncio.run(main(reranker))
            assert len(server.posts) == 1
            return taken

        assert within(0.2, measured)


def test_a_call_cancelled_while_it_waits_to_retry_returns_at_once() -> None:
    async def main(reranker: Reranker) -> float:
        return await cancelled_after(0.1, reranker.arank(QUERY, TEXTS))

    with serve("jina") as server, made("jina", server) as reranker:
        server.fail_always(status(429, retry_after=20))
        assert within(0.2, lambda: asyncio.run(main(reranker)))


def test_cancelling_some_calls_leaves_the_others_their_answers() -> None:
    async def main(reranker: Reranker) -> None:
        tasks = [asyncio.ensure_future(reranker.arank(query, TEXTS)) for query in queries()]
        await asyncio.sleep(0.15)
        for task in tasks[::2]:
            task.cancel()
        ended = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(outcome, asyncio.CancelledError) for outcome in ended[::2])
        kept = [outcome for outcome in ended[1::2] if isinstance(outcome, Ranking)]
        assert_right(kept, queries()[1::2], "jina")
        assert await no_other_task()

    # Fewer places than calls: some are cancelled in flight, some while they wait.
    with serve("jina", delay=0.3) as server, made("jina", server, max_concurrency=16) as reranker:
        asyncio.run(main(reranker))
        assert server.most_at_once <= 16 + 8  # those given up count until the server has seen it


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_chunk_that_fails_ends_the_call_without_waiting_for_the_others(asynchronous: bool) -> None:
    with serve("jina", delay=0.0) as server:
        server.fail_when(lambda request: TEXTS[0] in request.texts, status(501))
        server.fail_always(silent(20))

        def measured() -> float:
            with made("jina", server, max_documents=1) as reranker:
                started = time.monotonic()
                with pytest.raises(ServerError):
                    asyncio.run(reranker.arank(QUERY, TEXTS)) if asynchronous else reranker.rank(QUERY, TEXTS)
                return time.monotonic() - started

        assert within(1.0, measured)


# Connections.


@pytest.mark.no_cover
@pytest.mark.parametrize("calls", [100, pytest.param(1_000, marks=pytest.mark.slow)])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_many_calls_one_after_another_open_one_connection(service: str, asynchronous: bool, calls: int) -> None:
    async def main(reranker: Reranker) -> None:
        for _ in range(calls):
            assert len(await reranker.arank(QUERY, TEXTS[:2])) == 2

    with serve(service) as server, made(service, server) as reranker:
        if asynchronous:
            asyncio.run(main(reranker))
        else:
            for _ in range(calls):
                assert len(reranker.rank(QUERY, TEXTS[:2])) == 2
        assert (len(server.posts), server.connections) == (calls, 1)


def test_rerankers_of_one_host_share_no_connection_but_each_keeps_its_own() -> None:
    with serve("jina") as server, made("jina", server) as one, made("jina", server) as other:
        for _ in range(5):
            one.rank(QUERY, TEXTS)
            other.rank(QUERY, TEXTS)
        assert server.connections == 2


@pytest.mark.no_cover
def test_as_many_connections_as_calls_at_once_are_kept() -> None:
    with serve("jina", delay=0.05) as server, made("jina", server) as reranker:
        for _ in range(3):
            assert_right(in_threads(reranker), queries(), "jina")
        assert server.connections <= AT_ONCE + 2  # a thread may start late and find one free, or not


# Time limits.


@pytest.mark.parametrize("asynchronous", [False, True])
@pytest.mark.parametrize("chunks", [1, 3])
def test_the_deadline_holds_while_the_server_is_silent(asynchronous: bool, chunks: int) -> None:
    with serve("jina", delay=30.0) as server:

        def measured() -> float:
            options = {"deadline": 0.3, "max_documents": -(-len(TEXTS) // chunks)}
            with made("jina", server, **options) as reranker:
                started = time.monotonic()
                with pytest.raises(DeadlineExceededError, match="deadline"):
                    asyncio.run(reranker.arank(QUERY, TEXTS)) if asynchronous else reranker.rank(QUERY, TEXTS)
                taken = time.monotonic() - started
            assert taken > 0.25
            return taken

        assert within(0.6, measured)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_the_deadline_counts_the_wait_for_a_place(asynchronous: bool) -> None:
    with serve("jina", delay=1.0) as server, made("jina", server, max_concurrency=1, deadline=0.3) as impatient:
        # The same host, key and limits: the same places.
        patient = made("jina", server, max_concurrency=1)
        with ThreadPoolExecutor(1) as pool:
            first = pool.submit(patient.rank, QUERY, TEXTS)
            assert eventually(lambda: server.at_once == 1)
            with pytest.raises(DeadlineExceededError, match="no place in time"):
                asyncio.run(impatient.arank(QUERY, TEXTS)) if asynchronous else impatient.rank(QUERY, TEXTS)
            assert_right([first.result()], [QUERY], "jina")
        assert len(server.posts) == 1  # the other was never sent, and so not billed
        patient.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_timeout_is_repeated_once_and_no_more(asynchronous: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.01)
    with serve("jina") as server, made("jina", server, timeout=0.2, deadline=600.0) as reranker:
        server.fail_always(silent(5))
        with pytest.raises(DeadlineExceededError):
            asyncio.run(reranker.arank(QUERY, TEXTS)) if asynchronous else reranker.rank(QUERY, TEXTS)
        assert len(server.posts) == 2


@pytest.mark.parametrize("fault", [closed(), reset()], ids=str)
@pytest.mark.parametrize("asynchronous", [False, True])
def test_broken_connections_are_retried_as_often_as_asked(
    fault: object, asynchronous: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.01)
    with serve("jina") as server, made("jina", server, max_retries=3) as reranker:
        server.fail(range(3), fault)
        ranking = asyncio.run(reranker.arank(QUERY, TEXTS)) if asynchronous else reranker.rank(QUERY, TEXTS)
        assert_right([ranking], [QUERY], "jina")
        assert (ranking.usage.requests, ranking.usage.retries) == (4, 3)
        server.fail(range(4, 8), fault)
        with pytest.raises(ConnectionFailedError, match="after 3 retries"):
            asyncio.run(reranker.arank(QUERY, TEXTS)) if asynchronous else reranker.rank(QUERY, TEXTS)
        assert len(server.posts) == 8


# 429 under load.


def test_too_many_requests_lower_what_is_sent_at_once_and_all_are_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_MINUTE", 0.02)
    with serve("jina", delay=0.03) as server:
        server.fail_when(lambda _: server.at_once > 8, status(429))
        with made("jina", server, max_concurrency=32, max_retries=12, deadline=30) as reranker:
            rankings = reranker.rank_many(queries() * 2, [TEXTS] * AT_ONCE * 2)
            assert_right(rankings, queries() * 2, "jina")
        refused = sum(ranking.usage.retries for ranking in rankings)
        # At 32 at once throughout, three of four would be refused.
        assert 0 < refused < AT_ONCE * 2
