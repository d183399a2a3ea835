"""What scores mean in the replies of each dialect, and the header that says so."""

from __future__ import annotations

import math

import httpx
import msgpack
import pytest

from dialect_server import BODY, TABLE, dialect_server
from serving import serving
from table_scorer import TableScorer
from uprank import Reranker
from uprank.errors import ScorerError

HEADER = "x-uprank-score-kind"
PAIRS = {"data_1": "q", "data_2": ["a", "b", "c"]}
PASSAGES = {"query": {"text": "q"}, "passages": [{"text": "a"}, {"text": "b"}, {"text": "c"}]}
ITEMS = {"query": {"text": "q"}, "items": ["a", "b", "c"]}
TEXTS = {"query": "q", "texts": ["a", "b", "c"]}

# The path, the body less its model, and whether logits are what comes of it.
DIALECTS = {
    "shared": ("/v1/rerank", BODY, False),
    "shared, v2": ("/v2/rerank", {**BODY, "top_n": 3}, False),
    "shared, raw": ("/rerank", {**BODY, "raw_scores": True}, True),
    "shared, not raw": ("/rerank", {**BODY, "raw_scores": False}, False),
    "shared, without activation": ("/v2/rerank", {**BODY, "use_activation": False}, True),
    "shared, with activation": ("/v2/rerank", {**BODY, "use_activation": True, "raw_scores": True}, False),
    "simple": ("/rerank", {**BODY, "top_k": 3}, False),
    "llama.cpp": ("/reranking", BODY, False),
    "voyage": ("/voyage/v1/rerank", {**BODY, "top_k": None, "truncation": True}, False),
    "mixedbread": ("/v1/reranking", {"query": "q", "input": BODY["documents"]}, False),
    "pairs": ("/v1/score", PAIRS, False),
    "pairs, without activation": ("/score", {**PAIRS, "use_activation": False}, True),
    "nvidia": ("/v1/ranking", PASSAGES, True),
    "sie": ("/v1/score/{model}", ITEMS, False),
    "tei": ("/rerank", TEXTS, False),
    "tei, raw": ("/rerank", {**TEXTS, "raw_scores": True}, True),
}
ODDS = {text: math.log(score / (1 - score)) for text, score in TABLE.items()}
SIGMOIDS = {text: 1 / (1 + math.exp(-logit)) for text, logit in {"a": -1.0, "b": 3.0, "c": 0.0}.items()}

# Of each model: what its scores mean and are where probabilities are the scale, and where logits are.
MODELS = {
    "probability": (("probability", TABLE), ("logit", ODDS)),
    "logit": (("probability", SIGMOIDS), ("logit", {"a": -1.0, "b": 3.0, "c": 0.0})),
    "cosine": (("cosine", {"a": -0.5, "b": 0.75, "c": 0.0}),) * 2,
    "rank": (("rank", {"a": 1.0, "b": 9.0, "c": 5.0}),) * 2,
}


@pytest.fixture(scope="module")
def server():
    with dialect_server() as server:
        yield server


def scores_of(reply):
    """The scores of any dialect's reply by the documents' texts; they stand best first, or in the documents' order."""
    found = reply
    if isinstance(reply, dict):
        found = next(reply[name] for name in ("results", "data", "rankings", "scores") if name in reply)
    names = ("relevance_score", "score", "logit")
    place = {"item-0": 0, "item-1": 1, "item-2": 2}
    return {
        "abc"[one["index"] if "index" in one else place[one["item_id"]]]: next(
            one[name] for name in names if name in one
        )
        for one in found
    }


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_scores_are_on_the_scale_of_the_dialect_and_the_header_says_which(server, dialect, model):
    path, body, raw = DIALECTS[dialect]
    kind, scores = MODELS[model][raw]
    headers = {"accept": "application/json"}
    reply = server.client.post(path.format(model=model), json={**body, "model": model}, headers=headers)
    assert reply.headers[HEADER] == kind
    assert scores_of(reply.json()) == pytest.approx(scores, rel=1e-12)


def test_a_reply_in_msgpack_has_the_header_too(server):
    reply = server.client.post("/v1/score/cosine", json=ITEMS)
    assert scores_of(msgpack.unpackb(reply.content)) == MODELS["cosine"][0][1]
    assert reply.headers[HEADER] == "cosine"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/rerank", {**BODY, "documents": []}),
        ("/v1/score", {"data_1": [], "data_2": []}),
        ("/v1/rerank", {"query": "q"}),
    ],
    ids=["no documents", "no pairs", "refused"],
)
def test_there_is_no_header_without_scores(server, path, body):
    assert HEADER not in server.client.post(path, json=body).headers


def test_there_is_no_header_where_no_document_has_a_score():
    silent = TableScorer("silent", TABLE, reported=[None, None, None])
    with serving({"silent": Reranker(silent)}) as address:
        reply = httpx.post(f"{address}/v1/rerank", json=BODY)
    assert [one["relevance_score"] for one in reply.json()["results"]] == [None] * 3
    assert HEADER not in reply.headers


def test_the_header_is_of_the_model_that_answered():
    failing = TableScorer("failing", {"a": 9.0, "b": 1.0, "c": 5.0}, kind="rank", fails={"r": ScorerError("down")})
    stand_in = TableScorer("stand-in", {"a": -0.5, "b": 0.75, "c": 0.0}, kind="cosine")
    with (
        serving({"failing": Reranker(failing, fallback=[stand_in])}) as address,
        httpx.Client(base_url=address) as client,
    ):
        kinds = {query: client.post("/rerank", json={**BODY, "query": query}).headers[HEADER] for query in "qr"}
        assert kinds == {"q": "rank", "r": "cosine"}
        # Of scores of both, nothing is true of all.
        mixed = client.post("/score", json={"data_1": ["q", "r"], "data_2": ["a", "a"]})
        assert [one["score"] for one in mixed.json()["data"]] == [9.0, -0.5]
        assert HEADER not in mixed.headers
        alike = client.post("/score", json={"data_1": ["r", "r"], "data_2": ["a", "b"]})
        assert alike.headers[HEADER] == "cosine"


def test_a_page_may_read_the_header_where_it_may_ask(server):
    origin = "https://page.example"
    with serving({"rank": Reranker(TableScorer("rank", TABLE, kind="rank"))}, cors_origins=[origin]) as address:
        reply = httpx.post(f"{address}/rerank", json=BODY, headers={"origin": origin})
    assert reply.headers[HEADER] == "rank"
    assert HEADER in reply.headers["access-control-expose-headers"].split(", ")
