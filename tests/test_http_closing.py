"""Closing a reranker, also while calls are in flight, and connections that the server has closed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from http_loopback import MODELS, QUERY, TEXTS, assert_right, eventually, leaving_nothing_open, made
from rerank_servers import RerankServer, closed, serve
from uprank import Ranking, Reranker
from uprank.scorers.http import retries
from uprank.scorers.http.clients import Clients


@pytest.fixture(params=list(MODELS))
def service(request: pytest.FixtureRequest) -> str:
    if request.param == "cohere":
        pytest.importorskip("cohere")
    return request.param


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.01)


@pytest.fixture
def no_leaks() -> Iterator[None]:
    with leaving_nothing_open():
        yield


# Closing.


def test_close_closes_the_connections_and_the_next_call_opens_new_ones(service: str, no_leaks: None) -> None:
    with serve(service) as server:
        reranker = made(service, server)
        for number in range(3):
            with reranker:
                assert_right([reranker.rank(QUERY, TEXTS)], [QUERY], service)
                assert (server.open_connections, server.connections) == (1, number + 1)
            assert eventually(lambda: server.open_connections == 0)
            reranker.close()  # twice does no harm


def test_aclose_closes_the_connections_and_the_next_call_opens_new_ones(service: str, no_leaks: None) -> None:
    with serve(service) as server:
        reranker = made(service, server)

        async def main() -> None:
            for number in range(3):
                async with reranker:
                    assert_right([await reranker.arank(QUERY, TEXTS)], [QUERY], service)
                    assert (server.open_connections, server.connections) == (1, number + 1)
                assert await asyncio.to_thread(eventually, lambda: server.open_connections == 0)
                await reranker.aclose()

        asyncio.run(main())


def test_aclose_closes_what_threads_opened_too(service: str, no_leaks: None) -> None:
    with serve(service) as server:
        reranker = made(service, server)
        reranker.rank(QUERY, TEXTS)
        asyncio.run(reranker.aclose())
        assert eventually(lambda: server.open_connections == 0)


def test_close_inside_a_loop_closes_that_loops_connections(service: str, no_leaks: None) -> None:
    with serve(service) as server:
        reranker = made(service, server)

        async def main(pause: float) -> None:
            await reranker.arank(QUERY, TEXTS)
            reranker.close()
            await asyncio.sleep(pause)
            if pause:
                assert await asyncio.to_thread(eventually, lambda: server.open_connections == 0)

        for pause in (0.05, 0.0):  # also where the loop ends at once
            asyncio.run(main(pause))
            assert eventually(lambda: server.open_connections == 0)


def test_close_in_one_thread_closes_the_connections_of_a_loop_in_another(no_leaks: None) -> None:
    with serve("jina") as server:
        reranker = made("jina", server)
        asked, leave = threading.Event(), threading.Event()

        async def main() -> Ranking:
            await reranker.arank(QUERY, TEXTS)
            asked.set()
            await asyncio.to_thread(leave.wait, 10)
            return await reranker.arank(QUERY, TEXTS)

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(asyncio.run, main())
            assert asked.wait(10)
            assert server.open_connections == 1
            reranker.close()
            assert eventually(lambda: server.open_connections == 0)
            leave.set()
            assert_right([running.result(10)], [QUERY], "jina")
        assert eventually(lambda: server.open_connections == 0)


def test_close_before_any_call_does_nothing(service: str, no_leaks: None) -> None:
    with serve(service) as server:
        reranker = made(service, server)
        reranker.close()
        asyncio.run(reranker.aclose())
        assert server.connections == 0
        with reranker:
            assert_right([reranker.rank(QUERY, TEXTS)], [QUERY], service)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_calls_in_flight_when_it_is_closed_are_answered_all_the_same(
    service: str, asynchronous: bool, no_leaks: None
) -> None:
    names = [f"{QUERY} {number}" for number in range(8)]
    with serve(service, delay=0.3) as server:
        reranker = made(service, server)

        async def tasks() -> list[Ranking]:
            return list(await asyncio.gather(*(reranker.arank(name, TEXTS) for name in names)))

        def threads() -> list[Ranking]:
            with ThreadPoolExecutor(8) as pool:
                return list(pool.map(lambda name: reranker.rank(name, TEXTS), names))

        with ThreadPoolExecutor(1) as pool:
            running = pool.submit(asyncio.run, tasks()) if asynchronous else pool.submit(threads)
            assert eventually(lambda: server.at_once == 8)
            reranker.close()
            assert_right(running.result(20), names, service)
        # Neither asked twice, nor paid twice.
        assert len(server.posts) == 8
        reranker.close()
        assert eventually(lambda: server.open_connections == 0)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_client_closed_just_before_the_request_is_sent_is_replaced(
    service: str, asynchronous: bool, monkeypatch: pytest.MonkeyPatch, no_leaks: None
) -> None:
    closing = ["once"]
    sync, current = Clients.sync, Clients.current

    def closed_sync(clients: Clients) -> httpx.Client:
        client = sync(clients)
        if closing:
            closing.pop()
            clients.close()
        return client

    async def closed_current(clients: Clients) -> httpx.AsyncClient:
        client = await current(clients)
        if closing:
            closing.pop()
            await clients.aclose()
        return client

    monkeypatch.setattr(Clients, "sync", closed_sync)
    monkeypatch.setattr(Clients, "current", closed_current)
    with serve(service) as server, made(service, server) as reranker:
        found = asyncio.run(reranker.arank(QUERY, TEXTS)) if asynchronous else reranker.rank(QUERY, TEXTS)
        assert_right([found], [QUERY], service)
        assert (found.usage.retries, len(server.posts)) == (1, 1)


@pytest.mark.no_cover
def test_calls_and_closes_at_the_same_time_never_mix_up_answers(service: str, no_leaks: None) -> None:
    with serve(service, delay=0.002) as server:
        reranker = made(service, server, max_retries=9)
        over = threading.Event()

        def close() -> None:
            while not over.wait(0.01):
                reranker.close()

        def calls(name: str) -> None:
            for number in range(30):
                assert_right([reranker.rank(f"{name} {number}", TEXTS)], [f"{name} {number}"], service)

        async def acalls(name: str) -> None:
            for number in range(30):
                assert_right([await reranker.arank(f"{name} {number}", TEXTS)], [f"{name} {number}"], service)

        with ThreadPoolExecutor(8) as pool:
            closing = pool.submit(close)
            running = [pool.submit(calls, name) for name in "abcd"]
            running += [pool.submit(asyncio.run, acalls(name)) for name in "ef"]
            try:
                for each in running:
                    each.result(60)
            finally:
                over.set()
            closing.result(10)
        reranker.close()
        assert eventually(lambda: server.open_connections == 0)


# Connections that the server has closed.


def hang_up(server: RerankServer) -> None:
    """Close all connections from the server's side."""
    server._loop.call_soon_threadsafe(lambda: [each.transport.close() for each in list(server._open)])
    assert eventually(lambda: server.open_connections == 0)


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_idle_connection_that_the_server_closed_costs_nothing(service: str, asynchronous: bool) -> None:
    with serve(service) as server, made(service, server) as reranker:

        async def main() -> None:
            for _ in range(3):
                assert_right([await reranker.arank(QUERY, TEXTS)], [QUERY], service)
                await asyncio.to_thread(hang_up, server)

        if asynchronous:
            asyncio.run(main())
        else:
            for _ in range(3):
                assert_right([reranker.rank(QUERY, TEXTS)], [QUERY], service)
                hang_up(server)
        assert len(server.posts) == server.connections == 3


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_connection_closed_just_as_the_request_is_sent_is_retried(service: str, asynchronous: bool) -> None:
    with serve(service) as server, made(service, server) as reranker:
        server.fail(1, closed())

        async def main() -> list[Ranking]:
            return [await reranker.arank(QUERY, TEXTS) for _ in range(2)]

        found = asyncio.run(main()) if asynchronous else [reranker.rank(QUERY, TEXTS) for _ in range(2)]
        assert_right(found, [QUERY] * 2, service)
        assert [each.usage.retries for each in found] == [0, 1]
        assert server.connections == 2


def test_a_server_that_was_restarted_is_found_again(service: str) -> None:
    with serve(service) as server:
        reranker = made(service, server)
        reranker.rank(QUERY, TEXTS)
        hang_up(server)
        assert_right([reranker.rank(QUERY, TEXTS)], [QUERY], service)
        reranker.close()


def test_reranker_is_closed_by_the_with_block_also_when_it_raises(service: str) -> None:
    with serve(service) as server:

        def fails() -> None:
            with made(service, server) as reranker:
                reranker.rank(QUERY, TEXTS)
                raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            fails()
        assert eventually(lambda: server.open_connections == 0)


def test_no_connection_is_made_before_the_first_call(service: str) -> None:
    with serve(service) as server:
        made(service, server)
        Reranker(MODELS[service], api_key="k", base_url=server.base_url).rank(QUERY, [])
        assert server.connections == 0
