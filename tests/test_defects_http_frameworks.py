"""Defects seen in LangChain's and LlamaIndex's rerankers behind HTTP, each shown to be absent from the classes here.

R3, R6, ... number them. The servers answer as the services do.
"""

from __future__ import annotations

import asyncio
import json
import pickle
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps, loads
from langchain_core.retrievers import BaseRetriever
from llama_index.core.schema import MetadataMode
from pydantic import SecretStr

from http_ways import MODELS, QUERY, TEXTS, WAYS, Rank, compressor, nodes, postprocessor
from rerank_servers import Fault, RerankServer, closed, html, refused_port, serve, status
from uprank.errors import ConnectionFailedError, RequestTooLargeError, ServerError, ServiceError
from uprank.langchain import RerankCompressor, RerankRetriever
from uprank.llama_index import RerankPostprocessor
from uprank.scorers.http.providers import PROVIDERS

KEY = "sk-planted-by-r9"
ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
every = pytest.mark.parametrize("service", MODELS)
two = pytest.mark.parametrize("service", ["cohere", "jina"])  # the SDK, and httpx


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.01)
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_MINUTE", 0.01)
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_REQUEST", 0.01)


@pytest.fixture
def server(service: str) -> Iterator[RerankServer]:
    with serve(service) as running:
        yield running


class Found(BaseRetriever):
    """A retriever that can be dumped."""

    @classmethod
    def is_lc_serializable(cls) -> bool:
        return True

    def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
        return [Document(text) for text in TEXTS]


@pytest.mark.no_cover
@pytest.mark.rotated(4)
@ways
@every
@pytest.mark.parametrize("fault", [status(429), status(503), closed(), html(200)], ids=str)
async def test_r3_an_outage_is_raised_and_not_an_empty_result(
    service: str, server: RerankServer, way: Rank, fault: Fault
) -> None:
    """R3: where the service failed, the error was logged and no documents came back."""
    server.fail_always(fault)
    with pytest.raises(ServiceError) as caught:
        await way(service, server, {"max_retries": 1})
    assert caught.value.model == MODELS[service]


@every
def test_r3_passed_through_all_documents_come_back_and_say_so(service: str, server: RerankServer) -> None:
    """R3: likewise; who prefers an unranked list to an error gets all of it, marked."""
    server.fail_always(status(503))
    passing: dict[str, Any] = {
        "model": MODELS[service],
        "api_key": SecretStr("k"),
        "options": {"base_url": server.base_url, "max_retries": 0},
        "on_error": "passthrough",
    }
    documents = RerankCompressor(**passing).compress_documents([Document(text) for text in TEXTS], QUERY)
    assert [each.page_content for each in documents] == TEXTS
    assert all(each.metadata["rerank_degraded"] for each in documents)
    found = RerankPostprocessor(**passing).postprocess_nodes(nodes(), query_str=QUERY)
    assert [each.node.get_content(MetadataMode.NONE) for each in found] == TEXTS
    assert all(each.node.metadata["rerank_degraded"] and each.score is None for each in found)


@every
def test_r3_only_the_text_is_sent(service: str, server: RerankServer) -> None:
    """R3: all metadata was uploaded, and metadata called "text" took the place of the document."""
    metadata = {"text": "HIJACK", "tenant_ssn": "123-45"}
    compressor(service, server).compress_documents([Document(text, metadata=metadata) for text in TEXTS], QUERY)
    (request,) = server.posts
    assert request.texts == list(dict.fromkeys(TEXTS))
    assert b"HIJACK" not in request.body
    assert b"123-45" not in request.body


async def by_compressor(service: str, server: RerankServer) -> Callable[[], Awaitable[object]]:
    made, documents = compressor(service, server), [Document(text) for text in TEXTS]
    return lambda: made.acompress_documents(documents, QUERY)


async def by_postprocessor(service: str, server: RerankServer) -> Callable[[], Awaitable[object]]:
    made, given = postprocessor(service, server), nodes()
    return lambda: made.apostprocess_nodes(given, query_str=QUERY)


native = pytest.mark.parametrize("make", [by_compressor, by_postprocessor], ids=["langchain", "llama-index"])


@pytest.mark.no_cover
@native
@two
async def test_r6_calls_are_in_flight_at_once(
    service: str, server: RerankServer, make: Callable[[str, RerankServer], Awaitable[Callable[[], Awaitable[object]]]]
) -> None:
    """R6: async methods ran the synchronous code in a few threads: 48 calls of 1 s took 8 s on 2 cores."""
    call = await make(service, server)
    server.hold_until(48)  # in a few threads, so many never wait at once
    assert len(await asyncio.gather(*(call() for _ in range(48)))) == 48
    assert server.most_at_once == 48


@pytest.mark.no_cover
@native
@two
async def test_r6_a_cancelled_call_ends_at_once(
    service: str, server: RerankServer, make: Callable[[str, RerankServer], Awaitable[Callable[[], Awaitable[object]]]]
) -> None:
    """R6: a thread cannot be cancelled, so a call given 0.1 s came back after 1 s, its request still in flight."""
    call = await make(service, server)
    await call()
    server.delay = 5.0
    before = asyncio.all_tasks()
    took = []
    for _ in range(3):
        began = time.perf_counter()
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(call(), 0.1)
        took.append(time.perf_counter() - began)
        if took[-1] < 0.2:
            break
    assert min(took) < 0.2
    assert asyncio.all_tasks() == before
    ends = time.monotonic() + 5
    while server.open_connections and time.monotonic() < ends:
        await asyncio.sleep(0.01)
    assert server.open_connections == 0, "the request in flight was not given up"


@pytest.mark.no_cover
@pytest.mark.rotated(2)
@ways
@two
@pytest.mark.parametrize("max_retries", [0, 2])
@pytest.mark.parametrize("fault", [status(500), status(429), status(503), closed()], ids=str)
async def test_r7_attempts_are_one_and_the_retries_asked_for(
    service: str, server: RerankServer, way: Rank, max_retries: int, fault: Fault
) -> None:
    """R7: there were no retries at all, or those of the wrapper times those of the SDK: 6 attempts for 2 retries."""
    server.fail_always(fault)
    with pytest.raises(ServiceError):
        await way(service, server, {"max_retries": max_retries})
    assert len(server.posts) == 1 + max_retries


@pytest.mark.parametrize("count", [1, 2, 3])
@pytest.mark.parametrize(
    ("code", "error"), [(413, RequestTooLargeError), (424, ServerError), (500, ServerError), (400, ServiceError)]
)
def test_r8_an_error_body_is_never_taken_for_scores(count: int, code: int, error: type[ServiceError]) -> None:
    """R8: TEI's error object has two keys; with two nodes it passed for two scores, with three an assertion failed."""
    with serve("tei") as server:
        server.fail_always(status(code))
        last, chain = postprocessor("tei", server, max_retries=0), compressor("tei", server, max_retries=0)
        documents = [Document(text) for text in TEXTS[:count]]
        for call in (
            lambda: last.postprocess_nodes(nodes(TEXTS[:count]), query_str=QUERY),
            lambda: chain.compress_documents(documents, QUERY),
        ):
            with pytest.raises(error, match=f"HTTP {code}") as caught:
                call()
            assert caught.value.status == code


@pytest.mark.parametrize("count", [2, 3])
def test_r8_an_error_body_under_a_success_is_no_scores_either(count: int) -> None:
    """R8: likewise, where something in between answers 200."""
    with serve("tei") as server:
        server.fail_always(status(200, body=b'{"error":"Model is overloaded","error_type":"Overloaded"}'))
        with pytest.raises(ServiceError, match="no list of results"):
            postprocessor("tei", server).postprocess_nodes(nodes(TEXTS[:count]), query_str=QUERY)


def test_r8_tei_is_told_to_truncate() -> None:
    """R8: the field for it was never sent, so that one long text failed the request."""
    with serve("tei", auto_truncate=False, max_input_length=20) as server:
        found = postprocessor("tei", server).postprocess_nodes(nodes([*TEXTS[:2], "word " * 200]), query_str=QUERY)
        assert len(found) == 3
        assert [request.json["truncate"] for request in server.posts] == [True]


@pytest.mark.no_cover
@every
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_r8_calls_share_one_connection(service: str, server: RerankServer, how: str) -> None:
    """R8: a client was made for each call, which cost 25 ms of each."""
    chain, last = compressor(service, server), postprocessor(service, server)
    documents = [Document(text) for text in TEXTS]
    for _ in range(10):
        if how == "sync":
            chain.compress_documents(documents, QUERY)
            last.postprocess_nodes(nodes(), query_str=QUERY)
        else:
            await chain.acompress_documents(documents, QUERY)
            await last.apostprocess_nodes(nodes(), query_str=QUERY)
    assert len(server.posts) == 20
    assert server.connections == 1, "both frameworks' objects share one reranker, and it one connection"


def made(framework: str, service: str, server: RerankServer, **options: Any) -> Any:
    if framework == "retriever":
        given = {"base_url": server.base_url, **options}
        return RerankRetriever(base_retriever=Found(), model=MODELS[service], api_key=SecretStr(KEY), options=given)
    cls = RerankCompressor if framework == "compressor" else RerankPostprocessor
    return cls(model=MODELS[service], api_key=SecretStr(KEY), options={"base_url": server.base_url, **options})


def called(made: Any) -> int:
    if isinstance(made, RerankCompressor):
        return len(made.compress_documents([Document(text) for text in TEXTS], QUERY))
    if isinstance(made, RerankRetriever):
        return len(made.invoke(QUERY))
    return len(made.postprocess_nodes(nodes(), query_str=QUERY))


FRAMEWORKS = ("compressor", "retriever", "postprocessor")


@every
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_r9_the_key_is_not_printed(service: str, server: RerankServer, framework: str) -> None:
    """R9: the repr of a reranker, and the JSON of some, showed the key."""
    one = made(framework, service, server)
    assert called(one) == 4
    assert KEY in str(server.posts[-1].headers), "it is sent, so there is something to show"
    shown = [repr(one), str(one), repr(one.reranker), repr(one.reranker.scorer), one.model_dump_json(), repr(vars(one))]
    shown.append(json.dumps(one.to_dict()) if framework == "postprocessor" else dumps(one))
    assert not [text for text in shown if KEY in text]


def revived(one: Any) -> dict[str, Any]:
    """The object after each of its framework's round trips."""
    found = {"pickle": pickle.loads(pickle.dumps(one)), "copy": one.model_copy()}  # noqa: S301 - our own
    if isinstance(one, RerankPostprocessor):
        return {**found, "json": type(one).from_json(one.to_json()), "dict": type(one).from_dict(one.to_dict())}
    allowed = {"allowed_objects": [type(one), Found], "valid_namespaces": ["uprank", __name__]}
    return {**found, "loads": loads(dumps(one), secrets_map={"UPRANK_API_KEY": "k"}, **allowed)}


@every
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_r10_the_address_is_used_also_after_a_round_trip(
    service: str, server: RerankServer, framework: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """R10: an address was ignored, or lost by the framework's own serialisation: what came back asked the vendor."""
    monkeypatch.setenv(PROVIDERS[service].key_variables[0], "k")
    one = made(framework, service, server)
    assert called(one) == 4
    for number, (way, again) in enumerate(revived(one).items(), start=2):
        assert called(again) == 4, way
        assert len(server.posts) == number, way


def test_r10_the_path_of_an_address_is_used() -> None:
    """R10: likewise for a gateway that has its own paths."""
    with serve("jina") as server:
        with pytest.raises(ServiceError, match="no such model or address"):
            called(made("compressor", "jina", server, base_url=f"{server.url}/gateway/"))
        assert [request.path for request in server.posts] == ["/gateway/v1/rerank"]


def test_r10_coheres_own_variable_for_the_address_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """R10: a None passed for the address kept the SDK from reading CO_API_URL."""
    with serve("cohere") as server:
        monkeypatch.setenv("CO_API_URL", server.base_url)
        one = RerankCompressor(model=MODELS["cohere"], api_key=SecretStr(KEY))
        assert called(one) == 4
        assert len(server.posts) == 1
    monkeypatch.setenv("CO_API_URL", f"http://127.0.0.1:{refused_port()}")
    with pytest.raises(ConnectionFailedError):
        called(RerankCompressor(model=MODELS["cohere"], api_key=SecretStr(KEY), options={"max_retries": 0}))
