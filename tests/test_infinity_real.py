"""Reranking through a real self-hosted server, infinity-emb, against the models that it serves, run here."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import numpy as np
import pytest

from conftest import WORDS
from infinity_server import HOW_TO_GET_IT, InfinityServer, find_python, save_models, serve
from uprank import Ranking, Reranker
from uprank.calibration import sigmoid
from uprank.errors import AuthenticationError, RequestRefusedError, RequestTooLargeError, ServiceError

PYTHON = find_python()
pytestmark = pytest.mark.skipif(PYTHON is None, reason=HOW_TO_GET_IT)

KEY = "loopback-key-5f0c"
MOST = 8
QUERY = "brown fox jumps"
RECORDED = Path(__file__).parent / "recorded" / "infinity"

Logits = Callable[[str, str, Sequence[str]], "list[float]"]
Rank = Callable[..., Ranking]


def some_documents(count: int, seed: int = 0) -> list[str]:
    """All different; some exceed the models' window of 128 tokens."""
    words = random.Random(seed)
    return [f"{i} " + " ".join(words.choices(WORDS, k=words.choice([3, 12, 40, 300]))) for i in range(count)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return save_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def server(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[InfinityServer]:
    """One server of all models, which wants a key and takes 8 documents at once."""
    assert PYTHON is not None
    with serve(PYTHON, folders, tmp_path_factory.mktemp("server"), key=KEY, max_documents=MOST) as running:
        yield running


@pytest.fixture(scope="module")
def logits(folders: dict[str, Path]) -> Logits:
    """What sentence-transformers says that a served model answers."""
    from sentence_transformers import CrossEncoder
    from torch.nn import Identity

    loaded: dict[str, CrossEncoder] = {}

    def predict(model: str, query: str, documents: Sequence[str]) -> list[float]:
        if model not in loaded:
            loaded[model] = CrossEncoder(str(folders[model]), device="cpu")
        pairs = [(query, document) for document in documents]
        return [float(value) for value in loaded[model].predict(pairs, activation_fn=Identity())]

    return predict


@pytest.fixture(params=["rank", "arank"])
def rank(request: pytest.FixtureRequest) -> Rank:
    """Both ways to call; all tests must agree."""

    def call(reranker: Reranker, *args: object, **options: object) -> Ranking:
        if request.param == "rank":
            with reranker:
                return reranker.rank(*args, **options)

        async def awaited() -> Ranking:
            async with reranker:
                return await reranker.arank(*args, **options)

        return asyncio.run(awaited())

    return call


def reranker_of(server: InfinityServer, model: str = "bert", **options: object) -> Reranker:
    return Reranker(f"infinity:{model}", **{"base_url": server.url, "api_key": KEY, **options})


def best_first(values: Sequence[float]) -> list[int]:
    return sorted(range(len(values)), key=lambda index: (-values[index], index))


@pytest.mark.parametrize("model", ["bert", "xlm-roberta"])
async def test_raw_scores_are_the_models_logits(server: InfinityServer, logits: Logits, model: str) -> None:
    documents = some_documents(MOST)
    scorer = reranker_of(server, model).scorer

    sync = scorer.score(QUERY, documents)
    awaited = await scorer.ascore(QUERY, documents)
    await scorer.aclose()

    assert sync.kind == "logit"
    np.testing.assert_allclose(sync.values, logits(model, QUERY, documents), atol=1e-3)
    np.testing.assert_allclose(awaited.values, sync.values, atol=1e-5)  # the server forms its batches anew


@pytest.mark.parametrize("model", ["bert", "xlm-roberta"])
def test_documents_come_back_best_first_with_probabilities(
    server: InfinityServer, logits: Logits, rank: Rank, model: str
) -> None:
    documents = some_documents(MOST, seed=1)
    expected = logits(model, QUERY, documents)

    ranking = rank(reranker_of(server, model), QUERY, documents)

    assert [hit.index for hit in ranking] == best_first(expected)
    assert [hit.document.text for hit in ranking] == [documents[i] for i in best_first(expected)]
    assert ranking.score_kind == "probability"
    np.testing.assert_allclose(
        [hit.score for hit in ranking], [sigmoid(expected[hit.index]) for hit in ranking], atol=1e-4
    )
    assert ranking.usage.requests == 1
    assert ranking.usage.pairs == MOST


def test_saturated_probabilities_do_not_tie(server: InfinityServer, logits: Logits, rank: Rank) -> None:
    documents = some_documents(MOST, seed=2)
    expected = logits("saturated", QUERY, documents)
    assert {float(1 / (1 + np.exp(-np.float32(value)))) for value in expected} == {1.0}
    assert best_first(expected) != list(range(MOST))

    assert [hit.index for hit in rank(reranker_of(server, "saturated"), QUERY, documents)] == best_first(expected)


@pytest.mark.parametrize("count", [MOST + 1, 2 * MOST, 53])
def test_more_documents_than_the_server_takes_are_split_and_merged(
    server: InfinityServer, logits: Logits, rank: Rank, count: int
) -> None:
    documents = some_documents(count, seed=count)
    expected = logits("bert", QUERY, documents)

    ranking = rank(reranker_of(server, max_documents=MOST), QUERY, documents)

    assert sorted(hit.index for hit in ranking) == list(range(count))
    for hit in ranking:
        assert hit.document.text == documents[hit.index]
        assert hit.score == pytest.approx(sigmoid(expected[hit.index]), abs=1e-4)
    assert [hit.score for hit in ranking] == sorted((hit.score for hit in ranking), reverse=True)
    assert ranking.usage.requests == -(-count // MOST)


def test_top_n_is_of_all_chunks_together(server: InfinityServer, logits: Logits, rank: Rank) -> None:
    documents = some_documents(30, seed=3)
    ranking = rank(reranker_of(server, max_documents=MOST), QUERY, documents, top_n=3)

    assert [hit.index for hit in ranking] == best_first(logits("bert", QUERY, documents))[:3]


def test_texts_in_any_script_arrive_as_they_are(server: InfinityServer, logits: Logits, rank: Rank) -> None:
    documents = [
        "fox 🦊 jumps",
        'a "quoted" \\ line\nand\ttab',
        "Füchse über Paris",
        "狐狸 が はしる",
        "  fox  ",
        "fox\x00fox",
    ]
    ranking = rank(reranker_of(server), "über 🦊 fox", documents)

    expected = logits("bert", "über 🦊 fox", documents)
    for hit in ranking:
        assert hit.document.text == documents[hit.index]
        assert hit.score == pytest.approx(sigmoid(expected[hit.index]), abs=1e-4)


async def test_concurrent_calls_get_their_own_answers(server: InfinityServer, logits: Logits) -> None:
    lists = [some_documents(5, seed=seed) for seed in range(12)]
    async with reranker_of(server) as reranker:
        rankings = await asyncio.gather(*(reranker.arank(f"query {i} fox", lists[i]) for i in range(12)))

    for i, ranking in enumerate(rankings):
        assert [hit.index for hit in ranking] == best_first(logits("bert", f"query {i} fox", lists[i]))


@pytest.mark.parametrize("key", ["another-key-91d2", None])
def test_a_wrong_or_missing_key(
    server: InfinityServer, rank: Rank, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("INFINITY_API_KEY", raising=False)
    with pytest.raises(AuthenticationError) as caught:
        rank(reranker_of(server, api_key=key), QUERY, ["a fox"])

    error = caught.value
    assert (error.provider, error.model, error.status) == ("infinity", "infinity:bert", 401)
    assert "401" in str(error)
    assert "Unauthorized" in str(error)
    assert "another-key" not in f"{error!r} {error} {error.__cause__!r} {error.__context__!r}"


def test_the_key_may_come_from_the_environment(
    server: InfinityServer, rank: Rank, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INFINITY_API_KEY", KEY)
    assert len(rank(Reranker("infinity:bert", base_url=server.url), QUERY, ["a fox", "a whale"])) == 2


def test_an_unknown_model(server: InfinityServer, rank: Rank) -> None:
    with pytest.raises(RequestRefusedError, match=r"infinity:absent.*400") as caught:
        rank(reranker_of(server, "absent"), QUERY, ["a fox"])

    assert (caught.value.model, caught.value.status) == ("infinity:absent", 400)
    assert "Available model names are ['bert'," in str(caught.value)


def test_a_model_that_cannot_rerank(server: InfinityServer, rank: Rank) -> None:
    with pytest.raises(RequestRefusedError, match="does not support `rerank`") as caught:
        rank(reranker_of(server, "embedder"), QUERY, ["a fox"])

    assert caught.value.status == 400


def test_a_limit_that_was_not_given_is_met_by_smaller_requests(
    server: InfinityServer, logits: Logits, rank: Rank
) -> None:
    documents = some_documents(3 * MOST, seed=6)
    ranking = rank(reranker_of(server), QUERY, documents)

    assert [hit.index for hit in ranking] == best_first(logits("bert", QUERY, documents))
    assert ranking.usage.requests > 3


def test_a_single_document_that_is_too_long(server: InfinityServer, rank: Rank) -> None:
    with pytest.raises(RequestTooLargeError) as caught:
        rank(reranker_of(server), QUERY, ["whale " * 30_000])

    assert "1 documents" in (caught.value.sent or "")
    assert "at most 122880 characters" in (caught.value.allowed or "")


def test_a_refusal_does_not_repeat_the_document(server: InfinityServer, rank: Rank) -> None:
    """The server puts the whole document of over 122,880 characters into its answer."""
    with pytest.raises(ServiceError) as caught:
        rank(reranker_of(server), QUERY, ["a fox", "secretive whale " * 8000])

    assert caught.value.status == 422
    assert "122880" in str(caught.value)
    assert "secretive" not in str(caught.value)


def test_passthrough_keeps_the_order_where_the_server_refuses(server: InfinityServer, rank: Rank) -> None:
    ranking = rank(reranker_of(server, "absent", on_error="passthrough"), QUERY, ["a whale", "a fox"])

    assert ranking.degraded
    assert [(hit.index, hit.score) for hit in ranking] == [(0, None), (1, None)]
    assert any("absent" in warning for warning in ranking.warnings)


def test_langchain(server: InfinityServer, logits: Logits) -> None:
    pytest.importorskip("langchain_core")
    from langchain_core.documents import Document

    from uprank.langchain import RerankCompressor

    texts = some_documents(20, seed=4)
    given = [Document(text, id=str(i), metadata={"page": i}) for i, text in enumerate(texts)]
    options = {"base_url": server.url, "max_documents": MOST}
    compressor = RerankCompressor(model="infinity:bert", api_key=KEY, top_n=5, options=options)
    expected = logits("bert", QUERY, texts)

    for ranked in (
        compressor.compress_documents(given, QUERY),
        asyncio.run(compressor.acompress_documents(given, QUERY)),
    ):
        assert [document.metadata["page"] for document in ranked] == best_first(expected)[:5]
        for document in ranked:
            index = document.metadata["rerank_index"]
            assert (document.id, document.page_content) == (str(index), texts[index])
            assert document.metadata["relevance_score"] == pytest.approx(sigmoid(expected[index]), abs=1e-4)


def test_llama_index(server: InfinityServer, logits: Logits) -> None:
    pytest.importorskip("llama_index.core")
    from llama_index.core.schema import NodeWithScore, TextNode

    from uprank.llama_index import RerankPostprocessor

    texts = some_documents(20, seed=5)
    nodes = [NodeWithScore(node=TextNode(text=text, id_=f"n{i}"), score=0.5) for i, text in enumerate(texts)]
    options = {"base_url": server.url, "max_documents": MOST}
    postprocessor = RerankPostprocessor(model="infinity:xlm-roberta", api_key=KEY, top_n=5, options=options)
    expected = logits("xlm-roberta", QUERY, texts)

    for ranked in (
        postprocessor.postprocess_nodes(nodes, query_str=QUERY),
        asyncio.run(postprocessor.apostprocess_nodes(nodes, query_str=QUERY)),
    ):
        assert [item.node.node_id for item in ranked] == [f"n{i}" for i in best_first(expected)[:5]]
        for item in ranked:
            assert item.score == pytest.approx(sigmoid(expected[item.node.metadata["rerank_index"]]), abs=1e-4)
            assert item.node.metadata["retrieval_score"] == 0.5


@pytest.fixture
def busy_server(folders: dict[str, Path], tmp_path: Path) -> Iterator[InfinityServer]:
    """A server of one model, without a key, which refuses requests while more than one document waits."""
    assert PYTHON is not None
    with serve(PYTHON, {"bert": folders["bert"]}, tmp_path, queue_size=1) as running:
        yield running


@pytest.mark.slow
async def test_refusals_of_a_busy_server_are_retried(busy_server: InfinityServer, logits: Logits) -> None:
    lists = [some_documents(300, seed=seed) for seed in range(5)]
    async with Reranker("infinity:bert", base_url=busy_server.url) as reranker:
        rankings = await asyncio.gather(*(reranker.arank(QUERY, documents) for documents in lists))

    refused = busy_server.log.read_text().count('"POST /rerank HTTP/1.1" 429')
    assert refused > 0
    assert sum(ranking.usage.retries for ranking in rankings) == refused
    for documents, ranking in zip(lists, rankings, strict=True):
        assert sorted(hit.index for hit in ranking) == list(range(300))
        expected = logits("bert", QUERY, documents)
        probabilities = [sigmoid(expected[hit.index]) for hit in ranking]
        np.testing.assert_allclose([hit.score for hit in ranking], probabilities, atol=1e-4)


@pytest.mark.slow
async def test_recorded_replies_of_a_busy_server_of_one_model(busy_server: InfinityServer) -> None:
    """It serves its one model under any name; busy, it refuses with 429 and does not say for how long."""
    check_recorded(busy_server, "other_name_of_the_only_model")
    async with httpx.AsyncClient(base_url=busy_server.url, trust_env=False, timeout=60) as client:
        body = {"query": QUERY, "documents": some_documents(2048)}
        busy = asyncio.create_task(client.post("/rerank", json=body))
        while (await client.get("/models")).json()["data"][0]["stats"]["queue_absolute"] < 100:
            assert not busy.done()  # bounded by its timeout
            await asyncio.sleep(0.01)
        await asyncio.to_thread(check_recorded, busy_server, "overloaded")
        assert (await busy).status_code == 200


# Recorded replies: each file holds a request and what the server answered, byte for byte. They are compared with the
# server's answers of today, and written anew where the environment variable UPRANK_RECORD is set.

OF_ONE_MODEL = {"other_name_of_the_only_model", "overloaded"}  # compared above


@pytest.mark.parametrize("name", sorted({path.stem for path in RECORDED.glob("*.json")} - OF_ONE_MODEL))
def test_recorded_replies_are_still_what_it_answers(server: InfinityServer, name: str) -> None:
    check_recorded(server, name)


def check_recorded(server: InfinityServer, name: str) -> None:
    """Send a recorded request again: an error must be the same, a success of the same shape."""
    file = RECORDED / f"{name}.json"
    recorded = json.loads(file.read_text())
    request = recorded["request"]
    headers = {"content-type": "application/json", **request["headers"]}
    url = server.url + request["path"]
    reply = httpx.post(url, content=request["body"].encode(), headers=headers, trust_env=False, timeout=60)
    answer = {
        "status": reply.status_code,
        "headers": {key: value for key, value in reply.headers.items() if key != "date"},
        "body": reply.content.decode(),
    }
    if os.environ.get("UPRANK_RECORD"):
        file.write_text(json.dumps({**recorded, "reply": answer}, indent=2) + "\n")
        return

    expected = recorded["reply"]
    assert answer["status"] == expected["status"]
    if reply.is_success:  # numbers may change with the release of torch, the request's id does always
        assert shape(json.loads(answer["body"])) == shape(json.loads(expected["body"]))
        assert answer["headers"]["content-type"] == expected["headers"]["content-type"]
    else:
        assert answer == expected


def shape(value: object) -> object:
    """JSON with its keys in order, and the types of its values in their place."""
    if isinstance(value, dict):
        return [(key, shape(item)) for key, item in value.items()]
    return [shape(item) for item in value] if isinstance(value, list) else type(value).__name__
