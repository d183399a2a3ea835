"""The life of a reranker's connections: event loops, threads, forks, interrupts."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest

from http_loopback import MODELS, QUERY, TEXTS, assert_right, eventually, forked, leaving_nothing_open, made
from rerank_servers import native, relevance, serve
from uprank import Ranking
from uprank.scorers.http import retries


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


# Event loops.


def test_loops_one_after_another_leave_nothing_open(service: str, no_leaks: None) -> None:
    with serve(service) as server:
        reranker = made(service, server)

        async def main() -> list[Ranking]:
            return list(await asyncio.gather(*(reranker.arank(QUERY, TEXTS) for _ in range(4))))

        for _ in range(3):
            assert_right(asyncio.run(main()), [QUERY] * 4, service)
            assert eventually(lambda: server.open_connections == 0)
        assert server.connections <= 12


@pytest.mark.no_cover
def test_two_loops_at_once_and_threads_share_a_reranker(service: str, no_leaks: None) -> None:
    with serve(service, delay=0.01) as server, made(service, server) as reranker:

        async def main(name: str) -> list[Ranking]:
            found = []
            for number in range(10):
                found += await asyncio.gather(*(reranker.arank(f"{name} {number} {each}", TEXTS) for each in range(3)))
            return found

        def thread(name: str) -> list[Ranking]:
            return [reranker.rank(f"{name} {number}", TEXTS) for number in range(10)]

        with ThreadPoolExecutor(8) as pool:
            loops = {name: pool.submit(asyncio.run, main(name)) for name in ("one", "two", "three")}
            threads = {name: pool.submit(thread, name) for name in ("four", "five", "six")}
            for name, running in loops.items():
                wanted = [f"{name} {number} {each}" for number in range(10) for each in range(3)]
                assert_right(running.result(60), wanted, service)
            for name, running in threads.items():
                assert_right(running.result(60), [f"{name} {number}" for number in range(10)], service)
        assert eventually(lambda: server.open_connections <= 3)  # the threads' own are kept


def loops_and_clients() -> int:
    gc.collect()
    return sum(issubclass(type(each), (asyncio.AbstractEventLoop, httpx.AsyncClient)) for each in gc.get_objects())


def test_a_loop_that_is_gone_is_forgotten(service: str) -> None:
    """A program that calls asyncio.run() for each query keeps neither its loops nor their clients."""
    with serve(service) as server, made(service, server) as reranker:
        for _ in range(3):
            asyncio.run(reranker.arank(QUERY, TEXTS))
        before = loops_and_clients()
        for _ in range(10):
            asyncio.run(reranker.arank(QUERY, TEXTS))
        assert loops_and_clients() <= before + 2  # the last one's are dropped by the next


def test_a_cancelled_run_leaves_nothing_open(service: str, no_leaks: None) -> None:
    with serve(service, delay=5.0) as server:
        reranker = made(service, server, max_documents=1)

        async def main() -> None:
            asyncio.get_running_loop().call_later(0.2, asyncio.current_task().cancel)
            await reranker.arank(QUERY, TEXTS)

        with pytest.raises(asyncio.CancelledError):
            asyncio.run(main())
        assert eventually(lambda: server.open_connections == 0)


def test_tasks_left_running_when_the_loop_ends_leave_nothing_open(no_leaks: None) -> None:
    with serve("jina", delay=5.0) as server:
        reranker = made("jina", server)

        async def main() -> None:
            left.append(asyncio.create_task(reranker.arank(QUERY, TEXTS)))
            await asyncio.sleep(0.1)

        left: list[asyncio.Task[Ranking]] = []
        asyncio.run(main())
        assert left[0].cancelled()
        assert eventually(lambda: server.open_connections == 0)


def test_rank_works_inside_a_running_loop_and_from_a_thread_beside_it(service: str) -> None:
    """As in a notebook."""
    with serve(service) as server, made(service, server, max_documents=2) as reranker:

        async def main() -> list[Ranking]:
            awaited = await reranker.arank(QUERY, TEXTS)
            blocking = reranker.rank(QUERY, TEXTS)
            beside = await asyncio.to_thread(reranker.rank, QUERY, TEXTS)
            many = reranker.rank_many([QUERY] * 2, [TEXTS] * 2)
            return [awaited, blocking, beside, *many]

        assert_right(asyncio.run(main()), [QUERY] * 5, service)


SCRIPT = """
    import asyncio, sys, warnings
    sys.path.insert(0, {tests!r})
    from rerank_servers import serve
    from uprank import Reranker

    async def main(reranker):
        await asyncio.gather(*(reranker.arank("q", ["a b", "c d", "e f"]) for _ in range(8)))
        if {cancel}:
            server.delay = 5.0
            task = asyncio.ensure_future(reranker.arank("q", ["a b", "c d", "e f"]))
            await asyncio.sleep(0.1)
            task.cancel()

    with serve({service!r}) as server:
        reranker = Reranker({model!r}, api_key="k", base_url=server.base_url, max_documents=2)
        for _ in range(2):
            asyncio.run(main(reranker))
            server.delay = 0.0
        {sync}
        del reranker
"""


@pytest.mark.rotated(2)
@pytest.mark.parametrize(
    ("cancel", "sync"), [(True, ""), (False, 'reranker.rank("q", ["a", "b"]); reranker.close()')], ids=["async", "both"]
)
def test_a_program_ends_without_a_warning_of_any_kind(service: str, cancel: bool, sync: str) -> None:
    here = str(Path(__file__).parent)
    script = SCRIPT.format(tests=here, cancel=cancel, service=service, model=MODELS[service], sync=sync)
    # Not all warnings: the SDKs raise some of their own when they are imported.
    options = ["-W", "ignore", "-W", "error::ResourceWarning", "-W", "error::RuntimeWarning"]
    done = subprocess.run(
        [sys.executable, *options, "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


# Threads, forks, interrupts.


@pytest.mark.no_cover
def test_many_threads_share_one_reranker(service: str) -> None:
    names = [f"{QUERY} {number}" for number in range(120)]
    with serve(service) as server, made(service, server, max_documents=2) as reranker:
        with ThreadPoolExecutor(24) as pool:
            assert_right(list(pool.map(lambda name: reranker.rank(name, TEXTS), names)), names, service)
        assert len(server.posts) == 240
        assert server.connections <= 50


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_uses_connections_of_its_own(service: str) -> None:
    with serve(service) as server, made(service, server, max_documents=2) as reranker:
        wanted = {index: native(service, relevance(QUERY, text)) for index, text in enumerate(TEXTS)}

        def calls() -> None:
            for _ in range(3):
                found = [reranker.rank(QUERY, TEXTS), asyncio.run(reranker.arank(QUERY, TEXTS))]
                assert all({hit.index: hit.score for hit in ranking} == wanted for ranking in found)
            reranker.close()

        calls()
        reranker.rank(QUERY, TEXTS)
        before = server.connections
        with ThreadPoolExecutor(4) as pool:  # the parent goes on meanwhile
            going = [pool.submit(reranker.rank, f"{QUERY} {number}", TEXTS) for number in range(40)]
            assert forked(calls) == 0
            assert_right([each.result(20) for each in going], [f"{QUERY} {n}" for n in range(40)], service)
        assert server.connections > before
        before = server.connections
        assert_right([reranker.rank(QUERY, TEXTS)], [QUERY], service)
        assert server.connections == before  # the child closed none of the parent's


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_forked_while_another_thread_holds_the_locks_can_close_and_call() -> None:
    with serve("jina") as server, made("jina", server) as reranker:
        reranker.rank(QUERY, TEXTS)
        clients = reranker.scorer._endpoint._clients

        def close_first() -> None:
            reranker.close()
            assert len(reranker.rank(QUERY, TEXTS)) == 3

        with clients._lock:
            assert forked(close_first) == 0
        before = server.connections
        assert_right([reranker.rank(QUERY, TEXTS)], [QUERY], "jina")
        assert server.connections == before


@pytest.mark.skipif(not hasattr(signal, "pthread_kill"), reason="no signals to threads on this system")
@pytest.mark.parametrize("chunked", [False, True])
def test_an_interrupt_ends_a_call_at_once_and_the_next_one_works(service: str, chunked: bool) -> None:
    with serve(service, delay=5.0) as server:
        reranker = made(service, server, max_documents=1 if chunked else 10)

        def interrupt() -> None:
            assert eventually(lambda: server.at_once == (3 if chunked else 1))
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

        with ThreadPoolExecutor(1) as pool:
            interrupting = pool.submit(interrupt)
            started = time.monotonic()
            with pytest.raises(KeyboardInterrupt):
                reranker.rank(QUERY, TEXTS)
            assert time.monotonic() - started < 2
            interrupting.result(5)
        server.delay = 0.0
        assert_right([reranker.rank(QUERY, TEXTS)], [QUERY], service)
        reranker.close()
