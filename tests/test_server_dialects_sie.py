"""The server's SIE dialect, by plain requests in JSON and in msgpack."""

from __future__ import annotations

import httpx
import msgpack
import pytest

from serving import serving
from table_scorer import TableScorer
from uprank import Reranker
from uprank.errors import ModelLoadError
from uprank.scorers.evidence import Evidence

PATH = "/v1/score/BAAI/bge-m3"
BODY = {"query": {"id": "q7", "text": "q"}, "items": [{"id": "x", "text": "a"}, {"text": "b"}, {"id": "", "text": "c"}]}
REPLY = {
    "model": "BAAI/bge-m3",
    "query_id": "q7",
    "scores": [
        {"item_id": "item-1", "score": 0.75, "rank": 0},
        {"item_id": "", "score": 0.5, "rank": 1},
        {"item_id": "x", "score": 0.25, "rank": 2},
    ],
}
PACKED = {"content-type": "application/msgpack"}


@pytest.fixture(scope="module")
def client():
    table = TableScorer("BAAI/bge-m3", {"a": 0.25, "b": 0.75, "c": 0.5}, kind="probability", instructed=True)
    broken = TableScorer("broken", {}, kind="probability", fails={"*": ModelLoadError("no weights")})
    cut = TableScorer("cut", {"a": 1.0}, evidence=lambda _: Evidence(truncated=True))
    rerankers = {scorer.name: Reranker(scorer) for scorer in (table, broken, cut)}
    models = {name: {"model": "bm25"} for name in rerankers}  # no alias for names that are none of them
    with serving(rerankers, models=models) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.mark.parametrize("content_type", ["application/msgpack", "application/x-msgpack", "application/json"])
@pytest.mark.parametrize("accept", [None, "*/*", "application/msgpack", "application/msgpack, application/json"])
def test_the_reply_is_msgpack_unless_json_alone_is_accepted(client, content_type, accept):
    packed = "msgpack" in content_type
    request = {"content": msgpack.packb(BODY)} if packed else {"json": BODY}
    headers = {"content-type": content_type} | ({} if accept is None else {"accept": accept})
    reply = client.post(PATH, headers=headers, **request)
    assert reply.headers["content-type"] == "application/msgpack"
    assert msgpack.unpackb(reply.content) == REPLY


@pytest.mark.parametrize("path", [PATH, "/v1/score/BAAI%2Fbge-m3"])
def test_the_reply_is_json_where_that_is_accepted(client, path):
    reply = client.post(path, json=BODY, headers={"accept": "application/json"})
    assert reply.headers["content-type"] == "application/json"
    assert reply.json() == REPLY


def test_a_query_without_an_id_has_none_in_the_reply(client):
    body = {"query": {"text": "q", "images": []}, "items": ["a", {"text": "b", "images": None}], "options": {"x": 1}}
    reply = client.post(PATH, json=body, headers={"accept": "application/json"}).json()
    assert reply["query_id"] is None
    assert [(one["item_id"], one["score"]) for one in reply["scores"]] == [("item-1", 0.75), ("item-0", 0.25)]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xc1",
        msgpack.packb({"query": "q"})[:-1],
        msgpack.packb({"query": "q"}) + b"\xc0",
        msgpack.packb([1, 2]),
        msgpack.packb({1: "q"}),
        msgpack.packb({"query": b"\xff"}, use_bin_type=False),
        msgpack.packb({"query": "\ud800"}, unicode_errors="surrogatepass"),
        b"\xdd\xff\xff\xff\xff",  # a list of four thousand million, it says
        b"\x91" * 100_000,
        b'{"query": "q"}',
    ],
)
def test_what_is_no_msgpack_is_400_in_json(client, raw):
    reply = client.post(PATH, content=raw, headers=PACKED)
    assert reply.status_code == 400
    assert reply.json()["detail"]["code"] == "INVALID_INPUT"


@pytest.mark.parametrize(
    ("body", "place"),
    [
        ({"items": [{"text": "a"}]}, "query"),
        ({"query": {"id": "x"}, "items": []}, "query"),
        ({"query": {"text": "q"}, "items": [{"text": "a"}, {"id": "secret"}]}, "items[1]"),
        ({"query": {"text": "q"}, "items": [{"text": "a", "images": [b"secret"]}]}, "items[0]"),
        ({"query": {"text": "q", "images": [b"secret"]}, "items": []}, "query"),
        ({"query": {"text": b"\xff"}, "items": []}, "query"),
        ({"query": {"text": "q"}, "items": {"text": "secret"}}, "items"),
    ],
)
def test_what_cannot_be_scored_is_refused_with_its_place_alone(client, body, place):
    reply = client.post(PATH, content=msgpack.packb(body), headers=PACKED)
    assert reply.status_code == 422
    told = reply.json()["detail"]
    assert told["code"] == "INVALID_INPUT"
    assert place in told["message"]
    assert "secret" not in told["message"]


@pytest.mark.parametrize(
    ("model", "status", "code"), [("other", 404, "MODEL_NOT_FOUND"), ("broken", 503, "MODEL_LOAD_FAILED")]
)
def test_errors_have_the_codes_that_its_clients_know(client, model, status, code):
    reply = client.post(f"/v1/score/{model}", json=BODY)
    assert (reply.status_code, reply.json()["detail"]["code"]) == (status, code)


@pytest.mark.parametrize("sent", [{}, {"authorization": "Bearer of-nobody"}])
def test_a_key_that_is_missing_or_wrong_is_no_wrong_input(tmp_path, sent):
    key = tmp_path / "key"
    key.write_text("of-somebody")
    table = Reranker(TableScorer("BAAI/bge-m3", {"a": 0.25, "b": 0.75, "c": 0.5}))
    with serving({table.model: table}, keys=[{"file": str(key)}]) as address:
        refused = httpx.post(address + PATH, json=BODY, headers=sent)
        assert httpx.post(address + PATH, json=BODY, headers={"x-api-key": "of-somebody"}).status_code == 200
    assert (refused.status_code, refused.json()["detail"]["code"]) == (401, "UNAUTHORIZED")


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/rerank", {"model": "cut", "query": "q", "documents": ["a"], "truncation": False}),
        ("/voyage/v1/rerank", {"model": "cut", "query": "q", "documents": ["a"], "truncation": False}),
        ("/v1/ranking", {"model": "cut", "query": {"text": "q"}, "passages": [{"text": "a"}], "truncate": "NONE"}),
    ],
)
def test_documents_that_may_not_be_cut_are_an_error_where_the_model_cuts_them(client, path, body):
    assert client.post(path, json=body).status_code == 422
    allowed = {name: value for name, value in body.items() if name not in ("truncation", "truncate")}
    assert client.post(path, json=allowed).status_code == 200


def test_msgpack_is_spoken_in_this_dialect_alone(client):
    body = msgpack.packb({"query": "q", "documents": ["a"]})
    assert client.post("/v1/rerank", content=body, headers=PACKED).status_code == 400
    reply = client.post(
        "/v1/rerank", json={"query": "q", "documents": ["a"]}, headers={"accept": PACKED["content-type"]}
    )
    assert reply.headers["content-type"] == "application/json"
