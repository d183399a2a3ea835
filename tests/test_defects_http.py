"""Defects seen in other rerank clients, each shown to be absent here, against servers that answer as the services do.

D4, D5, ... and R3, R6, ... number them.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from langchain_core.documents import BaseDocumentCompressor, Document
from llama_index.core.postprocessor.types import BaseNodePostprocessor

import uprank.extras
from http_ways import MODELS, QUERY, TEXTS, WAYS, Rank, compressor
from rerank_servers import SERVICES, RerankServer, relevance, serve, status
from uprank import MissingDependencyError, Reranker
from uprank.errors import (
    AuthenticationError,
    BadReplyError,
    DeadlineExceededError,
    RateLimitError,
    RequestRefusedError,
    ServerError,
    ServiceError,
)
from uprank.langchain import RerankCompressor
from uprank.llama_index import RerankPostprocessor
from uprank.scorers.http import retries
from uprank.scorers.http.providers import PROVIDERS

every = pytest.mark.parametrize("service", MODELS)
two = pytest.mark.parametrize("service", ["cohere", "jina"])  # the SDK, and httpx


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.01)
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_MINUTE", 0.01)


@pytest.fixture
def server(service: str) -> Iterator[RerankServer]:
    with serve(service) as running:
        yield running


ways = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


@pytest.mark.rotated(2)
@ways
@two
@pytest.mark.parametrize(
    ("code", "error"),
    [(429, RateLimitError), (401, AuthenticationError), (500, ServerError), (404, RequestRefusedError)],
)
async def test_d4_an_error_status_is_a_typed_error(
    service: str, server: RerankServer, way: Rank, code: int, error: type[ServiceError]
) -> None:
    """D4: the status was never looked at, so that HTTP 429 surfaced as ``KeyError: 'results'``."""
    server.fail_always(status(code))
    with pytest.raises(error, match=f"HTTP {code}") as caught:
        await way(service, server, {"max_retries": 0})
    assert caught.value.status == code


def test_d4_cohere_is_asked_by_its_second_version() -> None:
    """D4: the client still posted to Cohere's first version."""
    with serve("cohere") as server:
        Reranker(MODELS["cohere"], api_key="k", base_url=server.base_url).rank(QUERY, TEXTS)
        assert [request.path for request in server.posts] == ["/v2/rerank"]


@every
def test_d4_d19_there_is_a_timeout_by_default(service: str, server: RerankServer) -> None:
    """D4, D19: without a timeout, a call waited for ever."""
    reranker = Reranker(MODELS[service], api_key="k", base_url=server.base_url)
    policy = reranker.scorer._target.policy
    assert 0 < policy.timeout <= 60
    assert policy.deadline is not None
    server.delay = 3.0
    began = time.monotonic()
    with pytest.raises(DeadlineExceededError):
        Reranker(MODELS[service], api_key="k", base_url=server.base_url, timeout=0.1, max_retries=0).rank(QUERY, TEXTS)
    assert time.monotonic() - began < 2.0


@pytest.mark.parametrize(
    ("model", "package", "extra"),
    [("cohere:m", "cohere", "cohere"), ("jina:m", "httpx", "http"), ("tei", "anyio", "http")],
)
def test_d5_a_missing_package_is_raised_with_what_to_install(
    model: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """D5: for a missing package, the factory printed advice and returned None."""
    for name in ("scorer", "cohere"):
        monkeypatch.delitem(sys.modules, f"uprank.scorers.http.{name}", raising=False)
    find = uprank.extras.find_spec
    monkeypatch.setattr(uprank.extras, "find_spec", lambda name, *rest: None if name == package else find(name, *rest))
    with pytest.raises(MissingDependencyError, match=rf'pip install "uprank\[{extra}\]"') as caught:
        Reranker(model, api_key="k")
    assert package in caught.value.packages
    assert capsys.readouterr() == ("", "")


def test_d5_every_service_on_offer_can_be_made() -> None:
    """D5: a scheme was on offer for which there was no class."""
    for scheme, row in PROVIDERS.items():
        given = {"base_url": "http://127.0.0.1:9/rerank"} if scheme == "http" else {}
        made = Reranker(f"{scheme}:{row.example}", api_key="k", **given)
        assert made.scorer.name == f"{scheme}:{row.example}"
    assert {row.name for row in SERVICES.values()} == set(PROVIDERS) - {"http"}


@every
def test_d17_pairs_whose_texts_join_alike_are_scored_apart(service: str, server: RerankServer) -> None:
    """D17: scores were kept under query + document, so that ("ab", "c") got the score of ("a", "bc")."""
    pairs = [("ab", ["c", "xc"]), ("a", ["bc", "bxc"]), ("abx", ["c"])]
    reranker = Reranker(MODELS[service], api_key="k", base_url=server.base_url)
    expected = [[pytest.approx(relevance(query, text)) for text in texts] for query, texts in pairs]
    assert len({relevance(query, text) for query, texts in pairs for text in texts}) == 5
    alone = [reranker.rank(query, texts) for query, texts in pairs]
    together = reranker.rank_many([query for query, _ in pairs], [texts for _, texts in pairs])
    for rankings in (alone, together):
        scores = [[hit.score for hit in sorted(ranking, key=lambda hit: hit.index)] for ranking in rankings]
        assert scores == expected


@every
def test_d18_a_long_query_is_sent_whole(service: str, server: RerankServer) -> None:
    """D18: a long query was cut to make room for the document."""
    query = "What is the capital of France? " * 400 + "The very last word: platypus"
    reranker = Reranker(MODELS[service], api_key="k", base_url=server.base_url)
    reranker.rank(query, TEXTS)
    assert [request.query for request in server.posts] == [query]


def test_d19_retries_wait_longer_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """D19: retries followed each other without a wait."""
    monkeypatch.setattr(retries, "_FIRST_WAIT", 0.1)
    no_luck = (*retries._Trouble.__init__.__defaults__[:-1], lambda low, high: high)
    monkeypatch.setattr(retries._Trouble.__init__, "__defaults__", no_luck)
    with serve("jina") as server:
        server.fail(range(3), status(503))
        server.fail(3, status(429, retry_after=0.5))
        Reranker(MODELS["jina"], api_key="k", base_url=server.base_url).rank(QUERY, TEXTS)
        came = [request.received for request in server.posts]
    waits = [later - earlier for earlier, later in pairwise(came)]
    assert len(waits) == 4
    for waited, least in zip(waits, (0.1, 0.2, 0.4, 0.5), strict=True):
        assert least * 0.95 <= waited


@pytest.mark.rotated(2)
@every
@pytest.mark.parametrize("code", [400, 401, 402, 403, 404, 413, 422])
def test_d19_what_cannot_succeed_is_asked_once(service: str, server: RerankServer, code: int) -> None:
    """D19: errors of the caller's, such as a wrong key, were retried as well."""
    server.fail_always(status(code))
    with pytest.raises(ServiceError) as caught:
        Reranker(MODELS[service], api_key="k", base_url=server.base_url, max_retries=5).rank(QUERY, ["one text"])
    assert caught.value.status == code
    assert len(server.posts) == 1


@every
def test_d19_keys_and_headers_are_each_objects_own(service: str, server: RerankServer) -> None:
    """D19: the key was written into a dictionary of the class, and so the last one was used for all."""
    shared = {"X-Team": "one"}
    first = Reranker(MODELS[service], api_key="first-key", base_url=server.base_url, headers=shared)
    shared["X-Team"] = "two"
    second = Reranker(MODELS[service], api_key="second-key", base_url=server.base_url, headers=shared)
    for reranker in (first, second, first):
        reranker.rank(QUERY, TEXTS)
    header = PROVIDERS[service].auth.lower()
    assert [request.headers[header].split()[-1] for request in server.posts] == ["first-key", "second-key", "first-key"]
    assert [request.headers["x-team"] for request in server.posts] == ["one", "two", "one"]
    assert shared == {"X-Team": "two"}


@ways
@every
async def test_d20_equal_documents_each_come_back_as_themselves(service: str, server: RerankServer, way: Rank) -> None:
    """D20: results were mapped back by equal text, so that duplicates collapsed into one."""
    found = await way(service, server, {})
    assert found == sorted(found, key=lambda each: (-(each[1] or 0.0), each[0]))
    assert sorted(index for index, _ in found) == [0, 1, 2, 3]
    scores = dict(found)
    assert scores[0] == scores[3] == pytest.approx(relevance(QUERY, TEXTS[0]))
    assert scores[1] == pytest.approx(relevance(QUERY, TEXTS[1]))


def test_d20_the_framework_classes_are_the_frameworks_own() -> None:
    """D20: its "LangChain" class was a plain class, and its ``ainvoke`` called the synchronous code."""
    assert issubclass(RerankCompressor, BaseDocumentCompressor)
    assert issubclass(RerankPostprocessor, BaseNodePostprocessor)
    assert RerankCompressor.acompress_documents is not BaseDocumentCompressor.acompress_documents


class Cited(Document):
    """A caller's own kind of document."""

    source: str = ""


@every
@pytest.mark.parametrize("how", ["sync", "async"])
async def test_d25_id_class_and_metadata_of_a_document_are_kept(service: str, server: RerankServer, how: str) -> None:
    """D25: documents were rebuilt from text and metadata, so that their ids, and their classes, were lost."""
    given = [Cited(page_content=text, id=f"id-{i}", metadata={"n": i}, source="s") for i, text in enumerate(TEXTS)]
    made = compressor(service, server)
    if how == "sync":
        found = made.compress_documents(given, QUERY)
    else:
        found = await made.acompress_documents(given, QUERY)
        await made.reranker.aclose()
    assert (found[0].id, found[0].metadata["n"]) == ("id-1", 1)
    assert {each.id for each in found} == {f"id-{i}" for i in range(4)}
    for each in found:
        assert isinstance(each, Cited)
        assert each.source == "s"
        assert each.id == f"id-{each.metadata['rerank_index']}"


BODIES = [b'{"code": 7}', b'{"message": null}', b"[]", b'"no"', b"null", b"<html>oops</html>", b"", b"{"]


@pytest.mark.rotated(2)
@ways
@two
@pytest.mark.parametrize("code", [200, 400, 502])
async def test_d27_an_error_of_any_shape_is_an_error_that_says_so(
    service: str, server: RerankServer, way: Rank, code: int
) -> None:
    """D27: an error body without ``detail`` ended in ``KeyError: 'detail'``, an HTML page in a JSONDecodeError."""
    kind = {200: BadReplyError, 400: RequestRefusedError, 502: ServerError}[code]
    for body in BODIES:
        server.heal()
        server.fail_always(status(code, body=body))
        with pytest.raises(kind, match=f"HTTP {code}") as caught:
            await way(service, server, {"max_retries": 0})
        assert (caught.value.status, caught.value.provider) == (code, service)


@pytest.mark.rotated(2)
@ways
@two
@pytest.mark.parametrize("code", [429, 500, 503, 504])
async def test_d34_too_many_requests_and_failing_servers_are_retried_alike(
    service: str, server: RerankServer, way: Rank, code: int
) -> None:
    """D34: 500, 503 and 504 were retried, but not 429, the one status that asks for it."""
    server.fail(0, status(code))
    assert len(await way(service, server, {})) == 4
    assert len(server.posts) == 2


@pytest.mark.parametrize("scheme", ["cohere", "jina", "voyage", "pinecone"])
def test_d34_a_missing_key_names_its_variable(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """D34: the wrong exception was caught around the environment, so that a missing key was a bare KeyError."""
    for variable in PROVIDERS[scheme].key_variables:
        monkeypatch.delenv(variable, raising=False)
    for make in (Reranker, lambda model: RerankCompressor(model=model), lambda model: RerankPostprocessor(model=model)):
        with pytest.raises(ValueError, match=f"environment variable {PROVIDERS[scheme].key_variables[0]}"):
            make(MODELS[scheme])
