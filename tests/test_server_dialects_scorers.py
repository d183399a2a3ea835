"""Every rerank service that the package knows, with the server in that service's place."""

from __future__ import annotations

import math

import pytest

from serving import serving
from table_scorer import TableScorer
from uprank import Reranker

LOGITS = {"a": -1.25, "b": 3.5, "c": 0.125, "d": -4.0, "e": 3.5}
PROBABILITIES = {"a": 0.2, "b": 0.9375, "c": 0.5, "d": 1e-6, "e": 0.9375}
COSINES = {"a": -0.25, "b": 0.75, "c": 0.0, "d": -1.0, "e": 0.75}

# The scheme and the model that is asked for; what comes after the server's address; what becomes of its scores there.
SAME, PROBABILITY, LOGIT = "same", "probability", "logit"
SERVICES = [
    ("cohere:probability", "", SAME),
    ("jina:probability", "", SAME),
    ("jina:jina-reranker-v3", "", SAME),
    ("voyage:probability", "/voyage", SAME),
    ("voyage:rerank-2.5", "/voyage", SAME),
    ("mixedbread:probability", "", SAME),
    ("nvidia:logit", "", SAME),
    ("nvidia:probability", "", LOGIT),
    ("pinecone:probability", "", SAME),
    ("together:probability", "", SAME),
    ("fireworks:probability", "", SAME),
    ("openrouter:probability", "", SAME),
    ("vllm:probability", "", SAME),
    ("vllm-score:probability", "", SAME),
    ("vllm-score:logit", "", PROBABILITY),
    ("tei:", "", PROBABILITY),
    ("llama-cpp:", "", SAME),
    ("llama-cpp:logit", "", SAME),
    ("infinity:logit", "", PROBABILITY),
    ("infinity:probability", "", SAME),
    ("xinference:logit", "", SAME),
    ("localai:probability", "", SAME),
    ("sie:probability", "", SAME),
    ("sie:BAAI/bge-m3", "", SAME),
    ("http:logit", "/v2/rerank", SAME),
]
LISTS = {
    "several": ["a", "b", "c", "d"],
    "ties": ["e", "a", "b", "e"],
    "one": ["c"],
    "duplicates": ["a", "b", "a", "b", "a"],
}


@pytest.fixture(scope="module")
def local():
    return {
        "logit": Reranker(TableScorer("logit", LOGITS)),
        "probability": Reranker(TableScorer("probability", PROBABILITIES, kind="probability", instructed=True)),
        "cosine": Reranker(TableScorer("cosine", COSINES, kind="cosine")),
    }


ALIASES = {"logit": [], "probability": ["rerank-2.5"], "cosine": ["jina-reranker-v3", "BAAI/bge-m3"]}


@pytest.fixture(scope="module")
def address(local):
    with serving(local, models={name: {"model": "bm25", "aliases": ALIASES[name]} for name in local}) as address:
        yield address


def own_model(local, name):
    """The local reranker that the server has under a name; the first where there is none."""
    found = next((one for one, aliases in ALIASES.items() if name in (one, *aliases)), "logit")
    return local[found]


def meant(scale, hit, kind):
    """A score of the local ranking, as a service reports it."""
    if scale == PROBABILITY and kind == "logit":
        return 1 / (1 + math.exp(-hit.score))
    if scale == LOGIT and kind == "probability":
        return math.log(hit.score / (1 - hit.score))
    return hit.score


@pytest.mark.parametrize(("model", "path", "scale"), SERVICES, ids=[model for model, _, _ in SERVICES])
async def test_a_service_replaced_by_the_server_gives_the_local_ranking(local, address, model, path, scale):
    own = own_model(local, model.partition(":")[2])
    async with Reranker(model, base_url=address + path, api_key="k") as remote:
        for documents in LISTS.values():
            for top_n in (None, 2):
                expected = own.rank("q", documents, top_n=top_n)
                wanted = [(hit.index, meant(scale, hit, expected.score_kind)) for hit in expected]
                given = remote.rank("q", documents, top_n=top_n)
                awaited = await remote.arank("q", documents, top_n=top_n)
                for ranking in (given, awaited):
                    assert [hit.index for hit in ranking] == [index for index, _ in wanted]
                    assert [hit.score for hit in ranking] == pytest.approx([score for _, score in wanted], rel=1e-9)


def test_many_queries_give_the_local_rankings(local, address):
    queries, lists = [f"q{number}" for number in range(len(LISTS))], list(LISTS.values())
    expected = local["probability"].rank_many(queries, lists)
    with Reranker("cohere:probability", base_url=address, api_key="k") as remote:
        rankings = remote.rank_many(queries, lists)
    assert [[(hit.index, hit.score) for hit in one] for one in rankings] == [
        [(hit.index, hit.score) for hit in one] for one in expected
    ]


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
