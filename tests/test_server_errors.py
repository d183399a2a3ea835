"""Each refusal in each dialect: its status, its form, what helps against it, and nothing of what was asked."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest

from refused_requests import (
    DOCUMENT,
    FIRST,
    QUERY,
    RAISES,
    SLEEPS,
    WAYS,
    TroubledScorer,
    Way,
    everything_logged,
    post,
    unseen,
)
from serving import serving
from uprank import Reranker
from uprank.server import Limits
from uprank.server.dialects.rerank import RerankBody

LIMITS = {"documents": 3, "document_chars": 200, "query_chars": 100, "body_bytes": 5_000, "batch_tokens": 130}

in_each_dialect = pytest.mark.parametrize("way", WAYS, ids=str)
before_the_dialect_is_known = pytest.mark.parametrize("way", FIRST, ids=str)


@pytest.fixture(scope="module")
def client():
    with (
        serving({"table": Reranker(TroubledScorer())}, limits=LIMITS) as address,
        httpx.Client(base_url=address) as client,
    ):
        yield client


@pytest.fixture(autouse=True)
def log() -> Iterator[object]:
    with everything_logged() as log:
        yield log
    unseen(log)


def refused(reply: httpx.Response, status: int, way: Way) -> str:
    assert reply.status_code == status, reply.text
    assert reply.headers["x-content-type-options"] == "nosniff"
    unseen(reply)
    return way.told(reply)


@in_each_dialect
def test_what_is_right_is_answered_and_not_logged_and_no_documents_are_no_error_as_in_the_library(client, way):
    for documents in ([DOCUMENT, QUERY], []):
        reply = post(client, way, way.body(documents=documents))
        assert reply.status_code == 200, reply.text


@in_each_dialect
def test_what_is_within_the_limits_is_answered_and_what_is_beyond_is_not(client, way):
    whole, wordy = DOCUMENT.ljust(200, "x"), (DOCUMENT + " a" * 100)[:150]  # some 70 tokens, and the query's
    for documents in ([DOCUMENT] * 3, [whole], [wordy]):
        assert post(client, way, way.body(documents=documents)).status_code == 200
    assert post(client, way, way.body(QUERY.ljust(100, "x"), [DOCUMENT])).status_code == 200
    assert refused(post(client, way, way.body(documents=[DOCUMENT] * 4)), 422, way) == (
        "4 documents are more than the 3 that a request may have here."
    )
    assert refused(post(client, way, way.body(documents=[DOCUMENT, whole + "x"])), 422, way) == (
        "documents[1] has 201 characters; 200 are allowed here."
    )
    assert refused(post(client, way, way.body(QUERY.ljust(101, "x"))), 422, way) == (
        "The query has 101 characters; 100 are allowed here."
    )
    assert refused(post(client, way, way.body(documents=[wordy] * 2)), 422, way) == (
        "The request has more than the 130 tokens that are allowed here, by an estimate."
    )


@in_each_dialect
def test_an_empty_query(client, way):
    for query in ("", " \n"):
        assert "empty" in refused(post(client, way, way.body(query)), 422, way)


@in_each_dialect
def test_wrong_types(client, way):
    for query in (17, [[QUERY]], {QUERY: QUERY}):
        told_shortly(post(client, way, way.body(query)), way)
    for documents in ({"a": DOCUMENT}, [[DOCUMENT]], [17], [None], [{"texts": DOCUMENT}]):
        told_shortly(post(client, way, way.body(documents=documents)), way)
    one = post(client, way, way.body(documents=DOCUMENT))
    if "data_2" not in way.body():  # where one text may stand for a list of one
        told_shortly(one, way)


def told_shortly(reply: httpx.Response, way: Way) -> None:
    told = refused(reply, 422, way)
    assert len(told) < 300
    assert "dict[" not in told
    assert "str:" not in told


@in_each_dialect
def test_a_field_that_is_missing(client, way):
    body = way.body()
    for name, value in way.body().items():
        if QUERY in str(value):
            del body[name]
    refused(post(client, way, body), 422, way)


@before_the_dialect_is_known
def test_what_is_no_json_object(client, way):
    for content in (
        b"",
        b"{",
        b'{"query": "planted query", }',
        b'{"query": "planted \xff"}',
        b'{"query": "planted \\ud800"}',
        b'["planted"]',
        b'"planted"',
        b'{"query": NaN}',
        b"[" * 4_000,
    ):
        reply = client.post(way.path, content=content, headers={"accept": "application/json"})
        assert "JSON" in refused(reply, 400, way), content


@before_the_dialect_is_known
def test_a_body_that_is_too_large_by_its_stated_length_is_not_even_sent(client, way):
    with _connection(client) as connection:
        lines = (
            f"POST {way.path} HTTP/1.1",
            "host: here",
            "accept: application/json",
            "content-length: 5001",
            "expect: 100-continue",
            "\r\n",
        )
        connection.sendall("\r\n".join(lines).encode())
        status = connection.recv(65_536).split(b"\r\n")[0]
    assert status.split()[1] == b"413", status


@before_the_dialect_is_known
def test_a_body_that_is_too_large_is_refused_in_the_midst_of_it_where_its_length_is_not_stated(client, way):
    def chunks() -> Iterator[bytes]:
        yield b'{"query": "'
        for _ in range(30):
            yield DOCUMENT.encode().ljust(1_000, b"x")

    told = refused(client.post(way.path, content=chunks(), headers={"accept": "application/json"}), 413, way)
    assert told == "The body has more than the 5000 bytes that are allowed here."


@in_each_dialect
def test_what_is_refused_before_the_body_is_parsed_is_told_in_the_dialect_that_it_begins_in(client, way):
    whole = json.dumps(way.body()).encode()
    refused(client.post(way.path, content=whole[:-1]), 400, way)
    refused(client.post(way.path, content=whole.ljust(5_001)), 413, way)


def test_a_key_that_is_missing_or_wrong_in_every_dialect(monkeypatch):
    monkeypatch.setenv("A_TEST_KEY", "planted-key")
    keys = [{"name": "team", "env": "A_TEST_KEY", "requests_per_minute": 1}]
    with (
        serving({"table": Reranker(TroubledScorer())}, keys=keys) as address,
        httpx.Client(base_url=address) as client,
    ):
        for way in WAYS:
            refused(post(client, way, way.body()), 401, way)
        client.headers["authorization"] = "Bearer planted-wrong"
        for way in WAYS:
            refused(post(client, way, way.body()), 401, way)
        client.headers["authorization"] = "Bearer planted-key"
        assert post(client, WAYS[0], WAYS[0].body()).status_code == 200
        for way in WAYS:
            refused(post(client, way, way.body()), 429, way)


def test_a_body_of_just_the_size_that_is_allowed(client):
    way = Way("/v1/rerank", RerankBody)
    body = json.dumps(way.body()).encode()
    assert client.post(way.path, content=body.ljust(5_000)).status_code == 200
    assert client.post(way.path, content=body.ljust(5_001)).status_code == 413


@in_each_dialect
def test_an_error_that_nobody_foresaw_quotes_nothing_and_is_found_in_the_log(client, way, log):
    reply = post(client, way, way.body(f"{RAISES} {QUERY}"))
    refused(reply, 500, way)
    number = reply.headers["x-request-id"]
    line = next(line for line in log.lines if line.startswith("ERROR") and number in line)
    assert "RuntimeError" in line
    assert "refused_requests.py" in line
    assert "ascore_many" in line
    assert "KeyError" in line


def test_a_model_that_is_not_there():
    models = {"table": {"model": "bm25"}, "second": {"model": "bm25"}}
    with (
        serving({"table": Reranker(TroubledScorer())}, models=models) as address,
        httpx.Client(base_url=address) as client,
    ):
        named = [way for way in WAYS if "model" in way.body() or "table" in way.path]
        assert len({way.dialect for way in named}) >= len({way.dialect for way in WAYS}) - 1  # TEI names none
        for way in named:
            other = Way(way.path.replace("/table", "/other"), way.dialect)
            assert other.told(post(client, other, way.body(model="other"))) == (
                "There is no such model here. There are table, second."
            )
            assert post(client, other, way.body(model="other")).status_code == 404


async def test_a_deadline_in_every_dialect_and_what_the_scorer_says_when_cancelled_is_not_told():
    with serving({"table": Reranker(TroubledScorer())}, deadline=0.05) as address:
        async with httpx.AsyncClient(base_url=address) as client:

            async def asked(way: Way, query: str) -> httpx.Response:
                return await client.post(way.path, json=way.body(query), headers={"accept": "application/json"})

            for query in (f"{SLEEPS} {QUERY}", f"{SLEEPS} and raise {QUERY}"):
                replies = await asyncio.gather(*(asked(way, query) for way in WAYS))
                for way, reply in zip(WAYS, replies, strict=True):
                    told = refused(reply, 504, way)
                    assert told == "There was no answer within 0.05 s, this server's deadline."


def test_too_many_requests_under_way():
    with (
        serving({"table": Reranker(TroubledScorer())}, max_queue=1) as address,
        httpx.Client(base_url=address) as client,
        _connection(client) as connection,
    ):
        body = json.dumps(WAYS[0].body(f"{SLEEPS} {QUERY}"))
        head = f"POST {WAYS[0].path} HTTP/1.1\r\nhost: here\r\ncontent-length: {len(body)}\r\n\r\n"
        connection.sendall(f"{head}{body}".encode())
        _wait_until_refused(client)
        for way in WAYS:
            reply = post(client, way, way.body())
            refused(reply, 429, way)
            assert int(reply.headers["retry-after"]) >= 1


def _wait_until_refused(client: httpx.Client) -> None:
    for _ in range(500):
        if post(client, WAYS[0], WAYS[0].body()).status_code == 429:
            return
    raise AssertionError("the first request does not count")


@contextmanager
def _connection(client: httpx.Client) -> Iterator[socket.socket]:
    with ExitStack() as stack:
        url = client.base_url
        yield stack.enter_context(socket.create_connection((url.host, url.port), timeout=10))


def test_unknown_fields_are_refused_by_their_names_where_that_is_asked_for():
    with (
        serving({"table": Reranker(TroubledScorer())}, unknown_fields="refuse") as address,
        httpx.Client(base_url=address) as client,
    ):
        for way in WAYS:
            assert post(client, way, way.body()).status_code == 200
            told = refused(post(client, way, {**way.body(), "colour": DOCUMENT}), 422, way)
            assert told.startswith("There is no field 'colour'.")


def test_the_instruction_is_as_long_as_the_query_may_be(client):
    body = {"query": QUERY, "documents": [DOCUMENT], "instruction": "x" * 101}
    reply = client.post("/rerank", json=body)
    assert reply.status_code == 422
    assert reply.json()["message"] == "The instruction has 101 characters; 100 are allowed here."


def test_a_thousand_documents_are_allowed_unless_the_settings_say_otherwise():
    assert Limits().documents == 1_024
