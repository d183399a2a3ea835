"""No key, secret header or proxy password of a language model is shown by anything shown, written, logged or raised."""

from __future__ import annotations

import asyncio
import logging
import pickle
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

import httpx
import openai
import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import SecretStr

from chat_brains import reading
from chat_server import ChatServer, closed, edited, empty, html, refusal, reset, serve_chat, silent, status, upstream
from planted import HEADER, KEY, PASSWORD, SECRETS, TEXTS, chain, hidden, unshown
from rerank_servers import Fault, refused_port
from uprank import ConfigurationError, Ranking, Reranker, rerank
from uprank.errors import AuthenticationError, ConnectionFailedError, ServiceError
from uprank.langchain import RerankCompressor
from uprank.llama_index import RerankPostprocessor
from uprank.scorers import LLMScorer

pytestmark = pytest.mark.no_cover  # the same lines very often; others cover them

QUERY = "capital of France?"
ECHO = f"wrong key {KEY} with {HEADER} by {PASSWORD}"


def by_capital(query: str, text: str) -> float:
    return 1.0 if "capital" in text else 0.2


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve_chat(reading(by_capital), key=KEY) as running:
        yield running


def planted(server: ChatServer) -> dict[str, Any]:
    """All three secrets; the server is its own proxy."""
    return {
        "api_key": KEY,
        "headers": {"X-Client-Secret": HEADER, "Authorization-Info": f"Custom {HEADER}", "X-Plain": HEADER},
        "proxy": server.url.replace("://", f"://user:{PASSWORD}@"),
    }


def made(server: ChatServer, **options: object) -> Reranker:
    usual = {"base_url": server.base_url, "max_retries": 0, **planted(server)}
    return Reranker("llm:gpt-x", **{**usual, **options})


def picklable(server: ChatServer) -> Reranker:
    """A header whose name says nothing of a secret is kept in a pickle."""
    return made(server, headers={"X-Client-Secret": HEADER, "X-Plain": "v"})


# What the libraries below say at DEBUG of replies as they come: their headers, and where they redirect to.
OF_THE_SERVER = (
    "receive_response_headers.complete",
    "HTTP Response: ",
    "request_id: ",
    "Encountered an HTTP status error",
)


def unlogged(caplog: pytest.LogCaptureFixture) -> None:
    """No secret in any logger's records."""
    for record in caplog.records:
        if not record.getMessage().startswith(OF_THE_SERVER):
            hidden(record.getMessage(), vars(record))


async def ranked(reranker: Reranker, how: str) -> Ranking:
    if how == "sync":
        return reranker.rank(QUERY, TEXTS)
    try:
        return await reranker.arank(QUERY, TEXTS)
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
    server: ChatServer, how: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    ranking = await ranked(made(server, scores=True), how)
    assert ranking[0].document.text == TEXTS[0]
    sent = server.posts[-1].headers
    assert sent["authorization"] == f"Bearer {KEY}"
    assert sent["x-client-secret"] == HEADER
    assert sent["proxy-authorization"] == f"Basic {SECRETS[3]}"
    assert {record.name.partition(".")[0] for record in caplog.records} >= {"httpx", "httpcore", "openai"}
    unlogged(caplog)
    hidden(*capsys.readouterr(), repr(ranking), ranking.to_dicts(), ranking._repr_html_(), pickle.dumps(ranking))


FAULTS: dict[str, Fault] = {
    "a refusal that repeats it": status(401, message=ECHO),
    "a refusal that is cut in it": status(400, message="x" * 488 + KEY),
    "a page that is cut in it": status(400, body=b"<p>" + b"x" * 1988 + KEY.encode()),
    "a page that repeats it": status(404, body=f"<b>{ECHO}</b>".encode()),
    "an error of another shape": status(400, body=f'{{"what": ["{ECHO}"]}}'.encode()),
    "an error without retries": status(503, message=ECHO),
    "too long": status(413, message=f"maximum context length, says {KEY}"),
    "a redirect": status(302, headers={"Location": f"http://127.0.0.1/?key={KEY}"}),
    "a request id": status(403, headers={"x-request-id": KEY}),
    "no JSON": status(200, body=ECHO.encode()),
    "no JSON, cut": status(200, body=b"y" * 190 + KEY.encode()),
    "other JSON": edited(lambda reply: {KEY: HEADER, "request_id": KEY}),
    "an error inside": edited(lambda reply: {"id": "1", "error": {"message": ECHO, "code": 502}}),
    "the provider's error": upstream(),
    "an answer": edited(lambda reply: {**reply, "choices": [{"message": {"role": "assistant", "content": ECHO}}]}),
    "a refusal of the model": refusal(ECHO),
    "nothing": empty(),
    "an HTML page": html(200),
    "closed": closed(),
    "reset": reset(),
    "late": silent(1.0),
}


@pytest.mark.rotated(2)
@drivers
@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
async def test_failure_shows_no_secret(
    server: ChatServer, how: str, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail_always(fault)
    timeout = 0.2 if fault.name == "silent" else 5.0
    error = await failed(made(server, timeout=timeout), how)
    assert isinstance(error, ServiceError)
    assert server.posts, "the fault was never met"
    unshown(error)
    degraded = await ranked(made(server, timeout=timeout, on_error="passthrough"), how)
    assert degraded.degraded
    hidden(repr(degraded), degraded.warnings, degraded.to_dicts(), degraded._repr_html_())
    unlogged(caplog)


@drivers
async def test_the_warnings_of_a_ranking_show_no_secret(
    server: ChatServer, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Where only a part failed, the error is told among the warnings."""
    caplog.set_level(logging.DEBUG)
    server.fail_when(lambda request: request.number > 0, status(500, message=ECHO))
    ranking = await ranked(made(server, strategy="sliding", window=2, step=1), how)
    assert ranking.degraded
    assert any("HTTP 500" in warning and "wrong key **********" in warning for warning in ranking.warnings)
    hidden(*ranking.warnings, ranking.to_dicts(), repr(ranking), ranking._repr_html_(), pickle.dumps(ranking))
    unlogged(caplog)


@drivers
@pytest.mark.parametrize("place", ["nobody there", "no proxy there", "refused"])
async def test_failure_to_connect_shows_no_secret(
    server: ChatServer, how: str, place: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    away = f"http://127.0.0.1:{refused_port()}"
    changes: dict[str, dict[str, object]] = {
        "nobody there": {"base_url": away, "proxy": None},
        "no proxy there": {"proxy": away.replace("://", f"://user:{PASSWORD}@")},
        "refused": {"api_key": KEY + KEY},
    }
    options, changes = changes[place], {}
    reranker = made(server, **options)
    options = {}
    error = await failed(reranker, how)
    assert isinstance(error, AuthenticationError if place == "refused" else ConnectionFailedError)
    unshown(error)
    unlogged(caplog)


async def test_cancellation_shows_no_secret(server: ChatServer) -> None:
    """What waits for a reply holds its headers; the traceback of a cancelled call must not."""
    async with made(server) as reranker:
        await reranker.arank(QUERY, TEXTS)
        server.delay = 5.0
        with pytest.raises(asyncio.TimeoutError) as caught:
            await asyncio.wait_for(reranker.arank(QUERY, TEXTS), 0.1)
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


def test_no_part_shows_a_secret(server: ChatServer) -> None:
    reranker = made(server)
    reranker.rank(QUERY, TEXTS)
    parts = opened(reranker)
    names = {type(part).__name__ for part in parts}
    assert names >= {"Reranker", "LLMScorer", "OpenAIModel", "Asker", "Setup", "Style", "Gate", "Clients"}
    for part in parts:
        hidden(repr(part), str(part), f"{part}")
        if not isinstance(part, httpx.Client):  # httpx keeps its own headers
            hidden(vars(part) if hasattr(part, "__dict__") else "")
        if is_dataclass(part):
            hidden({field.name: getattr(part, field.name) for field in fields(part)})


CONSTRUCTORS: dict[str, Callable[..., object]] = {
    "Reranker": lambda **options: Reranker("llm:m", **options),
    "LLMScorer": lambda **options: LLMScorer("m", **options),
    "rerank": lambda **options: rerank("q", ["a"], "llm:m", **options),
}
REFUSED: dict[str, dict[str, object]] = {
    "a control character in the key": {"api_key": f"{KEY}\x07{KEY}"},
    "a line end in the key": {"api_key": f"{KEY}\n{KEY}"},
    "a key in another script": {"api_key": f"{KEY}ключ"},
    "a key of another type": {"api_key": KEY.encode()},
    "a line end in a header": {"headers": {"X-Plain": f"{HEADER}\r\nX: y"}},
    "a header of another type": {"headers": {"X-Secret": HEADER, "X-Number": 1}},
    "a password in the address": {"base_url": f"http://user:{PASSWORD}@127.0.0.1:9"},
    "a proxy of no known kind": {"proxy": f"ftp://user:{PASSWORD}@127.0.0.1:9"},
    "a field that is ours": {"extra_body": {"model": "x", "api_key": KEY}},
    "a field that is no JSON": {"extra_body": {"token": KEY, "x": object()}},
    "another option": {"timeout": -1},
    "the method": {"method": "best"},
    "the strategy": {"strategy": "best"},
    "the window": {"window": 1},
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


NODES = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
DOCUMENTS = [Document(text) for text in TEXTS]
CALLS: dict[type, Callable[[Any], int]] = {
    Reranker: lambda one: len(one.rank(QUERY, TEXTS)),
    LLMScorer: lambda one: len(one.score(QUERY, TEXTS).values),
    RerankCompressor: lambda one: len(one.compress_documents(DOCUMENTS, QUERY)),
    RerankPostprocessor: lambda one: len(one.postprocess_nodes(NODES, query_str=QUERY)),
}


def in_framework(kind: type, server: ChatServer) -> Any:
    options = {"base_url": server.base_url, "max_retries": 0}
    return kind(model="llm:gpt-x", api_key=SecretStr(KEY), options=options)


PICKLED: dict[str, Callable[[ChatServer], Any]] = {
    "Reranker": picklable,
    "scorer": lambda server: picklable(server).scorer,
    "compressor": lambda server: in_framework(RerankCompressor, server),
    "postprocessor": lambda server: in_framework(RerankPostprocessor, server),
    "compressor of a Reranker": lambda server: RerankCompressor(model=picklable(server)),
    "postprocessor of a Reranker": lambda server: RerankPostprocessor(model=picklable(server)),
}


@pytest.mark.parametrize("make", PICKLED.values(), ids=PICKLED)
def test_a_pickle_holds_no_secret_and_works_with_the_key_of_the_environment(
    server: ChatServer, make: Callable[[ChatServer], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = make(server)
    call = CALLS[type(one)]
    assert call(one) == 3  # so that its clients, which hold the key, are there
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        hidden(pickle.dumps(one, protocol))
    data = pickle.dumps(one)
    with pytest.raises(AuthenticationError):
        call(pickle.loads(data))  # noqa: S301 - our own
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    sent = len(server.posts)
    assert call(pickle.loads(data)) == 3  # noqa: S301
    assert server.posts[sent].headers["authorization"] == f"Bearer {KEY}"
    assert "x-client-secret" not in server.posts[sent].headers
    if "proxy-authorization" in server.posts[0].headers:
        assert server.posts[sent].target.startswith("http://"), "the proxy itself must be kept"


def test_frameworks_show_no_secret(server: ChatServer) -> None:
    for kind in (RerankCompressor, RerankPostprocessor):
        one = in_framework(kind, server)
        assert CALLS[kind](one) == 3
        hidden(repr(one), str(one), one.model_dump(), one.model_dump_json(), vars(one), one.model_copy())
        hidden(*(one.to_json(), one.to_dict()) if kind is RerankPostprocessor else (dumps(one), one.to_json()))
        with pytest.raises(ValueError, match="api_key=") as caught:
            kind(model="llm:m", options={"headers": {"Authorization": f"Bearer {HEADER}"}})
        hidden(caught.value, repr(caught.value))


def of_langchain(server: ChatServer) -> object:
    from langchain_openai import ChatOpenAI

    return ChatOpenAI(model="gpt-x", base_url=server.base_url, api_key=KEY, max_retries=0)


def of_llama_index(server: ChatServer) -> object:
    from llama_index.llms.openai_like import OpenAILike

    return OpenAILike(model="gpt-x", api_base=server.base_url, api_key=KEY, max_retries=0, is_chat_model=True)


def of_openai(server: ChatServer) -> object:
    return openai.OpenAI(base_url=server.base_url, api_key=KEY)


@drivers
@pytest.mark.parametrize("owner", [of_langchain, of_llama_index, of_openai], ids=["langchain", "llama-index", "openai"])
async def test_the_key_of_a_ready_model_is_not_shown(
    server: ChatServer, owner: Callable[[ChatServer], object], how: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    ready = owner(server)
    named = isinstance(ready, openai.OpenAI)
    scorer = LLMScorer("gpt-x", client=ready, max_retries=0) if named else LLMScorer(ready, max_retries=0)
    reranker = Reranker(scorer)
    ranking = await ranked(reranker, how)
    assert ranking[0].document.text == TEXTS[0]
    hidden(repr(reranker), repr(scorer), ranking.to_dicts(), repr(ranking))
    with pytest.raises(TypeError, match="ready"):
        pickle.dumps(scorer)
    for fault in (status(401, message=f"wrong key {KEY}"), status(500, message=f"wrong key {KEY}")):
        server.heal()
        server.fail_always(fault)
        error = await failed(reranker, how)
        assert isinstance(error, ServiceError)
        assert "wrong key **********" in str(error)
        hidden(error, repr(error), vars(error), pickle.dumps(error))
        ranking = await ranked(Reranker(scorer, on_error="passthrough"), how)
        hidden(*ranking.warnings, ranking.to_dicts())
    unlogged(caplog)
