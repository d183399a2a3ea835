"""Cohere through its SDK: our connections or the caller's clients, our splitting and retries, the SDK's encoding."""

from __future__ import annotations

import asyncio
import os
import pickle
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

pytest.importorskip("cohere", reason="the official SDK is what is tested here")

import cohere
from cohere.core.unchecked_base_model import construct_type

from cohere_clients import KEY, body, clients, facts
from rerank_servers import edited, serve
from rerank_servers.client import QUERY, TEXTS
from uprank import Reranker
from uprank.errors import (
    ConfigurationError,
    DeadlineExceededError,
    ScorerError,
)
from uprank.scorers import CohereScorer


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("CO_API_KEY", "COHERE_API_KEY", "CO_API_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.01)
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_MINUTE", 0.01)


# Whose clients


@pytest.mark.parametrize("kind", ["own", "client", "both"])
async def test_plain_and_awaited_calls_agree_over_any_clients(kind: str) -> None:
    with serve("cohere", key=KEY) as server:
        reranker = Reranker(CohereScorer("rerank-v3.5", **clients(server.base_url, kind)))  # type: ignore[arg-type]  # by name
        plain, awaited = reranker.rank(QUERY, TEXTS), await reranker.arank(QUERY, TEXTS)
        await reranker.aclose()
        scores = server.scores(QUERY, TEXTS)
        assert facts(plain) == facts(awaited)
        assert plain.model == "cohere:rerank-v3.5"
        assert {hit.index: hit.score for hit in plain} == dict(enumerate(scores))
        assert [hit.score for hit in plain] == sorted(scores, reverse=True)
        assert body(server, 0) == body(server, 1) == {"model": "rerank-v3.5", "query": QUERY, "documents": TEXTS}
        assert {request.headers["authorization"] for request in server.posts} == {f"Bearer {KEY}"}


@pytest.mark.parametrize("kind", ["async-client", "async-as-client"])
async def test_an_async_client_alone_serves_awaited_calls_only(kind: str) -> None:
    with serve("cohere", key=KEY) as server:
        reranker = Reranker(CohereScorer("m", **clients(server.base_url, kind)))  # type: ignore[arg-type]  # by name
        assert len(await reranker.arank(QUERY, TEXTS)) == 4
        with pytest.raises(ConfigurationError, match=r"await arank\(\), or pass client= as well"):
            reranker.rank(QUERY, TEXTS)
        assert len(server.posts) == 1


async def test_each_of_two_ready_clients_has_its_own_calls() -> None:
    with serve("cohere") as server:
        given = {
            "client": cohere.ClientV2("the-plain-one", base_url=server.base_url),
            "async_client": cohere.AsyncClientV2("the-awaited-one", base_url=server.base_url),
        }
        reranker = Reranker(CohereScorer("m", **given))
        reranker.rank(QUERY, TEXTS)
        await reranker.arank(QUERY, TEXTS)
        keys = [request.headers["authorization"] for request in server.posts]
    assert keys == ["Bearer the-plain-one", "Bearer the-awaited-one"]


@pytest.mark.parametrize(
    "own",
    [{"api_key": "k"}, {"base_url": "http://127.0.0.1:9"}, {"headers": {"X-A": "b"}}, {"proxy": "http://127.0.0.1:9"}],
    ids=lambda own: next(iter(own)),
)
@pytest.mark.parametrize("name", ["client", "async_client"])
def test_what_a_ready_client_has_of_its_own_is_set_there(name: str, own: dict[str, object]) -> None:
    make = cohere.ClientV2 if name == "client" else cohere.AsyncClientV2
    with pytest.raises(ConfigurationError, match=f"A ready Cohere client has its own {next(iter(own))}"):
        CohereScorer("m", **{name: make(KEY, base_url="http://127.0.0.1:9")}, **own)  # type: ignore[arg-type]  # by name


def test_a_ready_client_stays_open_and_is_not_pickled() -> None:
    with serve("cohere", key=KEY) as server:
        client = cohere.ClientV2(KEY, base_url=server.base_url)
        reranker = Reranker(CohereScorer("m", client=client))
        reranker.rank(QUERY, TEXTS)
        reranker.close()
        assert len(client.rerank(model="m", query=QUERY, documents=TEXTS).results) == 4
        assert len(reranker.rank(QUERY, TEXTS)) == 4
        with pytest.raises(TypeError, match="a ready client, which is not pickled"):
            pickle.dumps(reranker)


class OfAnotherCloud:
    """As the SDK's clients for Bedrock and SageMaker: the same ``rerank``, and nothing else in common."""

    def __init__(self, answer: Callable[[dict[str, object]], object]) -> None:
        self.calls: list[dict[str, object]] = []
        self.threads: list[threading.Thread] = []
        self.answer = answer

    def rerank(self, *, model: str, query: str, documents: list[str], request_options: dict[str, object]) -> object:
        self.calls.append({"model": model, "query": query, "documents": documents, "options": request_options})
        self.threads.append(threading.current_thread())
        return self.answer(self.calls[-1])


def attributes(call: dict[str, object]) -> object:
    return construct_type(type_=cohere.V2RerankResponse, object_=mapping(call))


def mapping(call: dict[str, object]) -> object:
    return {"results": [{"index": index, "relevance_score": 0.5 - index / 8} for index in range(4)]}


@pytest.mark.parametrize("answer", [attributes, mapping])
async def test_a_client_of_another_cloud_works(answer: Callable[[dict[str, object]], object]) -> None:
    client = OfAnotherCloud(answer)
    reranker = Reranker(CohereScorer("cohere.rerank-v3-5:0", client=client))
    plain = reranker.rank(QUERY, TEXTS)
    assert client.threads == [threading.current_thread()]
    awaited = await reranker.arank(QUERY, TEXTS)
    assert client.threads[1] is not threading.current_thread()  # the loop stays free
    assert facts(plain) == facts(awaited)
    assert [hit.score for hit in plain] == [0.5, 0.375, 0.25, 0.125]
    call = client.calls[0]
    options = call.pop("options")
    assert call == {"model": "cohere.rerank-v3-5:0", "query": QUERY, "documents": TEXTS}
    assert isinstance(options, dict)
    assert options["max_retries"] == 0
    limit = options["timeout_in_seconds"]
    assert 59 < getattr(limit, "read", limit) <= 60


async def test_the_loop_is_free_and_the_time_is_kept_while_a_plain_client_blocks() -> None:
    """R6: a plain client is asked in a thread; the loop goes on, and the timeout holds though the thread does not."""
    blocked = threading.Event()
    client = OfAnotherCloud(lambda call: blocked.wait(3) and {})
    reranker = Reranker(CohereScorer("m", client=client, timeout=0.1, max_retries=0))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError, match=r"no whole reply within 0\.1 s"):
        await reranker.arank(QUERY, TEXTS)
    took = time.monotonic() - began
    ticking.cancel()
    blocked.set()
    assert took < 1.5
    assert ticks >= 3


# What is sent


@pytest.mark.parametrize("kind", ["own", "client", "both"])
async def test_request_fields_reach_the_wire(kind: str) -> None:
    fields = {"max_tokens_per_doc": 3, "priority": 7, "relevant_spans": {"mode": "enabled", "max_spans": 1}}
    with serve("cohere", key=KEY) as server:
        reranker = Reranker(CohereScorer("rerank-v5.0-pro", **fields, **clients(server.base_url, kind)))  # type: ignore[arg-type]  # by name
        plain, awaited = reranker.rank(QUERY, TEXTS), await reranker.arank(QUERY, TEXTS)
        await reranker.aclose()
        expected = {"model": "rerank-v5.0-pro", "query": QUERY, "documents": TEXTS, **fields}
        assert body(server, 0) == body(server, 1) == expected
    assert facts(plain) == facts(awaited)
    assert plain.warnings == ("documents [0, 1, 2, 3] are longer than 3 tokens and were truncated",)


async def test_extra_body_reaches_the_wire_and_a_strict_service_says_what_it_does_not_know() -> None:
    with serve("cohere", key=KEY) as server:
        options = {"api_key": KEY, "base_url": server.base_url, "extra_body": {"user_tag": 3}}
        reranker = Reranker("cohere:m", **options)
        for call in (lambda: reranker.arank(QUERY, TEXTS), lambda: asyncio.to_thread(reranker.rank, QUERY, TEXTS)):
            with pytest.raises(ScorerError, match=r"HTTP 422, .*parameter 'user_tag' is not a valid field"):
                await call()
        await reranker.aclose()
        assert [body(server, number)["user_tag"] for number in (0, 1)] == [3, 3]
        assert len(server.posts) == 2  # a permanent error is not tried again


async def test_more_than_a_thousand_documents_are_split_and_merged_exactly() -> None:
    texts = [f"text {number}" for number in range(2001)]
    with serve("cohere", key=KEY) as server:
        reranker = Reranker("cohere:m", api_key=KEY, base_url=server.base_url)
        plain, awaited = reranker.rank(QUERY, texts), await reranker.arank(QUERY, texts)
        await reranker.aclose()
        expected = server.scores(QUERY, texts)
        for posts in (server.posts[:3], server.posts[3:]):
            assert sorted(len(request.texts) for request in posts) == [1, 1000, 1000]
    assert facts(plain) == facts(awaited)
    assert {hit.index: hit.score for hit in plain} == dict(enumerate(expected))
    assert (plain.usage.search_units, plain.usage.requests, plain.usage.pairs) == (21, 3, 2001)


def test_warnings_of_every_part_reach_the_ranking_once() -> None:
    def warn(reply: object) -> object:
        assert isinstance(reply, dict)
        reply["meta"]["warnings"] = ["shared", f"of {len(reply['results'])}"]
        return reply

    with serve("cohere", key=KEY) as server:
        server.fail_always(edited(warn))
        with Reranker("cohere:m", api_key=KEY, base_url=server.base_url, max_documents=3) as reranker:
            assert sorted(reranker.rank(QUERY, TEXTS).warnings) == ["of 1", "of 3", "shared"]


# Keys and addresses


@pytest.mark.parametrize("variable", ["CO_API_KEY", "COHERE_API_KEY"])
async def test_the_environment_is_read_when_the_scorer_is_made(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK reads CO_API_URL when it is imported; it was imported above, before the variable was set."""
    with serve("cohere", key=KEY) as server:
        monkeypatch.setenv("CO_API_URL", server.base_url)
        monkeypatch.setenv(variable, KEY)
        reranker = Reranker("cohere:m")
        monkeypatch.delenv("CO_API_URL")
        reranker.rank(QUERY, TEXTS)
        await reranker.arank(QUERY, TEXTS)
        await reranker.aclose()
        assert len(server.posts) == 2


def test_co_api_key_goes_first_and_a_renewed_key_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COHERE_API_KEY", "second")
    with serve("cohere") as server, Reranker("cohere:m", base_url=server.base_url) as reranker:
        for key in ("first", "renewed"):
            monkeypatch.setenv("CO_API_KEY", key)
            reranker.rank(QUERY, TEXTS)
        monkeypatch.delenv("CO_API_KEY")
        reranker.rank(QUERY, TEXTS)
        keys = [request.headers["authorization"] for request in server.posts]
    assert keys == ["Bearer first", "Bearer renewed", "Bearer second"]


def test_the_variables_need_not_be_there_at_import() -> None:
    """In a new process: imported without them, made with them."""
    program = (
        "import os, uprank.scorers.http.cohere; from uprank import Reranker\n"
        "os.environ['CO_API_URL'], os.environ['CO_API_KEY'] = {url!r}, {key!r}\n"
        "print(len(Reranker('cohere:m').rank('q', ['a', 'b'])))"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("CO_", "COHERE_"))}
    with serve("cohere", key=KEY) as server:
        code = program.format(url=server.base_url, key=KEY)
        run = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert (run.stdout.strip(), run.returncode) == ("2", 0), run.stderr


@pytest.mark.parametrize("suffix", ["", "/", "/v2", "/v2/rerank", "/v2/rerank/"])
def test_a_base_url_may_hold_a_part_of_the_path(suffix: str) -> None:
    with serve("cohere", key=KEY) as server:
        with Reranker("cohere:m", api_key=KEY, base_url=server.url + suffix) as reranker:
            reranker.rank(QUERY, TEXTS)
        assert server.posts[0].path == "/v2/rerank"


def test_a_server_without_keys_needs_none() -> None:
    """vLLM speaks this dialect too. The SDK insists on a key, and most of its versions cannot send an empty one."""
    with serve("vllm") as server, Reranker("cohere:m", base_url=server.base_url) as reranker:
        ranking = reranker.rank(QUERY, TEXTS)
        assert (len(ranking), server.posts[0].path) == (4, "/v2/rerank")
        assert server.posts[0].headers["authorization"] == "Bearer none"
