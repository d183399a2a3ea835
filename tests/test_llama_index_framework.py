"""RerankPostprocessor where LlamaIndex itself calls it, and its async calls."""

from __future__ import annotations

import asyncio
import time

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.base.response.schema import Response
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.chat_engine import ContextChatEngine
from llama_index.core.evaluation import RetrieverEvaluator
from llama_index.core.llms import MockLLM
from llama_index.core.postprocessor import SimilarityPostprocessor
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import Document, NodeWithScore, TextNode
from llama_index.core.tools import RetrieverTool

from uprank import Reranker
from uprank.llama_index import RerankPostprocessor

QUERY = "red fox"
TEXTS = {
    "dog": "a lazy dog",
    "whale": "a blue whale",
    "hat": "the red hat",
    "fox": "red fox den",
    "sea": "the deep sea",
}


def shared_words(query: str, texts: list[str]) -> list[float]:
    """Count the words that query and text share, a better judge than the lengths below."""
    asked = set(query.replace("\n", " ").split())
    return [float(len(asked & set(text.split()))) for text in texts]


class Lengths(BaseEmbedding):
    """Embeds a text by its length: a poor but repeatable first stage."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return [1.0, len(text) / 10]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_query_embedding(query)


@pytest.fixture
def index() -> VectorStoreIndex:
    nodes = [TextNode(text=text, id_=name, metadata={"src": name}) for name, text in TEXTS.items()]
    return VectorStoreIndex(nodes=nodes, embed_model=Lengths())


@pytest.fixture
def postprocessor() -> RerankPostprocessor:
    return RerankPostprocessor(model=Reranker(shared_words), top_n=2)


def names(nodes: list[NodeWithScore]) -> list[str]:
    return [item.node_id for item in nodes]


async def test_query_engine(index: VectorStoreIndex, postprocessor: RerankPostprocessor) -> None:
    engine = index.as_query_engine(llm=MockLLM(), similarity_top_k=5, node_postprocessors=[postprocessor])
    assert isinstance(engine, RetrieverQueryEngine)
    assert names(engine.retriever.retrieve(QUERY))[:2] != ["fox", "hat"]  # so the order below is ours
    for response in (engine.query(QUERY), await engine.aquery(QUERY)):
        assert isinstance(response, Response)
        assert names(response.source_nodes) == ["fox", "hat"]
        assert [item.score for item in response.source_nodes] == [2.0, 1.0]
        for item in response.source_nodes:
            assert 0 < item.metadata["retrieval_score"] <= 1
            assert item.metadata["src"] == item.node_id
        # MockLLM answers with its prompt.
        assert response.response is not None
        assert "src: fox\n\nred fox den" in response.response
        assert "src: hat\n\nthe red hat" in response.response
        assert "retrieval_score" not in response.response
        assert "rerank_index" not in response.response
        assert "blue whale" not in response.response
    assert all("rerank_index" not in node.metadata for node in index.docstore.docs.values())


def test_query_engine_hands_over_its_callbacks(index: VectorStoreIndex, postprocessor: RerankPostprocessor) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    engine = RetrieverQueryEngine.from_args(
        index.as_retriever(),
        llm=MockLLM(),
        node_postprocessors=[postprocessor],
        callback_manager=CallbackManager([debug]),
    )
    response = engine.query(QUERY)
    ((_, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert end.payload == {EventPayload.NODES: response.source_nodes}


async def test_query_engine_over_documents_and_with_a_later_postprocessor(index: VectorStoreIndex) -> None:
    index.insert(Document(text="a red fox and the red hat", doc_id="story"))
    engine = index.as_query_engine(
        llm=MockLLM(),
        similarity_top_k=6,
        node_postprocessors=[
            RerankPostprocessor(model=Reranker(shared_words)),
            SimilarityPostprocessor(similarity_cutoff=1.0),  # reads the score that the reranker set
        ],
    )
    response = await engine.aquery(QUERY)
    found = [item.node.ref_doc_id or item.node_id for item in response.source_nodes]
    assert sorted(found[:2]) == ["fox", "story"]
    assert found[2:] == ["hat"]


async def test_retriever_tool(index: VectorStoreIndex, postprocessor: RerankPostprocessor) -> None:
    tool = RetrieverTool.from_defaults(index.as_retriever(similarity_top_k=5), node_postprocessors=[postprocessor])
    for output in (tool.call(input=QUERY), await tool.acall(input=QUERY), tool.call(QUERY)):
        assert names(output.raw_output) == ["fox", "hat"]
        assert output.content == "src: fox\n\nred fox den\n\nsrc: hat\n\nthe red hat\n\n"


async def test_context_chat_engine(index: VectorStoreIndex, postprocessor: RerankPostprocessor) -> None:
    engine = ContextChatEngine.from_defaults(
        retriever=index.as_retriever(similarity_top_k=5), llm=MockLLM(), node_postprocessors=[postprocessor]
    )
    for reply in (engine.chat(QUERY), await engine.achat(QUERY)):
        assert names(reply.source_nodes) == ["fox", "hat"]
        assert "retrieval_score" not in str(reply)


def test_retriever_evaluator(index: VectorStoreIndex, postprocessor: RerankPostprocessor) -> None:
    retriever = index.as_retriever(similarity_top_k=5)
    plain = RetrieverEvaluator.from_metric_names(["mrr"], retriever=retriever)
    reranked = RetrieverEvaluator.from_metric_names(["mrr"], retriever=retriever, node_postprocessors=[postprocessor])
    assert reranked.evaluate(QUERY, expected_ids=["fox"]).metric_vals_dict == {"mrr": 1.0}
    assert plain.evaluate(QUERY, expected_ids=["fox"]).metric_vals_dict["mrr"] < 1.0


def some_nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text, id_=name), score=0.5) for name, text in TEXTS.items()]


async def test_r6_48_concurrent_calls_take_as_long_as_one() -> None:
    """Rerankers whose async call was a thread in disguise needed 8 s for 48 calls of one second."""

    async def slow(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(1)
        return shared_words(query, texts)

    postprocessor = RerankPostprocessor(model=Reranker(slow))
    nodes, wanted = some_nodes(), ["dog", "whale", "hat", "fox"] * 12
    started = time.perf_counter()
    results = await asyncio.gather(*(postprocessor.apostprocess_nodes(nodes, query_str=name) for name in wanted))
    assert time.perf_counter() - started < 2
    assert [result[0].node_id for result in results] == wanted


async def test_r6_a_cancelled_call_ends_at_once() -> None:
    """A thread in disguise could not be cancelled: the loop waited for it after the time-out."""
    ended: list[str] = []

    async def endless(query: str, texts: list[str]) -> list[float]:
        try:
            await asyncio.sleep(20)
        finally:
            ended.append(query)
        return []

    postprocessor = RerankPostprocessor(model=Reranker(endless, on_error="passthrough"))
    started = time.perf_counter()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(postprocessor.apostprocess_nodes(some_nodes(), query_str=QUERY), 0.05)
    assert time.perf_counter() - started < 1
    assert ended == [QUERY]


async def test_r1_concurrent_queries_over_shared_nodes_do_not_mix() -> None:
    """Written in place, the scores of two concurrent queries overwrote one another."""

    async def waits(query: str, texts: list[str]) -> list[float]:
        scores = shared_words(query, texts)
        await asyncio.sleep(0.01 * len(query))  # so that the calls end in another order than they began
        return scores

    postprocessor = RerankPostprocessor(model=Reranker(waits))
    nodes = some_nodes()
    queries = ["the red hat and fox", "a blue whale", "red", "sea"]
    together = await asyncio.gather(*(postprocessor.apostprocess_nodes(nodes, query_str=query) for query in queries))
    for query, result in zip(queries, together, strict=True):
        alone = RerankPostprocessor(model=Reranker(shared_words)).postprocess_nodes(some_nodes(), query_str=query)
        assert [(item.node_id, item.score) for item in result] == [(item.node_id, item.score) for item in alone]
    assert [item.score for item in nodes] == [0.5] * len(nodes)


async def test_a_plain_function_does_not_block_the_loop() -> None:
    def blocks(query: str, texts: list[str]) -> list[float]:
        time.sleep(0.2)
        return shared_words(query, texts)

    postprocessor = RerankPostprocessor(model=Reranker(blocks))
    call = asyncio.create_task(postprocessor.apostprocess_nodes(some_nodes(), query_str=QUERY))
    ticks = 0
    while not call.done():
        await asyncio.sleep(0.01)
        ticks += 1
    assert (await call)[0].node_id == "fox"
    assert ticks >= 5


def test_sync_call_inside_a_running_loop_of_an_async_scorer() -> None:
    async def scorer(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(0)
        return shared_words(query, texts)

    async def cell() -> list[NodeWithScore]:
        return RerankPostprocessor(model=Reranker(scorer)).postprocess_nodes(some_nodes(), query_str=QUERY)

    assert asyncio.run(cell())[0].node_id == "fox"
