"""From a question to its answer: who waits, who is given up, who is turned away, and that everybody gets their own."""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import closing, contextmanager

import httpx
import pytest

from serving import serving
from uprank import Reranker
from uprank.scorers.local.vectors.jobs import VectorRunner

PATIENCE = 10.0  # seconds until something that should have happened has not
BODY = {"query": "q", "documents": ["a", "b"]}


class Held:
    """A scorer that answers when it is let go, and tells what became of its calls.

    Args:
        at_cancel: Awaited where a call is cancelled, before it ends.
    """

    def __init__(self, at_cancel: Callable[[], Awaitable[None]] | None = None) -> None:
        self.started = threading.Semaphore(0)
        self.cancelled = threading.Semaphore(0)
        self.open = threading.Event()
        self._at_cancel = at_cancel

    async def __call__(self, query: str, texts: list[str]) -> list[float]:
        self.started.release()
        try:
            while not self.open.is_set():
                await asyncio.sleep(0.005)
        except asyncio.CancelledError:
            self.cancelled.release()
            if self._at_cancel is not None:
                await self._at_cancel()
            raise
        return [float(number) for number in range(len(texts))]


@pytest.fixture
def held() -> Iterator[Held]:
    scorer = Held()
    yield scorer
    scorer.open.set()


@contextmanager
def asked(address: str, body: object = BODY) -> Iterator[socket.socket]:
    """A connection with a request under way, whose reply nobody has read."""
    content = json.dumps(body).encode()
    url = httpx.URL(address)
    with closing(socket.create_connection((url.host, url.port or 80), timeout=PATIENCE)) as connection:
        head = f"POST /v1/rerank HTTP/1.1\r\nHost: {url.host}\r\nContent-Length: {len(content)}\r\n\r\n"
        connection.sendall(head.encode() + content)
        yield connection


def status_of(connection: socket.socket) -> int:
    return int(connection.makefile("rb").readline().split()[1])


def happens(signal: threading.Semaphore) -> bool:
    return signal.acquire(timeout=PATIENCE)


def post(address: str, body: object = BODY) -> httpx.Response:
    return httpx.post(f"{address}/v1/rerank", json=body, timeout=PATIENCE)


# --- clients that leave


def test_a_client_that_leaves_has_its_call_cancelled_and_its_place_freed(held):
    with serving({"held": Reranker(held)}, max_queue=1) as address:
        with asked(address):
            assert happens(held.started)
            assert post(address).status_code == 429  # there is but one place
        assert happens(held.cancelled)
        held.open.set()
        assert post(address).status_code == 200


def test_a_client_that_leaves_does_not_take_others_with_it(held):
    with serving({"held": Reranker(held)}) as address, asked(address) as staying:
        assert happens(held.started)
        with asked(address):
            assert happens(held.started)
        assert happens(held.cancelled)
        held.open.set()
        assert status_of(staying) == 200
        assert not held.cancelled.acquire(blocking=False)


# --- deadlines


@pytest.mark.parametrize("deadline", [0.002, 0.1], ids=["at once", "later"])
def test_what_takes_longer_than_the_deadline_is_cancelled_and_answered_504(held, deadline):
    with serving({"held": Reranker(held)}, deadline=deadline, max_queue=1) as address:
        for _ in range(2):  # the first one has left its place
            reply = post(address)
            assert reply.status_code == 504
            assert reply.json()["error"]["type"] == "deadline_exceeded"
            assert f"{deadline:g} s" in reply.json()["message"]
            assert happens(held.cancelled)


def test_what_takes_long_but_ends_in_time_is_answered(held):
    timer = threading.Timer(0.1, held.open.set)
    with serving({"held": Reranker(held)}, deadline=PATIENCE) as address:
        timer.start()
        assert post(address).status_code == 200


def test_a_scorer_that_will_not_end_does_not_hold_up_the_504():
    release = threading.Event()

    async def linger() -> None:
        while not release.is_set():
            await asyncio.sleep(0.01)

    scorer = Held(linger)
    try:
        with serving({"held": Reranker(scorer)}, deadline=0.05) as address:
            assert post(address).status_code == 504
            assert happens(scorer.cancelled)  # and it lingers on
            release.set()
    finally:
        release.set()


def test_what_a_call_fails_with_after_it_was_given_up_is_not_logged(caplog):
    async def fail() -> None:
        raise RuntimeError("the words of a document")

    scorer = Held(fail)
    with caplog.at_level(logging.DEBUG), serving({"held": Reranker(scorer)}, deadline=0.05) as address:
        assert post(address).status_code == 504
        assert happens(scorer.cancelled)
        assert httpx.get(f"{address}/nothing").status_code == 404  # a turn of the loop, in which the call ends
        gc.collect()
    assert "the words of a document" not in caplog.text
    assert "never retrieved" not in caplog.text


# --- the bounded queue


def test_more_requests_than_may_be_under_way_are_turned_away_until_there_is_room(held):
    with serving({"held": Reranker(held)}, max_queue=2) as address:
        with asked(address) as first, asked(address) as second:
            assert happens(held.started)
            assert happens(held.started)
            refused = post(address)
            assert refused.status_code == 429
            assert int(refused.headers["retry-after"]) >= 1
            assert refused.json()["error"]["type"] == "overloaded"
            held.open.set()
            assert [status_of(first), status_of(second)] == [200, 200]
        assert [post(address).status_code for _ in range(5)] == [200] * 5
    assert not held.cancelled.acquire(blocking=False)


@pytest.mark.parametrize("status", [404, 422, 500])
def test_a_request_that_is_refused_leaves_no_place_taken(status):
    def fails(query: str, texts: list[str]) -> list[float]:
        raise MemoryError

    bodies = {404: {**BODY, "model": "none"}, 422: {**BODY, "query": " "}, 500: BODY}
    settings = {"models": {"fails": {"model": "bm25"}, "other": {"model": "bm25"}}}
    with serving({"fails": Reranker(fails)}, max_queue=1, **settings) as address:
        assert [post(address, bodies[status]).status_code // 100 for _ in range(3)] == [status // 100] * 3


# --- many at once


async def ask_all(address: str, bodies: Sequence[object], *, clients: int) -> list[httpx.Response]:
    """The replies to requests of so many clients at once, each of which asks one after the other."""

    async def ask(client: httpx.AsyncClient, some: Sequence[object]) -> list[httpx.Response]:
        return [await client.post("/v1/rerank", json=body) for body in some]

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(base_url=address, limits=limits, timeout=60) as client:
        asked = await asyncio.gather(*(ask(client, bodies[number::clients]) for number in range(clients)))
    replies: list[httpx.Response] = [asked[number % clients][number // clients] for number in range(len(bodies))]
    return replies


def test_requests_at_once_each_get_their_own_answer():
    rng = random.Random(7)

    async def slow(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(random.Random(query).random() * 0.02)  # so that they overtake each other
        return [random.Random(query + text).random() for text in texts]

    reranker = Reranker(slow, score_kind="probability")
    pool = [f"text {number}" for number in range(60)]
    bodies = [
        {"query": f"query {number}", "documents": rng.choices(pool, k=rng.randint(1, 40)), "top_n": rng.randint(1, 40)}
        for number in range(200)
    ]

    with serving({"slow": reranker}, max_queue=len(bodies)) as address:
        replies = asyncio.run(ask_all(address, bodies, clients=25))

    async def rank_all() -> list[list[tuple[int, float | None]]]:
        rankings = await asyncio.gather(
            *(reranker.arank(one["query"], one["documents"], top_n=one["top_n"]) for one in bodies)
        )
        return [[(hit.index, hit.score) for hit in ranking] for ranking in rankings]

    found = [[(one["index"], one["relevance_score"]) for one in reply.json()["results"]] for reply in replies]
    assert found == asyncio.run(rank_all())
    assert len({reply.headers["x-request-id"] for reply in replies}) == len(bodies)


def test_requests_at_once_share_the_batches_of_a_local_model(monkeypatch):
    """What clients ask at once, each by itself, is computed together, as one call over all would be."""
    batches: list[int] = []
    run = VectorRunner.run

    def counted(self: VectorRunner, rows: Sequence[object], lane: int) -> object:
        batches.append(len(rows))
        return run(self, rows, lane)

    monkeypatch.setattr(VectorRunner, "run", counted)
    clients = 64
    bodies = [
        {"query": f"what is {n}?", "documents": [f"{n} is the number {n}", f"{n} is odd"]} for n in range(clients)
    ]

    with Reranker("embedded", store=False) as reranker:
        reranker.load()
        with serving({"embedded": reranker}) as address:
            replies = asyncio.run(ask_all(address, bodies, clients=clients))
        served = list(batches)
    assert [reply.status_code for reply in replies] == [200] * clients
    assert sum(served) >= 3 * clients  # every query and every document of every client was computed
    assert len(served) < clients / 2
