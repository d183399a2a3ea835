"""How the server starts, tells of itself, and ends: by signals, under load, and killed."""

from __future__ import annotations

import http.client
import logging
import os
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest

from serve_command import LISTENING, Client, SlowScorer, process_as_before, served, toml
from serving import settings_for
from uprank import Reranker
from uprank.errors import ModelLoadError, UprankError
from uprank.server import serve

pytestmark = pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")

Scenario = Callable[[str], None]


class _Address(logging.Handler):
    """Learns from the log where the server listens."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Future[str] = Future()

    def emit(self, record: logging.LogRecord) -> None:
        if match := LISTENING.search(record.getMessage()):
            self.found.set_result(match[1])


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    with process_as_before():
        yield


@contextmanager
def _address_told() -> Iterator[_Address]:
    address = _Address()
    logging.getLogger("uprank.server").addHandler(address)
    try:
        yield address
    finally:
        logging.getLogger("uprank.server").removeHandler(address)


def lived(scorer: SlowScorer, scenario: Scenario, *, ends: bool = False, **settings: object) -> None:
    """A server's whole life in this process; it ends once the scenario is over, which it may be told before.

    Args:
        scorer: Its model.
        scenario: What clients do, in a thread; given the address.
        ends: Whether the server ends by itself.
        settings: The server's.
    """

    def clients(address: Future[str]) -> None:
        try:
            scenario(address.result(20))
        finally:
            if not ends and not told:
                tell()

    rerankers = {"slow": Reranker(scorer)}
    told.clear()
    with _address_told() as address, ThreadPoolExecutor(1) as pool:
        done = pool.submit(clients, address.found)
        try:
            serve(settings_for(rerankers, **settings), rerankers)
        finally:
            done.result(20)


told: list[signal.Signals] = []


def tell(number: signal.Signals = signal.SIGTERM) -> None:
    """Tell the server to end, once."""
    told.append(number)
    os.kill(os.getpid(), number)


def until(condition: Callable[[], bool], seconds: float = 10) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.01)


def refused(address: str) -> bool:
    """Whether nobody listens any more."""
    host, port = address.removeprefix("http://").split(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return True
    return False


class TestEnding:
    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
    def test_what_was_accepted_is_answered_then_models_are_closed(self, number):
        scorer = SlowScorer(seconds=0.6)

        def scenario(address: str) -> None:
            client = Client(address)
            with ThreadPoolExecutor(1) as pool:
                under_way = pool.submit(client.rerank, "a", "bb")
                assert scorer.begun.wait(10)
                tell(number)
                until(lambda: refused(address))
                assert not under_way.done(), "listening ended only with the request"
                response = under_way.result(10)
            assert (response.status, client.body["results"][0]["index"]) == (200, 1)
            assert response.headers["connection"] == "close"

        lived(scorer, scenario)
        assert scorer.closed

    def test_for_a_while_it_says_that_it_is_not_ready_and_still_accepts(self):
        def scenario(address: str) -> None:
            client = Client(address)
            assert client.get("/health/ready").status == 200
            told_at = time.monotonic()
            tell()
            until(lambda: client.get("/health/ready").status == 503)
            assert client.body["status"] == "draining"
            for _ in range(2):
                assert client.fresh, "it was not asked to leave"
                assert client.rerank("a").status == 200
            assert client.get("/health/live").status == 200
            until(lambda: refused(address))
            assert time.monotonic() - told_at > 0.6

        lived(SlowScorer(), scenario, drain_delay=0.6)

    def test_a_request_that_takes_too_long_is_answered_503_in_its_dialect(self):
        scorer = SlowScorer(seconds=30)

        def scenario(address: str) -> None:
            client = Client(address)
            with ThreadPoolExecutor(1) as pool:
                under_way = pool.submit(client.rerank, "a")
                assert scorer.begun.wait(10)
                tell()
                response = under_way.result(10)
            assert (response.status, response.headers["retry-after"]) == (503, "1")
            assert client.body["error"]["type"] == "shutting_down"
            assert client.body["id"] == response.headers["x-request-id"]

        lived(scorer, scenario, drain_seconds=0.2)

    def test_open_connections_that_ask_nothing_do_not_keep_it(self):
        ended: list[float] = []

        def scenario(address: str) -> None:
            idle = [Client(address) for _ in range(3)]
            for client in idle:
                assert client.rerank("a").status == 200
            silent = socket.create_connection(("127.0.0.1", int(address.rpartition(":")[2])), 5)
            silent.sendall(b"POST /v1/rerank HTTP/1.1\r\nhost: half")
            tell()
            ended.append(time.monotonic())
            assert silent.recv(1) == b""
            silent.close()

        lived(SlowScorer(), scenario, drain_seconds=20)
        assert time.monotonic() - ended[0] < 5


class TestStarting:
    def test_it_listens_while_warm_models_are_loaded_and_says_that_it_is_not_ready(self):
        scorer = SlowScorer(load_seconds=0.5)

        def scenario(address: str) -> None:
            probe, client = Client(address), Client(address)
            assert probe.get("/health/live").status == 200
            for path in ("/health", "/health/ready", "/v1/health/ready"):
                assert (probe.get(path).status, probe.body["status"]) == (503, "loading")
            assert client.rerank("a").status == 200  # waits for the model
            assert scorer.loaded.is_set()
            until(lambda: probe.get("/health/ready").status == 200)
            assert probe.body == {"object": "health.response", "status": "ready", "message": "Service is ready"}

        lived(scorer, scenario, warm=True)

    def test_lazy_models_are_loaded_by_the_first_request(self):
        scorer = SlowScorer()

        def scenario(address: str) -> None:
            client = Client(address)
            assert client.get("/health/ready").status == 200
            assert not scorer.loaded.is_set()
            assert client.rerank("a").status == 200

        lived(scorer, scenario, warm=False)
        assert scorer.loaded.is_set()

    def test_a_model_that_cannot_be_loaded_ends_the_server_with_its_error(self):
        with pytest.raises(ModelLoadError, match=r"The model slow cannot be loaded: slow is broken\."):
            lived(SlowScorer(load_seconds=0.1, broken=True), lambda _: None, ends=True, warm=True)

    def test_an_address_in_use_is_told(self):
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            with pytest.raises(
                UprankError, match=rf"cannot listen on 127\.0\.0\.1:{port}: another program listens there"
            ):
                lived_not(port=port)

    def test_an_address_of_another_machine_is_told(self):
        with pytest.raises(UprankError, match=r"cannot listen on 203\.0\.113\.1:0: this machine has no such"):
            lived_not(host="203.0.113.1")


def lived_not(**settings: object) -> None:
    rerankers = {"slow": Reranker(SlowScorer())}
    serve(settings_for(rerankers, **settings), rerankers)


SLOW = """
[models.slow]
model = "slow"
aliases = ["*"]
"""


class TestProcess:
    def test_under_load_all_that_was_accepted_is_answered(self, tmp_path):
        """Clients that keep connections, as all SDKs do, and close them when they are asked to, lose nothing.

        A request on a new connection may come too late: it is refused, or reset before anybody read it.
        """
        config = toml(tmp_path / "u.toml", f"drain_seconds = 20\n{SLOW}seconds = 0.02\n")
        answered, late, lost = [0] * 16, [0] * 16, []

        def client(number: int) -> None:
            connection = Client(server.address)
            while True:
                fresh = connection.fresh
                try:
                    response = connection.rerank("a", "bb", "ccc")
                except (ConnectionError, http.client.HTTPException) as error:
                    if fresh:
                        late[number] += 1
                    else:
                        lost.append(error)
                    return
                if response.status != 200 or connection.body["results"][0]["index"] != 2:
                    lost.append(response.status)
                answered[number] += 1
                time.sleep(0.02 * number)  # so that some connections are between two requests when the end comes

        with served("--config", config) as server:
            threads = [threading.Thread(target=client, args=(number,)) for number in range(16)]
            for thread in threads:
                thread.start()
            until(lambda: sum(answered) > 200)
            before = sum(answered)
            server.signal(signal.SIGTERM)
            for thread in threads:
                thread.join(20)
            assert server.exit_code() == 0
        assert lost == []
        assert sum(late) == 16, "each went on until nobody listened"
        assert sum(answered) > before
        assert server.scored == sum(answered), "something was begun and not answered"
        assert "Ended" in server.lines[-1]
        assert not [line for line in server.lines if "ERROR" in line or "Traceback" in line]

    def test_killed_while_scores_are_written_it_finds_them_again(self, tmp_path):
        scores = tmp_path / "scores.sqlite"
        config = toml(tmp_path / "u.toml", f'{SLOW}cache = "{scores}"\n')
        answered: dict[str, list[float]] = {}

        def client(number: int) -> None:
            connection, turn = Client(server.address), 0
            try:
                while True:
                    query, turn = f"{number}/{turn}", turn + 1
                    assert connection.rerank("a", "bb", query, query=query).status == 200
                    answered[query] = [hit["relevance_score"] for hit in connection.body["results"]]
            except (ConnectionError, http.client.HTTPException):
                return

        with served("--config", config) as server:
            threads = [threading.Thread(target=client, args=(number,)) for number in range(8)]
            for thread in threads:
                thread.start()
            until(lambda: len(answered) > 40)
            server.signal(signal.SIGKILL)
            for thread in threads:
                thread.join(20)
            assert server.exit_code() == -signal.SIGKILL
        with sqlite3.connect(scores) as database:
            assert database.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        database.close()
        with served("--config", config) as server:
            connection = Client(server.address)
            for query, found in answered.items():
                assert connection.rerank("a", "bb", query, query=query).status == 200
                assert [hit["relevance_score"] for hit in connection.body["results"]] == found
            assert server.scored == 0, "scores that were answered are not kept"
            assert connection.rerank("new").status == 200
            until(lambda: server.scored == 1)
            server.signal(signal.SIGTERM)
            assert server.exit_code() == 0

    @pytest.mark.slow
    def test_a_second_signal_ends_it_at_once(self, tmp_path):
        config = toml(tmp_path / "u.toml", f"{SLOW}seconds = 60\n")
        with served("--config", config) as server, ThreadPoolExecutor(1) as pool:
            under_way = pool.submit(Client(server.address).rerank, "a")
            until(lambda: server.scored == 1)
            server.signal(signal.SIGTERM)
            server.signal(signal.SIGINT)  # as of one Ctrl-C that reaches it twice
            until(lambda: refused(server.address))
            time.sleep(0.6)
            server.signal(signal.SIGTERM)
            assert server.exit_code(5) == 128 + signal.SIGTERM
            with pytest.raises((ConnectionError, http.client.HTTPException)):
                under_way.result(10)

    @pytest.mark.slow
    def test_it_ends_while_a_model_is_being_loaded(self, tmp_path):
        config = toml(tmp_path / "u.toml", f"warm = true\n{SLOW}load_seconds = 60\n")
        with served("--config", config) as server:
            server.signal(signal.SIGTERM)
            assert server.exit_code(5) == 0
