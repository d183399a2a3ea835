"""The server's shared format and the simple form, and what all dialects have in common: by plain requests."""

from __future__ import annotations

import httpx
import pytest

from dialect_server import BODY, TABLE, USAGE, dialect_server, pairs
from serving import serving
from table_scorer import TableScorer
from uprank import Reranker

META = {"api_version": {"version": "2"}, "billed_units": {"search_units": 1}, "warnings": []}


@pytest.fixture(scope="module")
def server():
    with dialect_server() as server:
        yield server


@pytest.fixture
def post(server):
    return server.post


@pytest.fixture
def refused(server):
    return server.refused


# --- the shared format


@pytest.mark.parametrize(("path", "version"), [("/rerank", "2"), ("/v1/rerank", "1"), ("/v2/rerank", "2")])
def test_the_shared_reply_has_what_each_client_looks_for(post, path, version):
    reply = post(path, {**BODY, "model": "probability", "top_n": 2})
    identifier = reply.pop("id")
    assert len(identifier) == 32
    assert reply == {
        "object": "list",
        "model": "probability",
        "results": [{"index": 1, "relevance_score": 0.75}, {"index": 2, "relevance_score": 0.5}],
        "usage": USAGE,
        "meta": {**META, "api_version": {"version": version}},
    }


@pytest.mark.parametrize("path", ["/reranking", "/v1/reranking"])
def test_the_paths_of_llama_cpp_reply_with_results(post, path):
    assert pairs(post(path, {**BODY, "top_n": 9})["results"]) == [(1, 0.75), (2, 0.5), (0, 0.25)]


def test_null_is_taken_for_every_optional_field(post):
    names = (
        "model top_n return_documents rank_fields instruction truncation raw_scores use_activation relevant_spans "
        "max_tokens_per_doc max_tokens_per_query max_chunks_per_doc max_doc_length truncate_prompt_tokens config"
    )
    reply = post("/v1/rerank", {**BODY, **dict.fromkeys(names.split())})
    assert pairs(reply["results"]) == [(1, 0.75), (2, 0.5), (0, 0.25)]
    assert reply["meta"]["warnings"] == []


def test_documents_come_back_as_they_were_sent_and_only_when_asked(post):
    sent = [{"text": "a", "id": 7, "tags": [None, {"x": 1.5}]}, "b", {"text": "c"}]
    asked = {"query": "q", "documents": sent, "model": "probability"}
    results = post("/v1/rerank", {**asked, "return_documents": True})["results"]
    assert [result["document"] for result in results] == [{"text": "b"}, {"text": "c"}, sent[0]]
    for unasked in (False, None):
        assert "document" not in post("/v1/rerank", {**asked, "return_documents": unasked})["results"][0]


def test_equal_documents_keep_their_own_places(post):
    documents = [{"text": "a", "id": "1"}, {"text": "b", "id": "2"}, {"text": "a", "id": "3"}, "b"]
    body = {"query": "q", "documents": documents, "model": "probability", "return_documents": True}
    results = post("/rerank", body)["results"]
    assert pairs(results) == [(1, 0.75), (3, 0.75), (0, 0.25), (2, 0.25)]
    assert [result["document"].get("id") for result in results] == ["2", None, "1", "3"]


def test_the_fields_that_are_named_are_scored(post):
    documents = [{"title": "b", "text": "a"}, {"title": "c", "by": ["x", "y"]}, "a"]
    reply = post("/v1/rerank", {"query": "q", "documents": documents, "rank_fields": ["title"]})
    assert pairs(reply["results"]) == [(0, 0.75), (1, 0.5), (2, 0.25)]


@pytest.mark.parametrize(
    ("documents", "fields", "place"),
    [
        ([{"title": "secret"}], None, "documents[0]"),
        (["a", {"text": 5}], None, "documents[1]"),
        (["a", {"image": "secret"}], None, "documents[1]"),
        (["a", {"secret": "b"}], ["title"], "documents[1]"),
        ([{"title": "b"}], ["title", "title"], "rank_fields"),
        ([{"title": "b"}], [""], "rank_fields"),
        ([5], None, "documents[0]"),
        ("secret", None, "documents"),
    ],
)
def test_documents_without_text_are_refused_with_their_place_alone(refused, documents, fields, place):
    body = {"query": "q", "documents": documents, "rank_fields": fields, "top_n": 1}
    told = refused("/v1/rerank", body, 422)["message"]
    assert place in told
    assert "secret" not in told


@pytest.mark.parametrize("field", ["instruction", "instruct", "task"])
def test_an_instruction_reaches_the_model_under_each_name(post, server, field):
    post("/v1/rerank", {**BODY, field: "by price"})
    assert server.scorer.calls[-1][0].instruction == "by price"


def test_fields_that_nothing_follows_are_told_in_the_warnings(post):
    body = {**BODY, "max_tokens_per_doc": 512, "relevant_spans": {"mode": "enabled"}}
    warnings = post("/v2/rerank", body)["meta"]["warnings"]
    assert warnings == ["max_tokens_per_doc has no effect here.", "relevant_spans has no effect here."]


def test_no_documents_are_no_results(post):
    assert post("/v1/rerank", {**BODY, "documents": [], "top_n": 3})["results"] == []
    assert post("/rerank", {"query": "q", "texts": []}) == []
    assert post("/v1/score", {"data_1": "q", "data_2": []})["data"] == []
    assert post("/v1/score", {"data_1": [], "data_2": []})["data"] == []


def test_a_model_set_up_to_read_fields_reads_them_of_a_clients_documents():
    by_title = Reranker(TableScorer("table", {"b": 0.75, "c": 0.5}, kind="probability"), fields=["title"])
    documents = [{"title": "c", "text": "a"}, {"title": "b", "text": "a"}]
    with serving({"table": by_title}) as address:
        reply = httpx.post(f"{address}/v1/rerank", json={"query": "q", "documents": documents}).json()
    assert pairs(reply["results"]) == [(1, 0.75), (0, 0.5)]


# --- the simple form


def test_the_simple_reply_has_every_key(post):
    reply = post("/rerank", {**BODY, "top_k": 2, "return_documents": True})
    assert reply.pop("id")
    assert reply == {
        "object": "list",
        "model": "probability",
        "query": "q",
        "results": [
            {"index": 1, "relevance_score": 0.75, "score": 0.75, "document": "b"},
            {"index": 2, "relevance_score": 0.5, "score": 0.5, "document": "c"},
        ],
        "total_documents": 3,
        "returned_documents": 2,
        "usage": USAGE,
        "meta": META,
    }


def test_the_simple_form_with_a_config(post):
    reply = post("/rerank", {**BODY, "config": {"model": "cosine", "top_k": 1}})
    assert (reply["model"], reply["total_documents"], reply["returned_documents"]) == ("cosine", 3, 1)
    assert reply["results"] == [{"index": 1, "relevance_score": 0.75, "score": 0.75}]


@pytest.mark.parametrize("top_k", [None, 0, 3, 9])
def test_the_simple_form_without_a_limit(post, top_k):
    documents = ["a", {"text": "b", "id": "x"}]
    reply = post("/rerank", {"query": "q", "documents": documents, "top_k": top_k, "return_documents": True})
    assert [result["document"] for result in reply["results"]] == ["b", "a"]
    assert reply["returned_documents"] == 2


def test_query_and_documents_alone_get_every_key_and_objects(post):
    reply = post("/v1/rerank", {**BODY, "return_documents": True})
    assert reply["results"][0] == {"index": 1, "relevance_score": 0.75, "score": 0.75, "document": {"text": "b"}}
    assert (reply["total_documents"], reply["returned_documents"], reply["query"]) == (3, 3, "q")


@pytest.mark.parametrize(
    "client",
    [
        {"model": "probability"},  # Cohere, Jina, Xinference
        {"top_n": 3},
        {"top_n": 3, "top_k": None},
        {"raw_scores": True},  # Infinity
        {"use_activation": True},  # vLLM
        {"truncation": True},  # Jina
        {"model": "probability", "top_k": None, "truncation": None, "top_n": None, "config": None},  # all it may be
    ],
)
def test_clients_of_other_formats_never_get_the_simple_form(post, client):
    reply = post("/rerank", {**BODY, **client, "return_documents": True})
    assert set(reply) == {"id", "object", "model", "results", "usage", "meta"}
    assert all(set(result) == {"index", "relevance_score", "document"} for result in reply["results"])
    assert reply["results"][0]["document"] == {"text": "b"}


def test_what_is_refused_before_its_dialect_is_known_is_told_in_the_shared_one(server):
    told = server.client.post("/rerank", content=b"no JSON").json()
    assert told["message"] == told["detail"] == told["error"]["message"]
    assert (told["error"]["code"], told["error"]["type"]) == (400, "invalid_json")


# --- every dialect


def test_a_document_without_a_score_has_null(post):
    named = {"model": "scoreless", "query": "q", "documents": ["a", "b", "c"]}
    assert pairs(post("/rerank", {**named, "raw_scores": True})["results"])[1:] == [(2, None), (0, None)]
    assert pairs(post("/rerank", named)["results"]) == [(1, 0.75), (2, None), (0, None)]
    passages = [{"text": text} for text in "abc"]
    rankings = post("/v1/ranking", {"model": "scoreless", "query": {"text": "q"}, "passages": passages})["rankings"]
    assert rankings[1:] == [{"index": 2, "logit": None}, {"index": 0, "logit": None}]


PATHS = [
    "/rerank",
    "/v1/rerank",
    "/v2/rerank",
    "/reranking",
    "/v1/reranking",
    "/voyage/v1/rerank",
    "/score",
    "/v1/score",
    "/v1/score/BAAI/bge-m3",
    "/v1/ranking",
    "/v1/retrieval/BAAI/bge-m3/reranking",
]


@pytest.mark.parametrize(
    "raw",
    [
        b'{"query": "\\ud800", "documents": ["a"]}',
        b'{"query": "\xff", "documents": ["a"]}',
        b'{"query": "\xed\xa0\x80", "documents": ["a"]}',
        b'{"query": "q", "documents": ["a"], "top_n": NaN}',
        b"[]",
        b"",
        b'{"query": ' + b"[" * 5_000,
    ],
    ids=["lone surrogate", "no UTF-8", "surrogate in UTF-8", "NaN", "list", "nothing", "deep"],
)
def test_what_is_no_json_is_400_everywhere(server, raw):
    for path in PATHS:
        reply = server.client.post(path, content=raw, headers={"content-type": "application/json"})
        assert reply.status_code == 400, path
        assert "JSON" in str(reply.json()), path


def test_a_number_beyond_floats_comes_back_as_null_and_not_as_invalid_json(server):
    raw = b'{"query": "q", "documents": [{"text": "a", "weight": 1e999}], "return_documents": true, "top_n": 1}'
    reply = server.client.post("/v1/rerank", content=raw)
    assert reply.json()["results"][0]["document"] == {"text": "a", "weight": None}


def test_all_names_of_fields_are_known_where_unknown_ones_are_refused():
    table = Reranker(TableScorer("table", TABLE, kind="probability", instructed=True))
    with serving({"table": table}, unknown_fields="refuse") as address, httpx.Client(base_url=address) as client:
        known = {
            "/v1/rerank": {**BODY, "task": "x", "top_n": 1, "user": "u", "backend": "b", "kwargs": "{}"},
            "/rerank": {"query": "q", "texts": ["a"], "truncation_direction": "Left"},
            "/score": {"queries": "q", "items": ["a"], "truncate_prompt_tokens": -1},
            "/v1/score/table": {"query": {"text": "q"}, "items": [], "options": {}},
            "/v1/retrieval/table/reranking": {"query": {"text": "q"}, "passages": []},
            "/v1/reranking": {"query": "q", "input": ["a"], "rewrite_query": False},
            "/voyage/v1/rerank": {**BODY, "top_k": None, "truncation": True},
        }
        for path, body in known.items():
            assert client.post(path, json=body).status_code == 200, path
            reply = client.post(path, json={**body, "query_expansion": "secret"})
            assert reply.status_code == 422
            assert "query_expansion" in reply.text
            assert "secret" not in reply.text
