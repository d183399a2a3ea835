"""Connections to the server as it runs: heads of requests that never end, and what it is to run in a thread."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx
import pytest

from raw_connection import RawConnection
from table_scorer import TableScorer
from uprank import ConfigurationError, Reranker
from uprank.errors import ModelLoadError
from uprank.scorers.base import Scores
from uprank.server import ServerSettings, protocol, serve_in_thread

TABLE = {"a": 0.25, "b": 0.75}
GET = b"GET /health/live HTTP/1.1\r\nhost: loopback\r\n"


@contextmanager
def running(scorer: TableScorer | None = None, **settings: object) -> Iterator[str]:
    """The server that `uprank serve` runs, in a thread."""
    given = ServerSettings.of({"port": 0, "models": {"table": "bm25"}, **settings})
    with serve_in_thread(given, {"table": Reranker(scorer or TableScorer("table", TABLE))}) as address:
        yield address


def port_of(address: str) -> int:
    port = urlsplit(address).port
    assert port is not None
    return port


def test_a_head_that_never_ends_is_refused():
    with running() as address, RawConnection(port_of(address), timeout=10) as connection:
        header = b"x-more: " + b"y" * 1_000 + b"\r\n"
        assert connection.ask(GET + header * 30 + b"\r\n").status == 200
        connection.send(GET)
        for _ in range(100):
            connection.send(header)
            if connection.answered():
                break
        assert connection.ask(b"").status == 431
        assert httpx.get(f"{address}/health/live").status_code == 200


def test_a_head_that_does_not_come_is_given_up(monkeypatch):
    monkeypatch.setattr(protocol, "_SLOWEST_HEAD", 0.2)
    with running() as address:
        with RawConnection(port_of(address), timeout=10) as silent:
            assert silent.ask(b"").status == 408
        with RawConnection(port_of(address), timeout=10) as slow:
            assert slow.ask(GET + b"\r\n").status == 200
            time.sleep(0.4)  # between requests another limit holds
            assert slow.ask(GET + b"\r\n").status == 200
            assert slow.opened == 1
            assert slow.ask(GET).status == 408


def test_a_server_in_a_thread_waits_for_its_models_and_leaves_the_process_alone(monkeypatch):
    monkeypatch.setattr("uprank.server.running._CLOSING", 0.05)
    closed = []

    class Lingering(TableScorer):
        async def aclose(self) -> None:
            await asyncio.sleep(0.3)
            closed.append(True)

    with running(Lingering("table", TABLE)) as address:
        body = {"query": "q", "documents": ["a", "b"]}
        assert httpx.post(f"{address}/v1/rerank", json=body).json()["results"][0]["index"] == 1
    assert closed == [True]


def test_a_model_that_cannot_be_loaded_is_told_to_who_started_the_server():
    class Broken(TableScorer):
        def load(self) -> None:
            raise OSError("no such weights")

    with (
        pytest.raises(ModelLoadError, match="table cannot be loaded: no such weights"),
        running(Broken("table", TABLE), warm=True),
    ):
        pass


def test_a_server_that_would_ask_itself_does_not_start():
    with running() as address:
        taken = port_of(address)
    models = {"self": {"model": "vllm:any", "base_url": f"http://localhost:{taken}"}}
    settings = ServerSettings.of({"port": taken, "models": {"first": "bm25", **models}})
    with (
        pytest.raises(ConfigurationError, match="The model self asks vllm:any at this server's own address"),
        serve_in_thread(settings),
    ):
        pass
    other = ServerSettings.of({"port": 0, "models": models})
    with serve_in_thread(other) as address:
        assert port_of(address) != taken


def test_a_score_of_a_cancelled_scorer_is_no_sign_of_the_end():
    class Cancelled(TableScorer):
        async def ascore(self, *_: object, **__: object) -> Scores:
            raise asyncio.CancelledError

        async def ascore_many(self, requests: object) -> list[Scores | Exception]:
            raise asyncio.CancelledError

    with running(Cancelled("table", TABLE)) as address:
        reply = httpx.post(f"{address}/v1/rerank", json={"query": "q", "documents": ["a"]})
        assert (reply.status_code, reply.json()["error"]["type"]) == (500, "internal_error")
