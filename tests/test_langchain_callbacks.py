"""What LangChain's callbacks see of a rerank: one retriever run, with documents, scores and model, always ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID, uuid4

import pytest
from langchain_core.callbacks import (
    AsyncCallbackHandler,
    AsyncCallbackManager,
    BaseCallbackHandler,
    CallbackManager,
)
from langchain_core.documents import Document
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda

from uprank import InvalidInputError, Reranker, ScorerError
from uprank.langchain import RerankCompressor, RerankRetriever

DOCUMENTS = [Document("bb"), Document("a"), Document("ccc")]


def length(query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def broken(query: str, texts: list[str]) -> list[float]:
    raise ConnectionError("the server is down")


@dataclass
class Seen:
    """A run as its handler saw it."""

    kind: str
    name: str
    parent: UUID | None
    query: object
    metadata: dict[str, Any]
    tags: list[str]
    ends: list[object] = field(default_factory=list)  # documents, or the error; exactly one each


class Recorder(BaseCallbackHandler):
    """Keeps every retriever and chain run."""

    def __init__(self) -> None:
        self.runs: dict[UUID, Seen] = {}

    def _start(self, kind: str, given: object, details: dict[str, Any]) -> None:
        self.runs[details["run_id"]] = Seen(
            kind, details["name"], details["parent_run_id"], given, details["metadata"], details["tags"]
        )

    def on_retriever_start(self, serialized: object, query: str, **details: Any) -> None:
        self._start("retriever", query, details)

    def on_retriever_end(self, documents: object, *, run_id: UUID, **details: Any) -> None:
        self.runs[run_id].ends.append(documents)

    def on_retriever_error(self, error: BaseException, *, run_id: UUID, **details: Any) -> None:
        self.runs[run_id].ends.append(error)

    def on_chain_start(self, serialized: object, inputs: object, **details: Any) -> None:
        self._start("chain", inputs, details)

    def on_chain_end(self, outputs: object, *, run_id: UUID, **details: Any) -> None:
        self.runs[run_id].ends.append(outputs)

    def named(self, name: str) -> Seen:
        """The one run of that name."""
        [run] = [run for run in self.runs.values() if run.name == name]
        return run

    def identity(self, name: str) -> UUID:
        [run_id] = [run_id for run_id, run in self.runs.items() if run.name == name]
        return run_id


class AsyncRecorder(AsyncCallbackHandler):
    """Keeps the documents of each run, with coroutines."""

    def __init__(self) -> None:
        self.started: list[str] = []
        self.ended: list[object] = []

    async def on_retriever_start(self, serialized: object, query: str, **details: Any) -> None:
        await asyncio.sleep(0)
        self.started.append(query)

    async def on_retriever_end(self, documents: object, **details: Any) -> None:
        await asyncio.sleep(0)
        self.ended.append(documents)


def compressor(function: object = length, **settings: object) -> RerankCompressor:
    return RerankCompressor(model=Reranker(function, name="length-model", **settings))


async def run(reranking: RerankCompressor, how: str, callbacks: object) -> list[Document]:
    if how == "sync":
        return reranking.compress_documents(DOCUMENTS, "the query", callbacks=callbacks)
    return await reranking.acompress_documents(DOCUMENTS, "the query", callbacks=callbacks)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("wrap", [list, CallbackManager, AsyncCallbackManager], ids=lambda wrap: wrap.__name__)
async def test_one_run_with_documents_scores_and_model(how: str, wrap: type) -> None:
    recorder = Recorder()

    ranked = await run(compressor(), how, wrap([recorder]))

    [seen] = recorder.runs.values()
    assert (seen.kind, seen.name, seen.query, seen.parent) == ("retriever", "RerankCompressor", "the query", None)
    assert seen.ends == [ranked]
    assert [document.metadata["relevance_score"] for document in seen.ends[0]] == [3.0, 2.0, 1.0]
    assert seen.metadata["ls_provider"] == "uprank"
    assert seen.metadata["ls_model_name"] == "length-model"


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_async_handlers_are_told_too(how: str) -> None:
    recorder = AsyncRecorder()
    ranked = await run(compressor(), how, [recorder])
    assert (recorder.started, recorder.ended) == (["the query"], [ranked])


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_without_callbacks_it_works(how: str) -> None:
    assert len(await run(compressor(), how, None)) == 3


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_failure_ends_the_run_with_its_error(how: str) -> None:
    recorder = Recorder()
    with pytest.raises(ScorerError) as caught:
        await run(compressor(broken), how, [recorder])
    assert recorder.named("RerankCompressor").ends == [caught.value]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_a_blank_query_ends_the_run_with_its_error(how: str) -> None:
    recorder = Recorder()
    given, config = {"query": " ", "documents": DOCUMENTS}, {"callbacks": [recorder]}
    with pytest.raises(InvalidInputError) as caught:
        compressor().invoke(given, config) if how == "sync" else await compressor().ainvoke(given, config)
    assert recorder.named("RerankCompressor").ends == [caught.value]


def test_an_interrupt_ends_the_run() -> None:
    def interrupted(query: str, texts: list[str]) -> list[float]:
        raise KeyboardInterrupt

    recorder = Recorder()
    with pytest.raises(KeyboardInterrupt):
        compressor(interrupted).compress_documents(DOCUMENTS, "q", callbacks=[recorder])
    assert [type(end) for end in recorder.named("RerankCompressor").ends] == [KeyboardInterrupt]


async def test_cancellation_ends_the_run() -> None:
    started = asyncio.Event()

    async def stuck(query: str, texts: list[str]) -> list[float]:
        started.set()
        await asyncio.sleep(60)
        return length(query, texts)

    recorder = Recorder()
    task = asyncio.create_task(compressor(stuck).acompress_documents(DOCUMENTS, "q", callbacks=[recorder]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [type(end) for end in recorder.named("RerankCompressor").ends] == [asyncio.CancelledError]


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_passthrough_ends_the_run_with_the_documents(how: str) -> None:
    recorder = Recorder()
    await run(compressor(broken, on_error="passthrough"), how, [recorder])
    [documents] = recorder.named("RerankCompressor").ends
    assert [document.metadata["rerank_degraded"] for document in documents] == [True, True, True]


def test_no_documents_no_run() -> None:
    recorder = Recorder()
    compressor().compress_documents([], "q", callbacks=[recorder])
    assert recorder.runs == {}


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_the_config_of_invoke_reaches_the_run(how: str) -> None:
    recorder, run_id = Recorder(), uuid4()
    config = {
        "callbacks": [recorder],
        "run_name": "second stage",
        "run_id": run_id,
        "tags": ["mine"],
        "metadata": {"user": 7, "ls_retriever_name": "vectorstore"},
    }
    given = {"query": "q", "documents": DOCUMENTS}

    compressor().invoke(given, config) if how == "sync" else await compressor().ainvoke(given, config)

    seen = recorder.runs[run_id]
    assert (len(recorder.runs), seen.name, seen.tags) == (1, "second stage", ["mine"])
    assert (seen.metadata["user"], seen.metadata["ls_retriever_name"]) == (7, "RerankCompressor")
    assert config["metadata"] == {"user": 7, "ls_retriever_name": "vectorstore"}


def test_a_name_given_is_the_runs_name() -> None:
    recorder = Recorder()
    RerankCompressor(model=Reranker(length), name="mine").compress_documents(DOCUMENTS, "q", callbacks=[recorder])
    assert recorder.named("mine").ends


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_called_inside_a_chain_it_is_that_chains_child(how: str) -> None:
    reranking, recorder = compressor(), Recorder()
    chain = RunnableLambda(
        lambda query: reranking.compress_documents(DOCUMENTS, query),
        afunc=lambda query: reranking.acompress_documents(DOCUMENTS, query),
        name="outer",
    )

    config = {"callbacks": [recorder]}
    chain.invoke("q", config) if how == "sync" else await chain.ainvoke("q", config)

    assert recorder.named("RerankCompressor").parent == recorder.identity("outer")


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_what_is_called_to_judge_is_the_reranks_child(how: str) -> None:
    """Else a chat model that judges shows up beside the rerank that it works for, or in a trace of its own."""
    judge, recorder = RunnableLambda(lambda text: float(len(text)), name="judge"), Recorder()

    def judged(query: str, texts: list[str]) -> list[float]:
        return [judge.invoke(text) for text in texts]

    await run(compressor(judged), how, [recorder])

    reranked = recorder.identity("RerankCompressor")
    assert [seen.parent for seen in recorder.runs.values() if seen.name == "judge"] == [reranked] * 3


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_what_comes_after_a_rerank_is_not_its_child(how: str) -> None:
    after, recorder = RunnableLambda(lambda text: text, name="after"), Recorder()

    async def calls(query: str) -> None:
        await run(compressor(), how, None)
        with pytest.raises(ScorerError):
            await run(compressor(broken), how, None)
        after.invoke(query)

    await RunnableLambda(calls, name="outer").ainvoke("q", {"callbacks": [recorder]})

    assert recorder.named("after").parent == recorder.identity("outer")


class Base(BaseRetriever):
    """Finds the documents; with coroutines too."""

    def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
        return DOCUMENTS

    async def _aget_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
        return DOCUMENTS


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_the_retriever_has_two_children(how: str) -> None:
    recorder = Recorder()
    retriever = RerankRetriever(model=Reranker(length, name="length-model"), base_retriever=Base(), top_n=1)

    config = {"callbacks": [recorder], "metadata": {"user": 7}}
    found = retriever.invoke("q", config) if how == "sync" else await retriever.ainvoke("q", config)

    assert [run.name for run in recorder.runs.values()] == ["RerankRetriever", "Base", "RerankCompressor"]
    outer, reranked = recorder.identity("RerankRetriever"), recorder.named("RerankCompressor")
    assert recorder.runs[outer].ends == [found]
    assert (recorder.named("Base").parent, recorder.named("Base").ends) == (outer, [DOCUMENTS])
    assert (reranked.parent, reranked.ends) == (outer, [found])
    assert (reranked.metadata["ls_model_name"], reranked.metadata["user"]) == ("length-model", 7)
    assert reranked.metadata["ls_retriever_name"] == "RerankCompressor"


@pytest.mark.parametrize("how", ["sync", "async"])
async def test_the_retrievers_failure_ends_every_run(how: str) -> None:
    recorder = Recorder()
    retriever = RerankRetriever(model=Reranker(broken), base_retriever=Base())
    config = {"callbacks": [recorder]}
    with pytest.raises(ScorerError) as caught:
        retriever.invoke("q", config) if how == "sync" else await retriever.ainvoke("q", config)
    assert recorder.named("RerankRetriever").ends == recorder.named("RerankCompressor").ends == [caught.value]
