"""More documents than one request takes: as many requests as needed, and the scores of one."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass

import pytest

from http_cases import CASES, KEY, QUERY, SPLITTABLE, TEXTS, Case, Servers, case_of, check_ranking, sent
from rerank_servers import Request, RerankServer, pair_tokens, serve, status, tokens
from uprank import Ranking, Reranker
from uprank.errors import RequestTooLargeError

DOCUMENTS = [TEXTS[9], *TEXTS, TEXTS[2], TEXTS[1]]
UNIQUE = [TEXTS[9], *(text for text in TEXTS if text != TEXTS[9])]
CAPPED = [case for case in SPLITTABLE if case.cap is not None]
both_drivers = pytest.mark.parametrize("driver", ["rank", "arank"])


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


async def ranked(driver: str, reranker: Reranker, documents: Sequence[str], query: str = QUERY) -> Ranking:
    if driver == "arank":
        async with reranker:
            return await reranker.arank(query, documents)
    with reranker:
        return reranker.rank(query, documents)


def groups(requests: Sequence[Request]) -> list[list[str]]:
    """The texts of each request; requests that go out at once arrive in any order."""
    return sorted(request.texts for request in requests)


def cut(texts: Sequence[str], size: int) -> list[list[str]]:
    return [sent(texts[start : start + size]) for start in range(0, len(texts), size)]


def scores_of(case: Case, server: RerankServer, texts: Sequence[str]) -> dict[str, float]:
    return dict(zip(texts, case.scores(server, texts), strict=True))


@both_drivers
@pytest.mark.parametrize("case", SPLITTABLE, ids=str)
async def test_chunks_merge_into_the_ranking_of_one_request(case: Case, driver: str, servers: Servers) -> None:
    server = servers.of(case)
    whole = await ranked(driver, case.reranker(server), DOCUMENTS)
    already = len(server.posts)
    ranking = await ranked(driver, case.reranker(server, max_documents=4), DOCUMENTS)
    posts = server.posts[already:]
    assert groups(posts) == sorted(cut(UNIQUE, 4))  # full requests first, each text once, blanks filled
    check_ranking(ranking, DOCUMENTS, scores_of(case, server, UNIQUE), case.kind)
    assert ranking.hits == whole.hits  # to the last bit
    assert (ranking.usage.requests, ranking.usage.retries) == (3 + case.asks_first, 0)
    expected = case.used(UNIQUE[:4], UNIQUE[4:8], UNIQUE[8:])
    assert (ranking.usage.tokens, ranking.usage.search_units) == expected
    assert len(ranking) == len(DOCUMENTS)
    assert ranking.usage.pairs == len(UNIQUE)


@pytest.mark.no_cover
@pytest.mark.rotated(2)
@both_drivers
@pytest.mark.parametrize("case", CAPPED, ids=str)
async def test_the_services_own_cap(case: Case, driver: str, servers: Servers) -> None:
    server = servers.of(case)
    assert case.cap is not None
    texts = [f"document number {number}, of the capital" for number in range(case.cap + 1)]
    already = len(server.posts)
    ranking = await ranked(driver, case.reranker(server, max_retries=0), texts)
    check_ranking(ranking, texts, scores_of(case, server, texts), case.kind)
    posts = server.posts[already:]  # the server refuses more than its cap, and there was no such request
    assert sorted(len(post.texts) for post in posts) == [1, case.cap]
    assert ranking.usage.requests == 2 + case.asks_first


@pytest.mark.no_cover
@pytest.mark.rotated(2)
@both_drivers
@pytest.mark.parametrize("case", CAPPED, ids=str)
async def test_as_many_as_the_cap_are_one_request(case: Case, driver: str, servers: Servers) -> None:
    server = servers.of(case)
    texts = [f"document number {number}" for number in range(case.cap or 0)]
    already = len(server.posts)
    ranking = await ranked(driver, case.reranker(server, max_documents=10_000), texts)
    assert [len(post.texts) for post in server.posts[already:]] == [case.cap]
    assert len(ranking) == case.cap


@pytest.mark.parametrize("case", [case_of(name) for name in ("cohere", "jina", "tei")], ids=str)
def test_chunks_go_out_at_once(case: Case) -> None:
    with ExitStack() as stack:
        server = case.serve(stack)
        server.hold_until(3)
        with case.reranker(server, max_documents=4) as reranker:
            reranker.rank(QUERY, TEXTS)
        assert server.most_at_once == 3


# TEI tells its limits.


@both_drivers
async def test_tei_is_asked_for_its_limits_once(driver: str) -> None:
    case = case_of("tei")
    with ExitStack() as stack:
        server = case.serve(stack, max_client_batch_size=8)
        texts = [f"text number {number}" for number in range(33)]
        reranker = case.reranker(server)
        first = reranker.rank(QUERY, texts) if driver == "rank" else await reranker.arank(QUERY, texts)
        second = reranker.rank(QUERY, texts) if driver == "rank" else await reranker.arank(QUERY, texts)
        await reranker.aclose()
        check_ranking(first, texts, scores_of(case, server, texts), "probability")
        assert first.hits == second.hits
        assert (first.usage.requests, second.usage.requests) == (6, 5)
        assert [request.path for request in server.requests if request.method == "GET"] == ["/info"]
        assert sorted(len(post.texts) for post in server.posts) == sorted([8, 8, 8, 8, 1] * 2)


@both_drivers
async def test_tei_that_does_not_tell_gets_the_usual_32(driver: str) -> None:
    case = case_of("tei")
    with ExitStack() as stack:
        server = case.serve(stack)
        server.fail_path("/info", status(404))
        texts = [f"text number {number}" for number in range(33)]
        ranking = await ranked(driver, case.reranker(server), texts)
        check_ranking(ranking, texts, scores_of(case, server, texts), "probability")
        assert sorted(len(post.texts) for post in server.posts) == [1, 32]


@both_drivers
async def test_tei_permits_are_never_exceeded(driver: str) -> None:
    """One permit a text, none is waited for: as many requests at once as there are permits for, and no more."""
    case = case_of("tei")
    with ExitStack() as stack:
        server = case.serve(stack, permits=64)
        server.delay = 0.02
        texts = [f"text number {number}" for number in range(320)]
        ranking = await ranked(driver, case.reranker(server, max_retries=0), texts)
        check_ranking(ranking, texts, scores_of(case, server, texts), "probability")
        assert len(server.posts) == 10
        assert server.most_at_once == 2


@pytest.mark.no_cover
@pytest.mark.rotated(2)
@both_drivers
@pytest.mark.parametrize("character", ["x", '"', "\\", "\n", "é", "狐"])
async def test_tei_bodies_stay_under_two_megabytes(driver: str, character: str) -> None:
    case = case_of("tei")
    size = 600_000 // len(character.encode())
    texts = [f"{number} {character * size} {number}" for number in range(5)]
    with ExitStack() as stack:
        server = case.serve(stack)
        ranking = await ranked(driver, case.reranker(server, max_retries=0), texts)
        check_ranking(ranking, texts, scores_of(case, server, texts), "probability")
        assert max(len(post.body) for post in server.posts) <= 2_000_000
        assert len(server.posts) == (5 if character in '"\\\n' else 2)  # escaped, these take two bytes each
        assert ranking.usage.requests == len(server.posts) + 1


# Voyage has a budget of tokens.


@both_drivers
async def test_voyage_budget_is_kept(driver: str) -> None:
    """200,000 tokens a text as the server counts, more as the client guesses: two fit a request, three do not."""
    case = case_of("voyage")
    texts = [letter * 800_000 for letter in "abc"]
    with ExitStack() as stack:
        server = case.serve(stack)
        ranking = await ranked(driver, case.reranker(server, max_retries=0), texts)
        check_ranking(ranking, texts, scores_of(case, server, texts), "probability")
        assert sum(pair_tokens(post.query, post.texts) <= 600_000 for post in server.posts) == len(server.posts)
        assert ranking.usage.requests == len(server.posts) == 2


@both_drivers
async def test_voyage_long_query_counts_with_each_document(driver: str) -> None:
    case = case_of("voyage")
    query = "capital " * 3_000
    texts = [f"text number {number}" for number in range(200)]
    with ExitStack() as stack:
        server = case.serve(stack)
        ranking = await ranked(driver, case.reranker(server, max_retries=0), texts, query)
        assert len(server.posts) == ranking.usage.requests > 1  # none was refused
        scores = server.scores(query, texts, model=case.model)
        check_ranking(ranking, texts, dict(zip(texts, scores, strict=True)), "probability")


@both_drivers
async def test_a_request_that_is_too_large_is_halved(driver: str) -> None:
    """The server counts by a tokenizer that the client does not have: its refusal halves the request."""
    case = case_of("voyage")
    texts = [f"text {number:02}" for number in range(16)]
    budget = 4 * (tokens(QUERY) + tokens(texts[0]))
    with ExitStack() as stack:
        server = case.serve(stack, budget=budget)
        ranking = await ranked(driver, case.reranker(server, max_retries=0), texts)
        check_ranking(ranking, texts, scores_of(case, server, texts), "probability")
        sizes = [len(post.texts) for post in server.posts]
        assert sorted(sizes, reverse=True) == [16, 8, 8, 4, 4, 4, 4]
        assert (ranking.usage.requests, ranking.usage.retries) == (7, 0)
        assert ranking.usage.tokens == pair_tokens(QUERY, texts)  # of those that were served


@both_drivers
async def test_what_is_too_large_by_itself_is_not_halved_for_ever(driver: str) -> None:
    case = case_of("voyage")
    with ExitStack() as stack:
        server = case.serve(stack, budget=3)
        with pytest.raises(RequestTooLargeError) as caught:
            await ranked(driver, case.reranker(server, max_retries=0), [f"text {number}" for number in range(64)])
        assert caught.value.status == 400
        assert "3" in (caught.value.allowed or "")
        assert caught.value.sent is not None
        assert len(server.posts) <= 1 + 2 + 4 + 8 + 16


# Listwise models.


@both_drivers
@pytest.mark.parametrize("case", [case for case in CASES if case.listwise], ids=str)
async def test_a_listwise_model_is_never_split(case: Case, driver: str, servers: Servers) -> None:
    server = servers.of(case)
    already = len(server.requests)
    assert case.cap is not None
    for limit, count in ((None, case.cap + 1), (4, 5)):
        texts = [f"text number {number}" for number in range(count)]
        with pytest.raises(RequestTooLargeError) as caught:
            await ranked(driver, case.reranker(server, max_documents=limit), texts)
        error = caught.value
        assert (error.sent, error.allowed) == (f"{count} documents", f"{limit or case.cap} documents")
        assert (error.provider, error.model, error.status) == (case.scheme, case.name, None)
        assert case.name in str(error)
        kept = await ranked(driver, case.reranker(server, max_documents=limit, on_error="passthrough"), texts)
        assert kept.degraded
        assert [hit.index for hit in kept] == list(range(count))
    assert len(server.requests) == already  # before anything is sent
    texts = [f"text number {number}" for number in range(case.cap)]
    ranking = await ranked(driver, case.reranker(server), texts)
    assert len(server.requests) == already + 1
    check_ranking(ranking, texts, scores_of(case, server, texts), "cosine")


@both_drivers
@pytest.mark.parametrize("model", ["jina-reranker-v3", "jina-reranker-v3.5"])
async def test_a_listwise_request_that_the_service_refuses_is_not_halved(driver: str, model: str) -> None:
    with serve("jina", key=KEY, max_documents=10) as server:
        reranker = Reranker(f"jina:{model}", base_url=server.base_url, api_key=KEY)
        with pytest.raises(RequestTooLargeError, match="at most 10"):
            await ranked(driver, reranker, [f"text {number}" for number in range(12)])
        assert len(server.posts) == 1


# Several queries.


@both_drivers
@pytest.mark.parametrize("name", ["cohere", "jina", "tei"])
async def test_several_queries_share_the_round(driver: str, name: str, servers: Servers) -> None:
    case = case_of(name)
    server = servers.of(case)
    queries = ["capital of France?", "whales", "who jumps?"]
    lists = [TEXTS, TEXTS[:1], TEXTS[3:9]]
    async with case.reranker(server, max_documents=4) as reranker:
        already = len(server.posts)
        if driver == "rank":
            rankings = reranker.rank_many(queries, lists)
        else:
            rankings = await reranker.arank_many(queries, lists)
    for query, texts, ranking in zip(queries, lists, rankings, strict=True):
        scores = server.scores(query, sent(texts), model=case.model)
        check_ranking(ranking, texts, dict(zip(texts, scores, strict=True)), case.kind)
    assert len(server.posts) - already == sum(math.ceil(len(texts) / 4) for texts in lists)


# What is on its way when the client closes.


@pytest.mark.parametrize("case", [case_of(name) for name in ("cohere", "jina")], ids=str)
def test_closing_takes_no_socket_from_under_a_thread(case: Case) -> None:
    """A thread whose socket is closed under it may wait for another that got its number, until its timeout."""
    with ExitStack() as stack:
        server = case.serve(stack)
        server.delay = 0.3
        reranker = case.reranker(server, max_documents=4, max_retries=0)
        with ThreadPoolExecutor(1) as pool:
            ranking = pool.submit(reranker.rank, QUERY, TEXTS)
            until = time.monotonic() + 5
            while server.at_once < 3 and time.monotonic() < until:
                time.sleep(0.005)
            reranker.close()
            check_ranking(ranking.result(5), TEXTS, scores_of(case, server, TEXTS), case.kind)
        until = time.monotonic() + 5
        while server.open_connections and time.monotonic() < until:
            time.sleep(0.005)
        assert server.open_connections == 0  # the last of them closed the client


# What a service says of its limits is told apart from other refusals.


@dataclass(frozen=True)
class Limit:
    """A request that a service refuses for its length, by the service's own rule."""

    name: str
    served: dict[str, object]
    given: dict[str, object]
    code: int


LONG = ["short", "word " * 400, "short too"]
LIMITS = [
    Limit("voyage", {"budget": 100}, {}, 400),
    Limit("jina", {"max_tokens": 100}, {"truncation": False}, 422),
    Limit("vllm", {"max_model_len": 100}, {}, 400),
    Limit("vllm-score", {"max_model_len": 100}, {}, 400),
    Limit("tei", {"max_input_length": 100}, {"truncate": False}, 422),
    Limit("tei", {"payload_limit": 1000}, {}, 413),
    Limit("llama-cpp", {"n_ctx": 100}, {}, 400),
    Limit("llama-cpp", {"n_ctx": 100, "old": True}, {}, 500),
]


@pytest.mark.parametrize("limit", LIMITS, ids=lambda limit: f"{limit.name}-{limit.code}")
@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_a_document_over_a_services_limit(limit: Limit, driver: str) -> None:
    case = case_of(limit.name)
    with ExitStack() as stack:
        server = case.serve(stack, **limit.served)
        async with case.reranker(server, **limit.given) as reranker:
            with pytest.raises(RequestTooLargeError) as caught:
                await reranker.arank(QUERY, LONG) if driver == "arank" else reranker.rank(QUERY, LONG)
        assert caught.value.status == limit.code
        assert caught.value.allowed
        assert re.match(r"[123] documents, \d+ bytes", caught.value.sent or "")
        assert len(server.posts) <= 5  # the three, two halves, and each of the first alone
        sizes = [len(post.texts) for post in server.posts]
        assert sizes[0] == 3
        assert len({tuple(post.texts) for post in server.posts}) == len(sizes)  # nothing is sent twice
