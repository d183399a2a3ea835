"""The faults that the test servers commit, and what they count, seen by a plain HTTP client."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
import ssl
import subprocess
import threading
import time
from datetime import datetime, timedelta, timezone
from email.utils import parsedate_to_datetime
from pathlib import Path

import httpx
import pytest

from rerank_servers import (
    EDITS,
    REPLY_FAULTS,
    SERVICES,
    STATUSES,
    RerankServer,
    closed,
    edit,
    edited,
    empty,
    html,
    refused_port,
    reset,
    serve,
    silent,
    slow,
    status,
    truncated,
)
from rerank_servers.client import BODIES, HEADERS, QUERY, TEXTS, ask, entries, message, post

every_service = pytest.mark.parametrize("name", SERVICES)


# Error statuses.


@every_service
def test_each_status_has_the_service_s_own_body(name: str) -> None:
    with serve(name, key="k") as server:
        for number, code in enumerate(STATUSES):
            server.fail(number, status(code))
        replies = [ask(server) for _ in STATUSES]
        assert ask(server).status_code == 200
    assert [reply.status_code for reply in replies] == list(STATUSES)
    for reply in replies:
        assert "retry-after" not in reply.headers
        if reply.status_code == 524:
            assert reply.text.startswith("<!DOCTYPE html>")
        elif name == "tei" and reply.status_code in (401, 404):
            assert reply.content == b""
        else:
            assert message(reply)
    shapes = {
        "cohere": lambda value: {"id", "message"} == set(value),
        "voyage": lambda value: {"detail"} == set(value),
        "jina": lambda value: {"code", "detail", "request_id"} == set(value),
        "tei": lambda value: value["error_type"] == "Overloaded",
        "sie": lambda value: value["detail"]["code"],
        "llama-cpp": lambda value: value["error"]["type"],
        "pinecone": lambda value: value["status"] == 429,
    }
    limited = replies[STATUSES.index(429)].json()
    assert shapes.get(name, lambda value: isinstance(value, dict))(limited)


def test_how_long_to_wait_can_be_said_in_three_ways() -> None:
    moment = datetime.now(timezone.utc).replace(microsecond=0) + timedelta(seconds=3)
    with serve("voyage") as server:
        server.fail(0, status(429, retry_after=1))
        server.fail(1, status(429, retry_after=moment))
        server.fail(2, status(503, retry_after_ms=250, message="busy", headers={"X-Other": "y"}))
        server.fail(3, status(400, body=b"no json"))
        seconds, date, milliseconds, raw = (ask(server) for _ in range(4))
    assert seconds.headers["retry-after"] == "1"
    assert date.headers["retry-after"].endswith(" GMT")
    assert parsedate_to_datetime(date.headers["retry-after"]) == moment
    assert milliseconds.headers["retry-after-ms"] == "250"
    assert milliseconds.headers["x-other"] == "y"
    assert milliseconds.json() == {"detail": "busy"}
    assert (raw.status_code, raw.content) == (400, b"no json")


@pytest.mark.parametrize("name", ["cohere", "jina", "together", "voyage"])
def test_the_request_id_is_in_the_error(name: str) -> None:
    with serve(name) as server:
        server.fail_always(status(500))
        reply = ask(server)
    place = {"cohere": "id", "jina": "request_id"}.get(name)
    assert (reply.json()[place] if place else reply.headers["x-request-id"]) == server.posts[0].id


# Connections.


def test_a_connection_closed_before_the_reply() -> None:
    with serve("voyage") as server:
        server.fail(0, closed())
        with pytest.raises(httpx.RemoteProtocolError, match="without sending a response"):
            ask(server)
        assert ask(server).status_code == 200


@every_service
def test_a_reset_in_mid_body(name: str) -> None:
    with serve(name, key="k") as server:
        server.fail(0, reset())
        url = server.url + server.path.replace("{model}", "m")
        with (
            httpx.Client(trust_env=False, headers=HEADERS) as client,
            client.stream("POST", url, json=BODIES[name]) as reply,
        ):
            parts = reply.iter_raw()
            got = next(parts)
            with pytest.raises(httpx.ReadError):
                list(parts)
        whole = ask(server).content
    assert reply.status_code == 200
    assert int(reply.headers["content-length"]) == len(whole)
    assert 0 < len(got) <= len(whole) / 2


def test_a_slow_body_arrives_byte_by_byte() -> None:
    with serve("tei") as server:
        server.fail_always(slow())
        begun = time.monotonic()
        with pytest.raises(httpx.ReadTimeout):
            post(server.url + "/rerank", json=BODIES["tei"], timeout=httpx.Timeout(0.03))
        # Each byte restarts the read timeout, so that only a deadline of the whole call ends it.
        with (
            httpx.Client(timeout=0.2, trust_env=False) as client,
            client.stream("POST", server.url + "/rerank", json=BODIES["tei"]) as reply,
        ):
            parts = reply.iter_raw()
            first = [next(parts) for _ in range(6)]
        spent = time.monotonic() - begun
    assert b"".join(first).startswith(b'[{"ind')
    assert 0.25 <= spent < 5


def test_silence_then_the_usual_answer() -> None:
    with serve("voyage") as server:
        server.fail(0, silent(0.2))
        begun = time.monotonic()
        assert ask(server).status_code == 200
        assert time.monotonic() - begun >= 0.2
        server.fail_always(silent(30))
        with pytest.raises(httpx.ReadTimeout):
            post(server.url + server.path, json=BODIES["voyage"], headers=HEADERS, timeout=0.1)
        left = time.monotonic()
    assert time.monotonic() - left < 1  # it does not sit the silence out


def test_a_refused_port() -> None:
    with pytest.raises(httpx.ConnectError):
        post(f"http://127.0.0.1:{refused_port()}/")


# Replies.


def test_replies_that_are_no_json() -> None:
    with serve("cohere") as server:
        for number, fault in enumerate((html(200), html(502), empty(), truncated())):
            server.fail(number, fault)
        page, gateway, nothing, half = (ask(server) for _ in range(4))
    assert (page.status_code, gateway.status_code) == (200, 502)
    assert page.headers["content-type"].startswith("text/html")
    assert (nothing.status_code, nothing.content) == (200, b"")
    assert half.status_code == 200
    assert int(half.headers["content-length"]) == len(half.content)
    with pytest.raises(json.JSONDecodeError):
        half.json()


@every_service
def test_each_edit_changes_one_thing(name: str) -> None:
    kind = SERVICES[name]
    with serve(name, key="k") as server:
        for number, change in enumerate(EDITS):
            server.fail(number, edit(change))
        raw = {change: ask(server) for change in EDITS}
        usual = ask(server).json()
    usual = usual if kind.list_key is None else usual[kind.list_key]
    assert {reply.status_code for reply in raw.values()} == {200}
    assert set(raw["wrong-list-key"].json()) & {"results", "data", "rankings", "scores"} == set()
    assert raw["wrong-list-key"].json()["unexpected"] == usual
    assert b"NaN" in raw["score-nan"].content

    lists = {change: reply.json() for change, reply in raw.items() if change != "wrong-list-key"}
    if kind.list_key is not None:
        lists = {change: value[kind.list_key] for change, value in lists.items()}
    seconds = {change: value[1] for change, value in lists.items() if value}
    index, score = kind.index_key, kind.score_key
    assert index not in seconds["index-missing"]
    assert seconds["index-repeated"][index] == lists["index-repeated"][0][index]
    assert int(seconds["index-negative"][index]) == -1
    assert int(seconds["index-out-of-range"][index]) == len(TEXTS)
    assert isinstance(seconds["index-string"][index], str)
    assert seconds["index-string"][index] != usual[1][index]
    assert score not in seconds["score-missing"]
    assert math.isnan(seconds["score-nan"][score])
    assert seconds["score-null"][score] is None
    assert seconds["score-string"][score] == "0.5"
    assert lists["fewer-results"] == usual[:-1]
    assert lists["no-results"] == []
    for change, value in lists.items():  # and everything else is as it was
        assert value[2:] == usual[2:] or change in ("fewer-results", "no-results")
        assert not value or value[0] == usual[0]


def test_edits_of_a_single_result_and_of_a_refusal() -> None:
    with serve("cohere", key="k") as server:
        server.fail(0, edit("index-repeated"))
        server.fail(1, edit("index-negative"))
        server.fail(2, edit("score-nan"))
        server.fail(3, edited(lambda value: {"mine": len(value["results"])}))
        assert [index for index, _ in entries(server, ask(server, documents=["x"]))] == [0, 0]
        assert [index for index, _ in entries(server, ask(server, documents=["x"]))] == [-1]
        assert ask(server, unknown=1).status_code == 422
        assert ask(server).json() == {"mine": 4}
    with pytest.raises(ValueError, match="index-missing"):
        edit("no such edit")
    assert {str(fault) for fault in REPLY_FAULTS.values()} == set(REPLY_FAULTS)


# Which request is hit.


def test_faults_by_number_by_content_by_path_and_for_all() -> None:
    with serve("tei") as server:
        server.fail(range(1, 3), status(500))
        server.fail_when(lambda request: "special" in request.texts, status(503), times=1)
        server.fail_path("/info", status(404))
        assert httpx.get(server.url + "/info", trust_env=False).status_code == 404
        assert [ask(server).status_code for _ in range(4)] == [200, 500, 500, 200]
        special = [ask(server, texts=["special"]).status_code for _ in range(2)]
        assert special == [503, 200]
        server.fail_always(status(429))
        assert ask(server).status_code == 429
        assert httpx.get(server.url + "/health", trust_env=False).status_code == 200
        server.heal()
        assert ask(server).status_code == 200
        assert httpx.get(server.url + "/info", trust_env=False).status_code == 200
    assert [request.method for request in server.requests].count("GET") == 3
    assert [request.number for request in server.posts] == list(range(8))


# What it counts.


def test_a_kept_connection_is_one_connection() -> None:
    with serve("voyage") as server:
        with httpx.Client(headers=HEADERS, trust_env=False) as client:
            for _ in range(50):
                assert client.post(server.url + server.path + "?a=1", json=BODIES["voyage"]).status_code == 200
            assert server.open_connections == 1
        deadline = time.monotonic() + 5
        while server.open_connections and time.monotonic() < deadline:
            time.sleep(0.01)
        assert (server.connections, server.open_connections, server.most_at_once) == (1, 0, 1)
        ask(server)
    assert server.connections == 2
    assert [request.connection for request in server.posts] == [0] * 50 + [1]
    assert server.posts[0].path == "/v1/rerank?a=1"
    assert server.posts[0].received <= server.posts[1].received <= time.monotonic()


async def test_many_requests_at_once_take_as_long_as_one() -> None:
    with serve("cohere", key="k", delay=1.0) as server:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, headers=HEADERS, trust_env=False, timeout=10) as client:
            calls = [client.post(server.url + server.path, json=BODIES["cohere"]) for _ in range(48)]
            replies = await asyncio.gather(*calls)
        assert {reply.status_code for reply in replies} == {200}
        times = [request.received for request in server.posts]
        server.delay = 0.0
        assert ask(server).status_code == 200
    assert (server.most_at_once, server.at_once) == (48, 0)
    assert server.connections == 49
    assert max(times) - min(times) < 1


def test_as_a_proxy_it_sees_the_whole_target() -> None:
    with serve("voyage") as server, httpx.Client(proxy=server.url, headers=HEADERS) as client:
        reply = client.post("http://rerank.invalid/v1/rerank", json=BODIES["voyage"])
    assert reply.status_code == 200
    assert server.posts[0].target == "http://rerank.invalid/v1/rerank"
    assert server.posts[0].path == "/v1/rerank"


@pytest.mark.skipif(shutil.which("openssl") is None, reason="needs the openssl command to make a certificate")
def test_https(tmp_path: Path) -> None:
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    subprocess.run(
        [*make, "-keyout", key, "-out", certificate, "-days", "2", *subject], check=True, capture_output=True
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    with serve("cohere", tls=context) as server:
        assert server.url.startswith("https://")
        with pytest.raises(httpx.ConnectError):
            ask(server)
        trusted = ssl.create_default_context(cafile=str(certificate))
        with httpx.Client(verify=trusted, headers=HEADERS, trust_env=False) as client:
            assert client.post(server.url + server.path, json=BODIES["cohere"]).status_code == 200


def test_it_stops_with_its_block_and_tells_its_own_mistakes() -> None:
    with serve("voyage") as server:
        url = server.url + server.path
    with pytest.raises(httpx.ConnectError):
        post(url, json={})
    assert not [thread for thread in threading.enumerate() if thread.name == "voyage-server"]
    broken = RerankServer(SERVICES["voyage"]())
    broken.fail_always(edited(lambda value: value["no such key"]))
    with broken:
        assert ask(broken).status_code == 500
        with pytest.raises(RuntimeError, match="mistake in the test server"):
            broken.__exit__(None, None, None)
        broken.mistakes.clear()
    with pytest.raises(TypeError, match="no_such_option"), serve("voyage", no_such_option=1):
        pass


def test_scores_are_the_service_s_own() -> None:
    with serve("jina") as server:
        got = entries(server, ask(server, model="jina-reranker-v3"))
        assert dict(got) == dict(enumerate(server.scores(QUERY, TEXTS, model="jina-reranker-v3")))
