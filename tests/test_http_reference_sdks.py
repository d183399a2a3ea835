"""The vendors' own SDKs as reference encoders: the same call, by theirs and by ours, is the same request."""

from __future__ import annotations

from collections.abc import Mapping

import pytest

pytest.importorskip("cohere", reason="the official SDK is the reference")
pytest.importorskip("voyageai", reason="the official SDK is the reference")

import cohere
import voyageai

from rerank_servers import RerankServer, serve, status
from rerank_servers.client import QUERY, TEXTS
from uprank import Reranker
from uprank.errors import (
    AuthenticationError,
    RateLimitError,
    RequestRefusedError,
    RequestTooLargeError,
    ServerError,
    ServiceError,
)

KEY = "key-9d1f"
HARD = ["naïve café\u2028", 'a "quoted" \\ line\n\ttab\x00', "日本語 🗾", " spaces ", TEXTS[1]]

COHERE_CALLS: dict[str, dict[str, object]] = {
    "plain": {},
    "max-tokens": {"max_tokens_per_doc": 8000},
    "priority": {"priority": 3},
    "spans": {"relevant_spans": {"mode": "enabled", "threshold": 0.2, "max_spans": 2}},
    "all": {"max_tokens_per_doc": 1, "priority": 999, "relevant_spans": {"mode": "disabled"}},
}


def last(server: RerankServer) -> tuple[object, str, str]:
    """The last body without its nulls, the key's header, and the path."""
    request = server.posts[-1]
    body = request.json
    assert isinstance(body, dict)
    assert "text/" not in request.headers["content-type"]
    present = {name: value for name, value in body.items() if value is not None}
    return present, request.headers["authorization"], request.path


def of_cohere(call: Mapping[str, object]) -> dict[str, object]:
    """The call's fields as the SDK's own types."""
    fields = dict(call)
    if isinstance(spans := fields.get("relevant_spans"), dict):
        fields["relevant_spans"] = cohere.types.RerankRelevantSpans(**spans)
    return fields


# Cohere


@pytest.mark.parametrize("texts", [TEXTS, HARD], ids=["plain", "hard"])
@pytest.mark.parametrize("name", COHERE_CALLS)
async def test_cohere_calls_are_what_its_sdk_sends(name: str, texts: list[str]) -> None:
    """Both ways to Cohere: the scheme cohere:, over the SDK, and http: with its dialect, without it."""
    call, model = COHERE_CALLS[name], "rerank-v5.0-pro"
    with serve("cohere", key=KEY) as server:
        theirs = cohere.ClientV2(KEY, base_url=server.base_url)
        answer = theirs.rerank(model=model, query=QUERY, documents=texts, **of_cohere(call))
        expected = last(server)
        async with cohere.AsyncClientV2(KEY, base_url=server.base_url) as awaited:
            await awaited.rerank(model=model, query=QUERY, documents=texts, **of_cohere(call))
        assert last(server) == expected
        async with Reranker(f"cohere:{model}", api_key=KEY, base_url=server.base_url, **call) as ours:
            ranking = ours.rank(QUERY, texts)
            assert last(server) == expected
            await ours.arank(QUERY, texts)
            assert last(server) == expected
        address = server.url + server.path
        async with Reranker(
            f"http:{model}", dialect="cohere", api_key=KEY, base_url=address, extra_body=call, score_kind="probability"
        ) as plain:
            other = plain.rank(QUERY, texts)
            assert last(server) == expected
            await plain.arank(QUERY, texts)
            assert last(server) == expected
        assert len(server.posts) == 6
    assert expected == ({"model": model, "query": QUERY, "documents": texts, **call}, f"Bearer {KEY}", "/v2/rerank")
    found = [(result.index, result.relevance_score) for result in answer.results]
    assert [(hit.index, hit.score) for hit in ranking] == found == [(hit.index, hit.score) for hit in other]
    assert answer.meta is not None
    assert answer.meta.billed_units is not None
    assert ranking.usage.search_units == other.usage.search_units == answer.meta.billed_units.search_units == 1


async def test_cohere_retries_that_are_asked_for_are_ours_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK alone would send a failing request up to three times; ours sends what max_retries says."""
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.01)
    for retries in (0, 2):
        with serve("cohere", key=KEY) as server:
            server.fail_always(status(503))
            async with Reranker("cohere:m", api_key=KEY, base_url=server.base_url, max_retries=retries) as ours:
                with pytest.raises(ServerError):
                    ours.rank(QUERY, TEXTS)
                assert len(server.posts) == retries + 1
                with pytest.raises(ServerError):
                    await ours.arank(QUERY, TEXTS)
                assert len(server.posts) == 2 * (retries + 1)


# Voyage


@pytest.mark.parametrize("texts", [TEXTS, HARD], ids=["plain", "hard"])
@pytest.mark.parametrize("call", [{}, {"truncation": True}, {"truncation": False}], ids=str)
async def test_voyage_calls_are_what_its_sdk_sends(call: dict[str, bool], texts: list[str]) -> None:
    """But for ``return_documents``: we say false, which is the default, so that no changed default costs traffic."""
    with serve("voyage", key=KEY) as server:
        theirs = voyageai.Client(KEY, base_url=server.url + "/v1")
        answer = theirs.rerank(QUERY, texts, model="rerank-2.5", **call)
        expected = last(server)
        awaited = voyageai.AsyncClient(KEY, base_url=server.url + "/v1")
        await awaited.rerank(QUERY, texts, model="rerank-2.5", **call)
        assert last(server) == expected
        body, key, path = expected
        assert isinstance(body, dict)
        async with Reranker("voyage:rerank-2.5", api_key=KEY, base_url=server.base_url, **call) as ours:
            ranking = ours.rank(QUERY, texts)
            assert last(server) == ({**body, "return_documents": False}, key, path)
            await ours.arank(QUERY, texts)
            assert last(server) == ({**body, "return_documents": False}, key, path)
    assert (key, path) == (f"Bearer {KEY}", "/v1/rerank")
    assert [(hit.index, hit.score) for hit in ranking] == [
        (result.index, result.relevance_score) for result in answer.results
    ]
    assert [hit.document.text for hit in ranking] == [result.document for result in answer.results]
    assert ranking.usage.tokens == answer.total_tokens


def test_a_voyage_base_url_may_be_the_sdks_own() -> None:
    with serve("voyage", key=KEY) as server:
        with Reranker("voyage:rerank-2.5", api_key=KEY, base_url=server.url + "/v1") as ours:
            ours.rank(QUERY, TEXTS)
        assert server.posts[0].path == "/v1/rerank"


# Where the SDKs raise, so do we, and by kind

COHERE_ERRORS: list[tuple[int, type[Exception], type[ServiceError]]] = [
    (400, cohere.BadRequestError, RequestRefusedError),
    (401, cohere.UnauthorizedError, AuthenticationError),
    (403, cohere.ForbiddenError, AuthenticationError),
    (404, cohere.NotFoundError, RequestRefusedError),
    (422, cohere.UnprocessableEntityError, RequestRefusedError),
    (429, cohere.TooManyRequestsError, RateLimitError),
    (498, cohere.InvalidTokenError, AuthenticationError),
    (499, cohere.ClientClosedRequestError, RequestRefusedError),
    (500, cohere.InternalServerError, ServerError),
    (501, cohere.NotImplementedError, ServerError),
    (503, cohere.ServiceUnavailableError, ServerError),
    (504, cohere.GatewayTimeoutError, ServerError),
]


@pytest.mark.parametrize(("code", "their_kind", "our_kind"), COHERE_ERRORS)
async def test_each_of_coheres_errors_has_a_kind_of_ours(
    code: int, their_kind: type[Exception], our_kind: type[ServiceError]
) -> None:
    with serve("cohere", key=KEY) as server:
        server.fail_always(status(code, message="the reason"))
        theirs = cohere.ClientV2(KEY, base_url=server.base_url)
        with pytest.raises(their_kind):
            theirs.rerank(model="m", query=QUERY, documents=TEXTS, request_options={"max_retries": 0})
        async with Reranker("cohere:m", api_key=KEY, base_url=server.base_url, max_retries=0) as ours:
            with pytest.raises(our_kind, match=f"HTTP {code}, .*(the reason|invalid api token)") as plain:
                ours.rank(QUERY, TEXTS)
            with pytest.raises(our_kind) as awaited:
                await ours.arank(QUERY, TEXTS)
        assert [type(plain.value), type(awaited.value)] == [our_kind, our_kind]
        assert [plain.value.request_id, awaited.value.request_id] == [request.id for request in server.posts[1:]]


VOYAGE_ERRORS: list[tuple[int, type[Exception], type[ServiceError]]] = [
    (400, voyageai.error.InvalidRequestError, RequestRefusedError),
    (401, voyageai.error.AuthenticationError, AuthenticationError),
    (429, voyageai.error.RateLimitError, RateLimitError),
    (500, voyageai.error.ServerError, ServerError),
    (503, voyageai.error.ServiceUnavailableError, ServerError),
]


@pytest.mark.parametrize(("code", "their_kind", "our_kind"), VOYAGE_ERRORS)
def test_each_of_voyages_errors_has_a_kind_of_ours(
    code: int, their_kind: type[Exception], our_kind: type[ServiceError]
) -> None:
    with serve("voyage", key=KEY) as server:
        server.fail_always(status(code, message="the reason"))
        with pytest.raises(their_kind):
            voyageai.Client(KEY, base_url=server.url + "/v1").rerank(QUERY, TEXTS, model="rerank-2.5")
        with (
            Reranker("voyage:rerank-2.5", api_key=KEY, base_url=server.base_url, max_retries=0) as ours,
            pytest.raises(our_kind, match=r"the reason|key is invalid"),
        ):
            ours.rank(QUERY, TEXTS)


def test_what_is_too_much_for_the_sdk_is_split() -> None:
    """The SDK hands on the refusal of 1,001 documents, or of too many tokens; ours sends two requests."""
    texts = [f"text {number}" for number in range(1001)]
    with serve("voyage", key=KEY) as server:
        theirs = voyageai.Client(KEY, base_url=server.url + "/v1")
        with pytest.raises(voyageai.error.InvalidRequestError, match="1000 documents"):
            theirs.rerank(QUERY, texts, model="rerank-2.5")
        with Reranker("voyage:rerank-2.5", api_key=KEY, base_url=server.base_url) as ours:
            ranking = ours.rank(QUERY, texts)
        assert sorted(len(request.texts) for request in server.posts[1:]) == [1, 1000]
        expected = server.scores(QUERY, texts)
    assert sorted(hit.index for hit in ranking) == list(range(1001))
    assert all(hit.score == expected[hit.index] for hit in ranking)


def test_a_text_that_alone_is_too_much_is_not() -> None:
    with serve("voyage", key=KEY, budget=100) as server:
        with (
            Reranker("voyage:rerank-2.5", api_key=KEY, base_url=server.base_url) as ours,
            pytest.raises(RequestTooLargeError, match="max allowed tokens per submitted batch is 100"),
        ):
            ours.rank(QUERY, ["word " * 200])
        assert len(server.posts) == 1
