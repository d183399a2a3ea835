"""The formats that services have for themselves: the exact JSON that the clients of each find."""

from __future__ import annotations

import math

import httpx
import pytest

from dialect_server import BODY, TABLE, USAGE, dialect_server
from serving import serving
from table_scorer import TableScorer
from uprank import Reranker
from uprank.scorers.evidence import Evidence


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


# --- Text Embeddings Inference


def test_tei_replies_with_a_bare_list(post):
    assert post("/rerank", {"query": "q", "texts": ["a", "b"]}) == [
        {"index": 1, "score": 0.75},
        {"index": 0, "score": 0.25},
    ]


def test_tei_returns_texts_and_raw_scores(post):
    body = {"query": "q", "texts": ["a", "b"], "raw_scores": True, "return_text": True, "truncation_direction": "Right"}
    first, second = post("/rerank", body)
    assert (first["index"], first["text"], second["index"], second["text"]) == (1, "b", 0, "a")
    assert [first["score"], second["score"]] == pytest.approx([math.log(3), -math.log(3)], rel=1e-12)


def test_tei_has_more_than_its_own_32_texts(post):
    assert len(post("/rerank", {"query": "q", "texts": ["a", "b"] * 20})) == 40


def test_tei_of_logits_gives_probabilities_unless_they_are_asked_for():
    with serving({"table": Reranker(TableScorer("table", {"a": 3.0}))}) as address:
        for raw, score in ((None, 1 / (1 + math.exp(-3))), (False, 1 / (1 + math.exp(-3))), (True, 3.0)):
            reply = httpx.post(f"{address}/rerank", json={"query": "q", "texts": ["a"], "raw_scores": raw})
            assert reply.json()[0]["score"] == pytest.approx(score, rel=1e-12)


def test_tei_texts_that_may_not_be_cut_are_an_error_where_the_model_cuts_them():
    cut = Reranker(TableScorer("cut", TABLE, evidence=lambda _: Evidence(truncated=True)))
    with serving({"cut": cut}) as address, httpx.Client(base_url=address) as client:
        body = {"query": "q", "texts": ["a"]}
        for truncate, status in ((True, 200), (None, 200), (False, 422)):
            assert client.post("/rerank", json={**body, "truncate": truncate}).status_code == status


def test_tei_errors_are_in_its_words(refused):
    told = refused("/rerank", {"query": "q", "texts": [5]}, 422)
    assert set(told) == {"error", "error_type"}
    assert told["error_type"] == "Validation"
    assert "texts[0]" in told["error"]


def test_tei_info_tells_what_fits_into_a_request(server):
    told = server.client.get("/info").json()
    assert told["model_id"] == "probability"
    assert told["max_client_batch_size"] == 1024
    assert told["max_concurrent_requests"] == 512 * 1024
    assert told["model_type"] == {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}}
    assert told["auto_truncate"] is True


# --- Voyage


@pytest.mark.parametrize("path", ["/voyage/v1/rerank", "/v1/rerank", "/rerank"])
def test_voyage_replies_with_data(post, path):
    """Also without the prefix: no other client sends top_k and truncation."""
    body = {**BODY, "model": "probability", "top_k": None, "truncation": True}
    assert post(path, body) == {
        "object": "list",
        "data": [
            {"index": 1, "relevance_score": 0.75},
            {"index": 2, "relevance_score": 0.5},
            {"index": 0, "relevance_score": 0.25},
        ],
        "model": "probability",
        "usage": {"total_tokens": 3},
    }


def test_voyage_documents_are_strings(post):
    body = {"query": "q", "documents": ["a", {"text": "b"}], "top_k": 1, "return_documents": True}
    assert post("/voyage/v1/rerank", body)["data"] == [{"index": 1, "relevance_score": 0.75, "document": "b"}]


def test_voyage_errors_have_a_detail_alone(refused):
    assert set(refused("/voyage/v1/rerank", {"query": "q"}, 422)) == {"detail"}


# --- Mixedbread


@pytest.mark.parametrize("path", ["/v1/reranking", "/reranking"])
def test_mixedbread_replies_with_data_and_scores(post, path):
    reply = post(path, {"model": "probability", "query": "q", "input": ["a", "b", "c"], "top_k": 2})
    assert reply == {
        "object": "list",
        "model": "probability",
        "data": [
            {"index": 1, "score": 0.75, "input": None, "object": "rank_result"},
            {"index": 2, "score": 0.5, "input": None, "object": "rank_result"},
        ],
        "usage": USAGE,
        "top_k": 2,
        "return_input": False,
    }


def test_mixedbread_scores_fields_and_returns_the_input(post):
    sent = [{"title": "a", "text": "b"}, {"title": "b"}]
    body = {"query": "q", "input": sent, "rank_fields": ["title"], "return_input": True}
    reply = post("/v1/reranking", body)
    assert [(one["index"], one["input"]) for one in reply["data"]] == [(1, sent[1]), (0, sent[0])]
    assert (reply["top_k"], reply["return_input"]) == (2, True)


# --- vLLM's score


@pytest.mark.parametrize("path", ["/score", "/v1/score"])
@pytest.mark.parametrize("names", [("data_1", "data_2"), ("text_1", "text_2"), ("queries", "documents")])
def test_score_keeps_the_order_of_one_and_many(post, path, names):
    reply = post(path, dict(zip(names, ["q", ["a", "b", "c"]], strict=True)))
    assert reply.pop("id")
    assert reply.pop("created") > 1_780_000_000
    assert reply == {
        "object": "list",
        "model": "probability",
        "data": [
            {"index": 0, "object": "score", "score": 0.25},
            {"index": 1, "object": "score", "score": 0.75},
            {"index": 2, "object": "score", "score": 0.5},
        ],
        "usage": USAGE,
    }


@pytest.mark.parametrize(
    ("first", "second", "scores"),
    [
        ("q", "b", [0.75]),
        (["q"], ["c", "a"], [0.5, 0.25]),
        (["q"], "b", [0.75]),
        (["q", "r", "q"], ["b", "a", "b"], [0.75, 0.25, 0.75]),
    ],
)
def test_score_makes_pairs(post, first, second, scores):
    data = post("/score", {"queries": first, "items": second})["data"]
    assert data == [{"index": index, "object": "score", "score": score} for index, score in enumerate(scores)]


@pytest.mark.parametrize(("first", "second"), [(["q", "r"], ["a"]), (["q", "r"], ["a", "b", "c"]), ([], ["a"])])
def test_score_refuses_what_makes_no_pairs(refused, first, second):
    assert "pairs" in refused("/score", {"data_1": first, "data_2": second}, 422)["message"]


def test_score_gives_probabilities_unless_logits_are_asked_for(post):
    body = {"model": "logit", "data_1": ["q", "r"], "data_2": ["b", "c"]}
    assert [one["score"] for one in post("/score", body)["data"]] == pytest.approx([1 / (1 + math.exp(-3)), 0.5])
    assert [one["score"] for one in post("/score", {**body, "use_activation": False})["data"]] == [3.0, 0.0]


def test_score_has_an_entry_for_each_pair_whatever_the_model_returns(post):
    body = {"data_1": "q", "data_2": ["a", "b", "c"]}
    assert [one["score"] for one in post("/score", {**body, "model": "best"})["data"]] == [0.25, 0.75, 0.5]
    assert [one["score"] for one in post("/score", {**body, "model": "good"})["data"]] == [None, 0.75, 0.5]
    several = {"model": "good", "data_1": ["q", "q"], "data_2": ["a", "b"]}
    assert [one["score"] for one in post("/score", several)["data"]] == [None, 0.75]


# --- NVIDIA


def test_nvidia_replies_with_logits(post):
    passages = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    reply = post("/v1/ranking", {"model": "logit", "query": {"text": "q"}, "passages": passages, "truncate": "END"})
    assert reply == {
        "rankings": [{"index": 1, "logit": 3.0}, {"index": 2, "logit": 0.0}, {"index": 0, "logit": -1.0}],
        "usage": USAGE,
    }


def test_nvidia_has_finite_logits_of_certain_documents_in_their_order(post):
    passages = [{"text": "a"}, {"text": "b"}, {"text": "c"}]
    rankings = post("/v1/ranking", {"model": "certain", "query": {"text": "q"}, "passages": passages})["rankings"]
    assert [one["index"] for one in rankings] == [1, 2, 0]
    logits = [one["logit"] for one in rankings]
    assert logits[0] == pytest.approx(36.7, abs=0.1)
    assert logits[1] == pytest.approx(math.log(1e-30), rel=1e-12)
    assert logits[2] < logits[1]


@pytest.mark.parametrize(("model", "answers"), [("logit", "logit"), (None, "BAAI/bge-m3")])
def test_nvidia_as_it_is_hosted_takes_the_model_of_the_body_or_of_the_path(server, model, answers):
    body = {"model": model, "query": {"text": "q"}, "passages": [{"text": "b"}]}
    reply = server.client.post("/v1/retrieval/BAAI/bge-m3/reranking", json=body).json()
    assert reply["rankings"][0]["logit"] == pytest.approx(3.0 if answers == "logit" else math.log(3))


@pytest.mark.parametrize("passage", [{"image": "data:secret"}, {"text": "b", "image": "data:secret"}, {}])
def test_nvidia_passages_without_text_or_with_an_image_are_refused(refused, passage):
    told = refused("/v1/ranking", {"query": {"text": "q"}, "passages": [{"text": "a"}, passage]}, 422)["detail"]
    assert "passages[1]" in told
    assert "secret" not in told
