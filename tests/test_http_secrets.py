"""No key, secret header or proxy password is shown by anything that this package shows, writes or raises."""

from __future__ import annotations

import asyncio
import logging
import pickle
import socketserver
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import fields, is_dataclass
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from planted import CASES, HEADER, KEY, PASSWORD, SECRETS, TEXTS, Case, chain, hidden, unshown
from rerank_servers import (
    Fault,
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
    status,
)
from uprank import ConfigurationError, Ranking, Reranker, ScorerError, rerank
from uprank.errors import AuthenticationError, ConnectionFailedError, DeadlineExceededError, ServiceError
from uprank.scorers import CohereScorer, HTTPScorer
from uprank.secrets import Masked, Secret, masked, redact, secrets_among, without_secrets

ECHO = f"wrong key {KEY} with {HEADER} by {PASSWORD}"


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    for variable in ("CO_API_KEY", "COHERE_API_KEY", "JINA_API_KEY", "PINECONE_API_KEY", "TEI_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    return request.param


@pytest.fixture
def server(case: Case) -> Iterator[RerankServer]:
    with serve(case.scheme, key=KEY) as running:
        yield running


def made(case: Case, server: RerankServer, **options: object) -> Reranker:
    """A reranker with all three secrets; the server is its own proxy."""
    usual: dict[str, object] = {
        "api_key": KEY,
        "base_url": server.base_url,
        "headers": {"X-Client-Secret": HEADER, "Authorization-Info": f"Custom {HEADER}", "X-Plain": HEADER},
        "proxy": server.url.replace("://", f"://user:{PASSWORD}@"),
        "max_documents": 2,
        "max_retries": 0,
    }
    return Reranker(case.model, **{**usual, **options})


def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """No secret in any logger's records. httpcore logs the headers of replies as they come: those are the server's."""
    for record in caplog.records:
        if not record.getMessage().startswith("receive_response_headers.complete"):
            hidden(record.getMessage(), vars(record))


async def ranked(reranker: Reranker, how: str) -> Ranking:
    if how == "sync":
        return reranker.rank("capital of France?", TEXTS)
    try:
        return await reranker.arank("capital of France?", TEXTS)
    finally:
        await reranker.aclose()


async def failed(reranker: Reranker, how: str) -> BaseException:
    try:
        await ranked(reranker, how)
    except BaseException as error:
        return error
    raise AssertionError("it did not fail")


drivers = pytest.mark.parametrize("how", ["sync", "async"])


@drivers
async def test_success_shows_no_secret(
    case: Case, server: RerankServer, how: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    ranking = await ranked(made(case, server), how)
    sent = server.posts[-1].headers
    assert KEY in sent[case.header]
    assert sent["x-client-secret"] == HEADER
    assert sent["proxy-authorization"] == f"Basic {SECRETS[3]}"
    assert {record.name.partition(".")[0] for record in caplog.records} >= {"httpx", "httpcore"}
    unlogged(caplog)
    hidden(*capsys.readouterr(), repr(ranking), ranking.to_dicts(), ranking._repr_html_(), pickle.dumps(ranking))


FAULTS: dict[str, Fault] = {
    "a refusal that repeats it": status(401, message=ECHO),
    "a refusal that is cut in it": status(400, message="x" * 488 + KEY),
    "a page that is cut in it": status(400, body=b"<p>" + b"x" * 1988 + KEY.encode()),
    "a page that repeats it": status(404, body=f"<b>{ECHO}</b>".encode()),
    "an error of another shape": status(400, body=f'{{"what": ["{ECHO}"]}}'.encode()),
    "an error without retries": status(503, message=ECHO),
    "a limit": status(413, message=f"too large for {KEY}"),
    "a redirect": status(302, headers={"Location": f"http://127.0.0.1/?key={KEY}"}),
    "a request id": status(403, headers={"x-request-id": KEY}),
    "no JSON": status(200, body=ECHO.encode()),
    "no JSON, cut": status(200, body=b"y" * 190 + KEY.encode()),
    "other JSON": edited(lambda reply: {KEY: HEADER, "request_id": KEY}),
    "a score, cut": edited(lambda reply: [{"index": 0, "score": "x" * 40 + KEY}]),
    "a score": edited(lambda reply: [{"index": 0, "score": KEY}]),
    "an index": edited(lambda reply: {"id": KEY, "results": [{"index": HEADER, "relevance_score": 1}]}),
    "NaN": edit("score-nan"),
    "nothing": empty(),
    "an HTML page": html(200),
    "closed": closed(),
    "reset": reset(),
    "late": silent(1.0),
}


@pytest.mark.no_cover
@pytest.mark.rotated(2)
@drivers
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_failure_shows_no_secret(
    case: Case, server: RerankServer, how: str, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail_always(fault)
    timeout = 0.2 if fault.name == "silent" else 5.0
    error = await failed(made(case, server, timeout=timeout), how)
    assert isinstance(error, ServiceError)
    assert server.posts, "the fault was never met"
    unshown(error)
    degraded = await ranked(made(case, server, timeout=timeout, on_error="passthrough"), how)
    assert degraded.degraded
    hidden(repr(degraded), degraded.warnings, degraded.to_dicts(), degraded._repr_html_())
    unlogged(caplog)


class _Plain(socketserver.BaseRequestHandler):
    def handle(self) -> None:
        self.request.recv(1)
        self.request.sendall(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")


@pytest.fixture(scope="module")
def plain_port() -> Iterator[int]:
    """Answers in plain HTTP at once, whatever comes."""
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), _Plain) as plain:
        threading.Thread(target=plain.serve_forever, args=(0.05,), daemon=True).start()
        yield plain.server_address[1]
        plain.shutdown()


@drivers
async def test_a_services_own_warnings_show_no_secret(
    case: Case, server: RerankServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    def warning(reply: Any) -> object:
        results = reply if isinstance(reply, list) else reply.get("results") or reply["data"]
        return {"results": results, "meta": {"warnings": [ECHO]}}

    caplog.set_level(logging.DEBUG)
    server.fail_always(edited(warning))
    ranking = await ranked(made(case, server), how)
    assert [warning[:9] for warning in ranking.warnings] == ["wrong key"]
    assert any("wrong key" in record.getMessage() for record in caplog.records)
    hidden(*ranking.warnings, ranking.to_dicts())
    unlogged(caplog)


@drivers
@pytest.mark.parametrize("place", ["nobody there", "no proxy there", "plain", "plain through a proxy", "refused"])
async def test_failure_to_connect_shows_no_secret(
    case: Case, server: RerankServer, how: str, place: str, plain_port: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    trusting_nobody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to read certificates takes longer than the call
    away = f"http://127.0.0.1:{refused_port()}"
    secure = server.base_url.replace("http:", "https:")
    changes: dict[str, dict[str, object]] = {
        "nobody there": {"base_url": away, "proxy": None},
        "no proxy there": {"proxy": away.replace("://", f"://user:{PASSWORD}@")},
        "plain": {"base_url": f"https://127.0.0.1:{plain_port}", "proxy": None, "verify": trusting_nobody},
        "plain through a proxy": {"base_url": secure},
        "refused": {"api_key": KEY + KEY},
    }
    options, changes = changes[place], {}
    reranker = made(case, server, **options)
    options = {}
    error = await failed(reranker, how)
    assert isinstance(error, AuthenticationError if place == "refused" else ConnectionFailedError)
    unshown(error)
    unlogged(caplog)


async def test_cancellation_shows_no_secret(case: Case, server: RerankServer) -> None:
    """What waits for a reply holds its headers; the traceback of a cancelled call must not."""
    async with made(case, server) as reranker:
        await reranker.arank("capital of France?", TEXTS)
        server.delay = 5.0
        with pytest.raises(asyncio.TimeoutError) as caught:
            await asyncio.wait_for(reranker.arank("capital of France?", TEXTS), 0.1)
        assert any(isinstance(error, asyncio.CancelledError) for error in chain(caught.value))
        unshown(caught.value)


def opened(reranker: Reranker) -> list[object]:
    """The reranker and what it is made of, as a debugger would step into it."""
    found: list[object] = [reranker]
    for item in found:
        slots = [getattr(item, field.name) for field in fields(item)] if is_dataclass(item) else []
        for part in [*vars(item).values(), *slots] if hasattr(item, "__dict__") else slots:
            ours = type(part).__module__.startswith("uprank.") and not isinstance(part, str)
            if ours and not any(part is known for known in found):
                found.append(part)
    return found


def test_no_part_shows_a_secret(case: Case, server: RerankServer) -> None:
    reranker = made(case, server)
    reranker.rank("capital of France?", TEXTS)
    parts = opened(reranker)
    names = {type(part).__name__ for part in parts}
    assert names >= {"Reranker", "Target", "Gate", "RetryPolicy", "Clients", "ClientOptions", "_Client"}
    for part in parts:
        hidden(repr(part), str(part), f"{part}")
        if not isinstance(part, httpx.Client):  # httpx keeps its own headers
            hidden(vars(part) if hasattr(part, "__dict__") else "")
        if is_dataclass(part):
            hidden({field.name: getattr(part, field.name) for field in fields(part)})


CONSTRUCTORS: dict[str, Callable[..., object]] = {
    "Reranker": lambda **options: Reranker("jina:m", **options),
    "HTTPScorer": lambda **options: HTTPScorer("m", provider="jina", **options),
    "CohereScorer": lambda **options: CohereScorer("m", **options),
    "rerank": lambda **options: rerank("q", ["a"], "jina:m", **options),
}
REFUSED: dict[str, dict[str, object]] = {
    "a control character in the key": {"api_key": f"{KEY}\x07{KEY}"},
    "a line end in the key": {"api_key": f"{KEY}\n{KEY}"},
    "a key in another script": {"api_key": f"{KEY}ключ"},
    "a key of another type": {"api_key": KEY.encode()},
    "a line end in a header": {"headers": {"X-Plain": f"{HEADER}\r\nX: y"}},
    "a header in another script": {"headers": {"X-Plain": f"{HEADER}é"}},
    "a header of another type": {"headers": {"X-Secret": HEADER, "X-Number": 1}},
    "a header with a bad name": {"headers": {"X Secret": HEADER}},
    "a password in the address": {"base_url": f"http://user:{PASSWORD}@127.0.0.1:9"},
    "a password in an address that is none": {"base_url": f"ftp://user:{PASSWORD}@127.0.0.1:9"},
    "a proxy of no known kind": {"proxy": f"ftp://user:{PASSWORD}@127.0.0.1:9"},
    "a proxy with a bad port": {"proxy": f"http://user:{PASSWORD}@127.0.0.1:port"},
    "another option": {"timeout": -1},
    "an unknown option": {"time_out": 1},
}


@pytest.mark.parametrize("construct", CONSTRUCTORS.values(), ids=CONSTRUCTORS)
@pytest.mark.parametrize("mistake", REFUSED, ids=REFUSED)
def test_a_refused_option_shows_no_secret(construct: Callable[..., object], mistake: str) -> None:
    """Also not in the variables of the functions on the way, save the caller's own."""
    usual = {"api_key": KEY, "headers": {"X-Plain": HEADER}, "proxy": f"http://user:{PASSWORD}@127.0.0.1:9"}
    with pytest.raises(ConfigurationError) as caught:
        construct(**{**usual, **REFUSED[mistake]})
    trace = caught.value.__traceback__
    own = trace and trace.tb_next  # the caller's frames are this one and that of the lambda above
    assert own is not None
    assert own.tb_next is not None
    raised = caught.value.with_traceback(own.tb_next)
    if mistake != "a key of another type":  # nothing hides what is no key
        unshown(raised)
    hidden(raised, repr(raised))


@pytest.mark.parametrize("wrap", [str, SecretStr, Secret, lambda key: f" {key}\n"])
def test_a_key_is_taken_in_any_form(case: Case, server: RerankServer, wrap: Callable[[str], object]) -> None:
    ranking = Reranker(case.model, api_key=wrap(KEY), base_url=server.base_url, max_retries=0).rank("q", TEXTS)
    assert len(ranking) == 3
    assert server.posts[-1].headers[case.header].removeprefix("Bearer ") == KEY


@drivers
async def test_a_key_renewed_in_the_environment_is_used(
    case: Case, server: RerankServer, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(case.variable, f"{KEY}\n")  # as read from a file
    async with Reranker(case.model, base_url=server.base_url, max_retries=0) as reranker:
        assert len(await ranked(reranker, how)) == 3
        server.service.key = "the-next-one"
        assert isinstance(await failed(reranker, how), AuthenticationError)
        monkeypatch.setenv(case.variable, "the-next-one")
        assert len(await ranked(reranker, how)) == 3


def test_a_key_of_control_characters_in_the_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("JINA_API_KEY", f"{KEY}\x00"[:-1] + "\x1b[0m")
    with pytest.raises(ConfigurationError, match="JINA_API_KEY holds characters that no key has") as caught:
        Reranker("jina:m")
    unshown(caught.value)


def test_timeouts_and_retries_show_no_secret(case: Case, server: RerankServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.01)
    server.fail_always(status(500, message=ECHO))
    with ExitStack() as stack:
        reranker = stack.enter_context(made(case, server, max_retries=2, deadline=0.5))
        with pytest.raises((ScorerError, DeadlineExceededError)) as caught:
            reranker.rank_many(["q", "r"], [TEXTS, TEXTS])
    unshown(caught.value)


def test_helpers() -> None:
    """The parts that the tests above use together, one by one."""
    assert masked({"api_key": "k", "n": 1})["api_key"] == "k"
    assert repr(masked({"a": {"token": "planted"}, "headers": {"X": "planted"}, "n": 1})) == (
        "{'a': {'token': '**********'}, 'headers': {'X': '**********'}, 'n': 1}"
    )
    assert f"{Masked('seen')}" == "seen"
    named = {
        "proxy": "http://u:p@h:1",
        "X-Auth-Key": "k",
        "Ocp-Apim-Subscription-Key": "k",
        "X-Auth": "k",
        "token": "k",
    }
    assert set(secrets_among({**named, "author": "a", "max_tokens": 1, "base_url": "http://h/a:b@c"})) == set(named)
    assert without_secrets(named) == {"proxy": "http://u@h:1"}
    assert redact("abcd abcdef ab", ("abcd", "abcdef")) == "********** ********** ab"
    assert redact('say "a\\"b c"', ('a"b c',)) == 'say "**********"'
    assert redact("cut: 'secret-ke', secret-", ("secret-key",)) == "cut: '**********', secret-"
    assert redact("none", ("non",)) == "none"
