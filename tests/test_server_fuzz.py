"""Requests that are wrong in every way: each is answered, in its dialect, and never with a server's error."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from functools import cache
from urllib.parse import urlsplit

import httpx
import msgpack
import pytest

from free_scorer import FreeScorer
from fuzzed_bodies import MSGPACK, Sent, fuzzed
from raw_connection import RawConnection, Received
from serving import serving
from serving_apart import serving_apart
from uprank import Reranker
from uprank.server.routes import ROUTES

jsonschema_rs = pytest.importorskip("jsonschema_rs", reason="it checks the shape of replies")

SECONDS = 20.0
"""What any one answer may take, on a machine that does other work."""

GOOD = {"query": "q", "documents": ["short", "the longer one"], "model": "free"}


class Shapes:
    """The documented shape of each reply.

    Args:
        document: The server's OpenAPI document.
    """

    def __init__(self, document: Mapping[str, object]) -> None:
        self._document = document
        self._validator = cache(self._made)

    def _made(self, path: str, status: int) -> jsonschema_rs.Validator:
        reply = self._document["paths"][path]["post"]["responses"][str(status)]
        if "$ref" in reply:
            reply = self._document["components"]["responses"][reply["$ref"].rpartition("/")[2]]
        schema = next(iter(reply["content"].values()))["schema"]
        return jsonschema_rs.validator_for({**schema, "components": self._document["components"]})

    def check(self, path: str, received: Received) -> None:
        """Fail unless the reply is as it should be."""
        if received.headers["content-type"].partition(";")[0] == MSGPACK:
            found = msgpack.unpackb(received.body)
        else:
            assert received.headers["content-type"].partition(";")[0] == "application/json"
            found = json.loads(received.body, parse_constant=pytest.fail)
        problems = [error.message for error in self._validator(path, received.status).iter_errors(found)]
        assert not problems, problems[0][:300]


def template_of(sent: Sent) -> str:
    """The documented path of a request's."""
    for route in ROUTES:
        for path in route.paths:
            begin, brace, rest = path.partition("{")
            if sent.path == path or (
                brace and sent.path.startswith(begin) and sent.path.endswith(rest.partition("}")[2])
            ):
                return path.replace(":path", "")
    raise AssertionError(sent.path)


def ask_all(port: int, seed: int, count: int, shapes: Shapes) -> Counter[int]:
    """Send fuzzed requests over a connection and check every answer; gives how often each status came."""
    seen: Counter[int] = Counter()
    with RawConnection(port, SECONDS) as connection:
        for number, sent in enumerate(fuzzed(seed, count)):
            try:
                received = connection.ask(sent.wire())
                assert received.status < 500
                shapes.check(template_of(sent), received)
            except Exception as error:
                told = f"request {number} of seed {seed}: {sent.path} {sent.headers} {sent.body[:400]!r}"
                raise AssertionError(f"{type(error).__name__}: {error} at {told}") from error
            seen[received.status] += 1
        assert connection.opened <= 1 + count // 20, (
            "the connection is closed more often than a body too large explains"
        )
    return seen


def ask_well(address: str) -> None:
    """A good request works."""
    reply = httpx.post(f"{address}/v1/rerank", json=GOOD)
    assert reply.status_code == 200
    assert [one["index"] for one in reply.json()["results"]] == [1, 0]


def test_every_wrong_request_is_answered_in_its_dialect():
    rerankers = {"bm25": Reranker("bm25"), "free": Reranker(FreeScorer())}
    with serving(rerankers, limits={"body_bytes": 65_536}) as address:
        shapes = Shapes(httpx.get(f"{address}/openapi.json").json())
        seen = ask_all(urlsplit(address).port, seed=20, count=600, shapes=shapes)
        ask_well(address)
    assert {200, 400, 413, 422} <= set(seen), "the requests are not as mixed as they should be"


def test_connections_left_in_the_middle_of_a_request_keep_no_place_in_the_queue():
    with serving({"free": Reranker(FreeScorer())}, max_queue=1) as address:
        port = urlsplit(address).port
        for number, sent in enumerate(fuzzed(21, 66)):
            with RawConnection(port, SECONDS) as connection:
                wire = sent.wire()
                connection.send(wire[: len(wire) * (number % 11) // 10])  # the last of eleven is whole
        deadline = time.monotonic() + SECONDS
        while httpx.post(f"{address}/rerank", json=GOOD).status_code == 429:  # those that were whole are under way
            assert time.monotonic() < deadline, "a place in the queue is kept"
            time.sleep(0.01)
        ask_well(address)


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_hundred_thousand_wrong_requests_leave_the_memory_as_it_was():
    with serving_apart() as server:
        address = f"http://127.0.0.1:{server.port}"
        shapes = Shapes(httpx.get(f"{address}/openapi.json").json())
        ask_all(server.port, 1, 20_000, shapes)
        before = server.resident_kib()
        for seed in range(2, 6):
            ask_all(server.port, seed, 20_000, shapes)
            ask_well(address)
        grown = server.resident_kib() / before - 1
    assert grown < 0.03, f"memory grew by {grown:.1%}"
