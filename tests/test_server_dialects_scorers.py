"""Every rerank service that the package knows, with the server in that service's place."""

from __future__ import annotations

import math
from contextlib import ExitStack

import pytest

from serving import serving
from table_scorer import TableScorer
from uprank import Reranker
from uprank.errors import BadReplyError

# What the served model's scores mean, and what they are. Logits within 0 and 1 could be taken for probabilities.
MODELS = {
    "logit": ("logit", {"a": -1.25, "b": 3.5, "c": 0.125, "d": -4.0, "e": 3.5}),
    "small logit": ("logit", {"a": 0.25, "b": 0.875, "c": 0.5, "d": 0.0, "e": 0.875}),
    "probability": ("probability", {"a": 0.2, "b": 0.9375, "c": 0.5, "d": 1e-6, "e": 0.9375}),
    "cosine": ("cosine", {"a": -0.25, "b": 0.75, "c": 0.0, "d": -1.0, "e": 0.75}),
    "rank": ("rank", {"a": 2.0, "b": 17.5, "c": 3.0, "d": -1.0, "e": 17.5}),
}
# What a service's client is named; what comes after the server's address.
SERVICES = {
    "cohere:rerank-v3.5": "",
    "jina:jina-reranker-v2-base-multilingual": "",
    "jina:jina-reranker-v3": "",
    "jina:jina-colbert-v2": "",
    "voyage:rerank-2.5": "/voyage",
    "voyage:any": "",
    "mixedbread:any": "",
    "nvidia:any": "",
    "pinecone:any": "",
    "together:any": "",
    "fireworks:any": "",
    "openrouter:any": "",
    "openrouter:cohere/rerank-v3.5": "",
    "vllm:any": "",
    "vllm-score:any": "",
    "tei:": "",
    "llama-cpp:": "",
    "llama-cpp:qwen3-reranker": "",
    "infinity:any": "",
    "xinference:any": "",
    "localai:any": "",
    "sie:BAAI/bge-reranker-v2-m3": "",
    "sie:BAAI/bge-m3": "",
    "sie:mixedbread-ai/mxbai-rerank-base-v2": "",
    "http:any": "/v2/rerank",
}
QUERIES, LISTS = ["q", "r"], [["e", "a", "b", "c", "e", "d"], ["c"]]  # with ties and duplicates; and a single one


@pytest.fixture(scope="module")
def local():
    return {
        name: Reranker(TableScorer(name, table, kind=kind, instructed=name == "probability"))
        for name, (kind, table) in MODELS.items()
    }


@pytest.fixture(scope="module")
def addresses(local):
    """One server a model, which answers under every name: some clients send none."""
    with ExitStack() as stack:
        yield {name: stack.enter_context(serving({name: one})) for name, one in local.items()}


@pytest.fixture
def address(addresses):
    return addresses["probability"]


def meant(service, kind, score):
    """What a service's client makes of a score of the local ranking: a kind and a score."""
    if service.startswith("nvidia:"):
        return ("logit", math.log(score / (1 - score))) if kind == "probability" else (kind, score)
    return ("probability", 1 / (1 + math.exp(-score))) if kind == "logit" else (kind, score)


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("service", SERVICES)
async def test_a_service_replaced_by_the_server_gives_the_local_ranking(local, addresses, service, name):
    wanted = [
        [(hit.index, *meant(service, one.score_kind, hit.score)) for hit in one]
        for one in local[name].rank_many(QUERIES, LISTS)
    ]
    async with Reranker(service, base_url=addresses[name] + SERVICES[service], api_key="k") as remote:
        for rankings in (remote.rank_many(QUERIES, LISTS), await remote.arank_many(QUERIES, LISTS)):
            given = [[(hit.index, one.score_kind, hit.score) for hit in one] for one in rankings]
            assert [[hit[:2] for hit in one] for one in given] == [[hit[:2] for hit in one] for one in wanted]
            for one, expected in zip(given, wanted, strict=True):
                assert [hit[2] for hit in one] == pytest.approx([hit[2] for hit in expected], rel=1e-9)


@pytest.mark.parametrize("service", ["cohere:any", "vllm:any", "infinity:any"])
def test_what_the_caller_says_of_scores_wins_over_the_server(local, addresses, service):
    with Reranker(service, base_url=addresses["probability"], api_key="k", score_kind="cosine") as remote:
        ranking = remote.rank("q", ["a", "b"])
    assert ranking.score_kind == "cosine"
    with (
        Reranker(service, base_url=addresses["cosine"], api_key="k", score_kind="probability") as remote,
        pytest.raises(BadReplyError, match=r"-0\.25, which is no probability"),
    ):
        remote.rank("q", ["a", "b"])


def test_scores_that_are_kept_keep_what_the_server_said_of_them(addresses):
    table = MODELS["cosine"][1]
    with Reranker("vllm:any", base_url=addresses["cosine"], cache=True) as remote:
        for _ in range(2):
            ranking = remote.rank("q", ["a", "b"])
            assert [(hit.index, hit.score) for hit in ranking] == [(1, table["b"]), (0, table["a"])]
            assert ranking.score_kind == "cosine"
        assert remote.cache is not None
        assert remote.cache.stats().hits == 2


@pytest.mark.parametrize("model", ["fireworks:probability", "sie:probability"])
def test_an_instruction_arrives(local, address, model):
    with Reranker(model, base_url=address, api_key="k") as remote:
        remote.rank("q", ["a", "b"], instruction="by price")
    assert local["probability"].scorer.calls[-1][0].instruction == "by price"


def test_requests_to_tei_are_as_large_as_the_server_takes(local):
    documents = [f"{number}" for number in range(100)]
    table = TableScorer("table", {text: float(text) for text in documents})
    with (
        serving({"table": Reranker(table)}, limits={"documents": 60}) as address,
        Reranker("tei:", base_url=address) as remote,
    ):
        assert [hit.index for hit in remote.rank("q", documents, top_n=3)] == [99, 98, 97]
    assert sorted(map(len, table.texts)) == [40, 60]
