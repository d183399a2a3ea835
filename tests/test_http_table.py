"""Every service that is known, asked the way it is documented: both drivers give the scores that it gives."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from http_cases import CASES, KEY, QUERY, TEXTS, Case, Servers, case_of, check_ranking, sent
from uprank.errors import ConfigurationError
from uprank.scorers.http.dialects import DIALECTS
from uprank.scorers.http.providers import PROVIDERS
from uprank.scorers.registry import SCHEMES

every_case = pytest.mark.parametrize("case", CASES, ids=str)
DOCUMENTS = [*TEXTS, TEXTS[1], TEXTS[2]]  # two of them twice


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers() as running:
        yield running


def test_the_table_covers_every_provider_and_every_dialect() -> None:
    assert {case.scheme for case in CASES} == set(PROVIDERS)
    assert {case.dialect for case in CASES if case.scheme == "http"} == set(DIALECTS)
    assert set(PROVIDERS) <= set(SCHEMES)
    assert len({str(case) for case in CASES}) == len(CASES)


@every_case
async def test_both_drivers_rank_by_the_scores_that_the_service_gives(case: Case, servers: Servers) -> None:
    server = servers.of(case)
    already = len(server.posts)
    scores = dict(zip(TEXTS, case.scores(server, TEXTS), strict=True))
    with case.reranker(server) as reranker:
        ranking = reranker.rank(QUERY, DOCUMENTS)
    async with case.reranker(server) as reranker:
        other = await reranker.arank(QUERY, DOCUMENTS)
    check_ranking(ranking, DOCUMENTS, scores, case.kind)
    assert other == ranking  # scores to the last bit, order, kind, usage, warnings
    assert ranking.model == case.name
    tokens, units = case.used(TEXTS)
    assert (ranking.usage.tokens, ranking.usage.search_units) == (tokens, units)
    assert (ranking.usage.requests, ranking.usage.retries) == (1 + case.asks_first, 0)
    assert ranking.usage.pairs == len(TEXTS)
    assert ranking.warnings == ()
    first, second = server.posts[already:]
    assert first.json == case.body(case.model, QUERY, sent(TEXTS))  # whole: nothing else, and no null
    assert second.json == first.json


@every_case
def test_the_scores_are_those_of_the_server_to_the_last_bit(case: Case, servers: Servers) -> None:
    server = servers.of(case)
    with case.reranker(server) as reranker:
        ranking = reranker.rank(QUERY, TEXTS)
    if case.scheme in ("tei", "infinity"):  # they are asked for raw scores, and a sigmoid follows
        expected = server.scores(QUERY, sent(TEXTS), raw_scores=True)
        with case.reranker(server, score_kind="logit") as reranker:
            ranking = reranker.rank(QUERY, TEXTS)
    else:
        expected = case.scores(server, TEXTS)
    assert {hit.index: hit.score for hit in ranking} == dict(enumerate(expected))


@every_case
def test_the_key_and_the_type_are_sent_as_the_service_wants_them(case: Case, servers: Servers) -> None:
    server = servers.of(case)
    with case.reranker(server) as reranker:
        reranker.rank(QUERY, TEXTS)
    request = server.posts[-1]
    if case.service == "pinecone":
        assert request.headers["api-key"] == KEY
        assert request.headers["x-pinecone-api-version"] == "2026-04"
    else:
        assert request.headers["authorization"] == f"Bearer {KEY}"
    assert request.headers["content-type"] == "application/json"
    expected = case.path or server.path
    assert request.path.replace("%2F", "/") == expected.replace("{model}", case.model)


def test_a_server_with_one_model_needs_no_name(servers: Servers) -> None:
    for scheme in ("tei", "llama-cpp"):
        case = Case(scheme, "", scheme, case_of(scheme).body, case_of(scheme).kind)
        server = servers.of(case_of(scheme))
        with case.reranker(server) as reranker:
            ranking = reranker.rank(QUERY, TEXTS)
        assert ranking.model == scheme
        assert "model" not in (server.posts[-1].json or {})
        check_ranking(ranking, TEXTS, dict(zip(TEXTS, case.scores(server, TEXTS), strict=True)), case.kind)


# A valid value for each field that a caller may give, and the model it needs, where it belongs to one.
FIELDS: dict[str, object] = {
    "backend": "rerankers",
    "max_doc_length": 700,
    "max_tokens_per_doc": 300,
    "max_tokens_per_query": 100,
    "options": {"max_length": 512},
    "parameters": {"truncate": "NONE"},
    "priority": 0,
    "relevant_spans": {"mode": "enabled"},
    "rewrite_query": True,
    "truncate": False,
    "truncate_prompt_tokens": 400,
    "truncation": False,
    "truncation_direction": "Left",
    "truncation_side": "left",
}
PARTICULAR: dict[tuple[str, str], object] = {("nvidia", "truncate"): "NONE"}
MODELS = {"relevant_spans": "rerank-v5.0-fast", "max_doc_length": "jina-reranker-v3"}
# vLLM's score route takes these two as its rerank routes do; the strict server knows them for the latter only.
UNLISTED = {("vllm-score", "max_tokens_per_doc"), ("vllm-score", "max_tokens_per_query")}
GIVEN = [(scheme, name) for scheme, row in PROVIDERS.items() for name in row.fields]


@pytest.mark.parametrize(("scheme", "name"), GIVEN, ids=lambda value: str(value))
def test_a_field_of_the_service_is_sent_as_given(scheme: str, name: str, servers: Servers) -> None:
    usual = case_of(scheme)
    case = replace(usual, model=MODELS.get(name, usual.model))
    server = servers.of(usual)
    server.service.strict = (scheme, name) not in UNLISTED
    value = PARTICULAR.get((scheme, name), FIELDS[name])
    try:
        with case.reranker(server, **{name: value}) as reranker:
            assert len(reranker.rank(QUERY, TEXTS)) == len(TEXTS)
    finally:
        server.service.strict = True
    body = case.body(case.model, QUERY, sent(TEXTS))
    assert server.posts[-1].json == {**body, name: value}


@every_case
def test_a_field_of_none_is_not_sent(case: Case, servers: Servers) -> None:
    name = next(iter(PROVIDERS[case.scheme].fields), None)
    server = servers.of(case)
    given = {"extra_body": {"something": None}} if name is None else {name: None}
    with case.reranker(server, **given) as reranker:
        reranker.rank(QUERY, TEXTS)
    body = case.body(case.model, QUERY, sent(TEXTS))
    body.pop(name or "", None)
    assert server.posts[-1].json == body


@every_case
def test_another_services_field_is_refused_before_anything_is_sent(case: Case, servers: Servers) -> None:
    server = servers.of(case)
    already = len(server.requests)
    for name in ("top_k", "return_documents", "no_such_field"):
        with pytest.raises(ConfigurationError, match=f"no option '{name}'"):
            case.reranker(server, **{name: True})
    assert len(server.requests) == already


def test_a_field_that_shares_its_name_with_an_option_goes_into_the_extra_body(servers: Servers) -> None:
    case, routing = case_of("openrouter"), {"order": ["Cohere"]}
    server = servers.of(case)
    with case.reranker(server, extra_body={"provider": routing}) as reranker:
        reranker.rank(QUERY, TEXTS)
    assert server.posts[-1].json == {**case.body(case.model, QUERY, sent(TEXTS)), "provider": routing}
    with pytest.raises(ConfigurationError, match="extra_body"):
        case.reranker(server, provider=routing)
