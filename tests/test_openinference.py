"""OpenInference's instrumentors of both frameworks: one RERANKER span a rerank, where it belongs in the trace.

That of LlamaIndex makes it of our events. That of LangChain has spans for LangChain's kinds of runs alone, and there is
none of a rerank: it shows a RETRIEVER span, within which the RERANKER span of our own hook lies.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator

import pytest
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda
from llama_index.core.base.base_retriever import BaseRetriever as NodeRetriever
from llama_index.core.llms.mock import MockLLM
from llama_index.core.query_engine import RetrieverQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from openinference.instrumentation.langchain import LangChainInstrumentor
from openinference.instrumentation.llama_index import LlamaIndexInstrumentor
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

from uprank import Reranker, ScorerError
from uprank.langchain import RerankCompressor, RerankRetriever
from uprank.llama_index import RerankPostprocessor
from uprank.telemetry import OpenTelemetry

# Of the instrumentor's own code.
pytestmark = pytest.mark.filterwarnings("ignore:The `json` method is deprecated")

QUERY = "which is longest?"
TEXTS = ["a", "ccc", "bb"]
SCORES = [0.5, 0.25, 0.125]


class Trace:
    """The spans of one test."""

    def __init__(self) -> None:
        self.exporter, self.provider = InMemorySpanExporter(), TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")

    def of_kind(self, kind: str) -> list[ReadableSpan]:
        spans = self.exporter.get_finished_spans()
        return [span for span in spans if span.attributes.get("openinference.span.kind") == kind]

    def named(self, name: str) -> ReadableSpan:
        [span] = [span for span in self.exporter.get_finished_spans() if span.name == name]
        return span

    def parents(self, span: ReadableSpan) -> list[str]:
        """The names of those around a span, the nearest first."""
        found, by_id = [], {span.context.span_id: span for span in self.exporter.get_finished_spans()}
        while span.parent is not None:
            span = by_id[span.parent.span_id]
            found.append(span.name)
        return found

    def rerank(self) -> ReadableSpan:
        """The one span of kind RERANKER, which has all that it should."""
        [span] = self.of_kind("RERANKER")
        attributes = span.attributes
        assert attributes["reranker.query"] == QUERY
        assert attributes["reranker.model_name"] == "length"
        assert attributes["reranker.top_k"] == 2
        assert documents(span, "input") == [("a", 0.5), ("ccc", 0.25), ("bb", 0.125)]
        assert documents(span, "output") == [("ccc", 3.0), ("bb", 2.0)]
        assert attributes["uprank.usage.pairs"] == 3
        return span


def documents(span: ReadableSpan, kind: str) -> list[tuple[object, object]]:
    """Content and score of each document."""
    found, prefix = [], f"reranker.{kind}_documents"
    while f"{prefix}.{len(found)}.document.content" in span.attributes:
        one = f"{prefix}.{len(found)}.document"
        found.append((span.attributes[f"{one}.content"], span.attributes.get(f"{one}.score")))
    return found


@pytest.fixture
def trace() -> Iterator[Trace]:
    trace = Trace()
    instrumentors = [LangChainInstrumentor(), LlamaIndexInstrumentor()]
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=trace.provider, skip_dep_check=True)
    yield trace
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


def length(query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def broken(query: str, texts: list[str]) -> list[float]:
    raise ConnectionError("the server is down")


def reranker(trace: Trace, scorer: object = length) -> Reranker:
    return Reranker(scorer, name="length", top_n=2, hooks=[OpenTelemetry(trace.provider, content=True)])


# LangChain

FOUND = [Document(text, metadata={"retrieval_score": score}) for text, score in zip(TEXTS, SCORES, strict=True)]


class Base(BaseRetriever):
    """Finds the documents."""

    def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
        return FOUND

    async def _aget_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
        return FOUND


def compression_retriever(compressor: RerankCompressor) -> BaseRetriever:
    retrievers = pytest.importorskip("langchain_classic.retrievers")
    return retrievers.ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Base())


async def by_itself(compressor: RerankCompressor) -> object:
    return compressor.compress_documents(FOUND, QUERY)


async def by_itself_async(compressor: RerankCompressor) -> object:
    return await compressor.acompress_documents(FOUND, QUERY)


async def in_a_compression_retriever(compressor: RerankCompressor) -> object:
    return compression_retriever(compressor).invoke(QUERY)


async def in_a_compression_retriever_async(compressor: RerankCompressor) -> object:
    return await compression_retriever(compressor).ainvoke(QUERY)


async def in_our_retriever(compressor: RerankCompressor) -> object:
    return RerankRetriever(model=compressor.reranker, base_retriever=Base()).invoke(QUERY)


async def in_our_retriever_async(compressor: RerankCompressor) -> object:
    return await RerankRetriever(model=compressor.reranker, base_retriever=Base()).ainvoke(QUERY)


COMPRESSION, OURS = ["ContextualCompressionRetriever"], ["RerankRetriever"]


@pytest.mark.parametrize(
    ("way", "around"),
    [
        (by_itself, []),
        (by_itself_async, []),
        (in_a_compression_retriever, COMPRESSION),
        (in_a_compression_retriever_async, COMPRESSION),
        (in_our_retriever, OURS),
        (in_our_retriever_async, OURS),
    ],
)
async def test_langchain(way: Callable[[RerankCompressor], Awaitable[object]], around: list[str], trace: Trace) -> None:
    await way(RerankCompressor(model=reranker(trace)))
    span = trace.rerank()
    assert trace.parents(span) == ["RerankCompressor", *around]
    assert len({each.context.trace_id for each in trace.exporter.get_finished_spans()}) == 1
    run = trace.named("RerankCompressor").attributes  # what LangChain's own run tells
    assert (run["input.value"], run["llm.model_name"]) == (QUERY, "length")
    assert run["retrieval.documents.0.document.content"] == "ccc"
    assert json.loads(run["retrieval.documents.0.document.metadata"])["relevance_score"] == 3.0


@pytest.mark.parametrize("way", [by_itself, by_itself_async])
async def test_langchain_a_failure(way: Callable[[RerankCompressor], Awaitable[object]], trace: Trace) -> None:
    with pytest.raises(ScorerError):
        await way(RerankCompressor(model=reranker(trace, broken)))
    [span] = trace.of_kind("RERANKER")
    assert span.status.status_code is trace.named("RerankCompressor").status.status_code is StatusCode.ERROR


async def test_langchain_runs_at_once_keep_to_their_own(trace: Trace) -> None:
    compressor = RerankCompressor(model=reranker(trace))

    async def node(query: str) -> object:
        return await compressor.acompress_documents([Document("a")], query)

    await asyncio.gather(*(RunnableLambda(node, name="chain").ainvoke(f"q{number}") for number in range(10)))
    assert len(trace.of_kind("RERANKER")) == 10
    asked = {span.context.trace_id: span.attributes["input.value"] for span in trace.of_kind("CHAIN")}
    assert len(asked) == 10
    for span in trace.of_kind("RERANKER"):
        assert trace.parents(span) == ["RerankCompressor", "chain"]
        assert asked[span.context.trace_id] == span.attributes["reranker.query"]


def test_a_plain_rank_within_a_chain_lies_in_its_span(trace: Trace) -> None:
    ranker = reranker(trace)
    RunnableLambda(lambda query: ranker.rank(query, TEXTS), name="node").invoke(QUERY)
    [span] = trace.of_kind("RERANKER")
    assert trace.parents(span) == ["node"]


def test_a_span_that_was_started_within_the_chain_is_nearer(trace: Trace) -> None:
    ranker = reranker(trace)

    def node(query: str) -> object:
        with trace.tracer.start_as_current_span("mine"):
            return ranker.rank(query, TEXTS)

    with trace.tracer.start_as_current_span("handler"):
        RunnableLambda(node, name="node").invoke(QUERY)
    [span] = trace.of_kind("RERANKER")
    assert trace.parents(span) == ["mine", "handler"]


def test_a_chain_within_another_span_is_nearer_than_that(trace: Trace) -> None:
    ranker = reranker(trace)
    with trace.tracer.start_as_current_span("handler"):
        RunnableLambda(lambda query: ranker.rank(query, TEXTS), name="node").invoke(QUERY)
        ranker.rank(QUERY, TEXTS)
    inner, outer = trace.of_kind("RERANKER")
    assert (trace.parents(inner), trace.parents(outer)) == (["node", "handler"], ["handler"])


def test_loaded_and_not_in_use_the_instrumentor_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    """Asked for a span it would print that it has no tracer."""
    trace = Trace()
    ranker = reranker(trace)
    RunnableLambda(lambda query: ranker.rank(query, TEXTS), name="node").invoke(QUERY)
    assert trace.parents(trace.of_kind("RERANKER")[0]) == []
    assert capsys.readouterr().out == ""


def test_an_instrumentor_that_has_changed_costs_the_place_in_the_trace_and_not_the_span(
    trace: Trace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("openinference.instrumentation.langchain.get_current_span")
    by_itself_now = RerankCompressor(model=reranker(trace))
    by_itself_now.compress_documents(FOUND, QUERY)
    assert trace.parents(trace.rerank()) == []


# LlamaIndex


def nodes() -> list[NodeWithScore]:
    return [NodeWithScore(node=TextNode(text=text), score=score) for text, score in zip(TEXTS, SCORES, strict=True)]


class Nodes(NodeRetriever):
    """Finds the nodes."""

    def _retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        return nodes()


def engine(postprocessor: RerankPostprocessor) -> RetrieverQueryEngine:
    return RetrieverQueryEngine.from_args(Nodes(), llm=MockLLM(), node_postprocessors=[postprocessor])


async def nodes_by_themselves(postprocessor: RerankPostprocessor) -> object:
    return postprocessor.postprocess_nodes(nodes(), query_str=QUERY)


async def nodes_by_themselves_async(postprocessor: RerankPostprocessor) -> object:
    return await postprocessor.apostprocess_nodes(nodes(), query_str=QUERY)


async def in_an_engine(postprocessor: RerankPostprocessor) -> object:
    return engine(postprocessor).query(QUERY)


async def in_an_engine_async(postprocessor: RerankPostprocessor) -> object:
    return await engine(postprocessor).aquery(QUERY)


every_llama_way = pytest.mark.parametrize(
    ("way", "outermost"),
    [
        (nodes_by_themselves, ""),
        (nodes_by_themselves_async, ""),
        (in_an_engine, "RetrieverQueryEngine.query"),
        (in_an_engine_async, "RetrieverQueryEngine.aquery"),
    ],
)
PostprocessorWay = Callable[[RerankPostprocessor], Awaitable[object]]


@every_llama_way
async def test_llama_index_with_our_hook(way: PostprocessorWay, outermost: str, trace: Trace) -> None:
    """The hook adds to the instrumentor's span, rather than making a second one."""
    await way(RerankPostprocessor(model=reranker(trace), top_n=2))
    span = trace.rerank()
    assert span.name.startswith("RerankPostprocessor.")
    assert [name for name in trace.parents(span) if name.startswith("RetrieverQueryEngine.")][-1:] == (
        [outermost] if outermost else []
    )


@every_llama_way
async def test_llama_index_without_it(way: PostprocessorWay, outermost: str, trace: Trace) -> None:
    await way(RerankPostprocessor(model=Reranker(length, name="length"), top_n=2))
    [span] = trace.of_kind("RERANKER")
    assert (span.attributes["reranker.query"], span.attributes["reranker.model_name"]) == (QUERY, "length")
    assert span.attributes["reranker.top_k"] == 2
    assert documents(span, "input") == list(zip(TEXTS, SCORES, strict=True))
    assert documents(span, "output") == [("ccc", 3.0), ("bb", 2.0)]


async def test_llama_index_a_failure_is_one_span(trace: Trace) -> None:
    with pytest.raises(ScorerError):
        await nodes_by_themselves(RerankPostprocessor(model=reranker(trace, broken)))
    [span] = trace.of_kind("RERANKER")
    assert span.status.status_code is StatusCode.ERROR


def test_without_its_instrumentor_the_hook_makes_the_span_in_llama_index_too() -> None:
    trace = Trace()
    RerankPostprocessor(model=reranker(trace), top_n=2).postprocess_nodes(nodes(), query_str=QUERY)
    assert trace.rerank().name == "rerank"
