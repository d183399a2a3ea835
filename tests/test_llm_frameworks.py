"""LLM rerankers in LangChain and LlamaIndex, by name and over their own models; round trips; loops that already run."""

from __future__ import annotations

import asyncio
import json
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.documents import Document
from langchain_core.load import dumps, loads
from langchain_core.retrievers import BaseRetriever
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import Field

from chat_brains import TEXT_ONLY, Saying, by_number, chain, numbered, reading
from chat_server import ChatServer, serve_chat, status
from uprank import ConfigurationError, Reranker
from uprank.errors import ServerError
from uprank.langchain import RerankCompressor, RerankRetriever
from uprank.llama_index import RerankPostprocessor
from uprank.scorers import LLMScorer
from uprank.testing import AskedQuestion, MockChatModel

QUERY = "which?"
TEXTS = ["passage 300", "passage 900", "passage 0", "passage 600"]
DOCUMENTS = [Document(text, id=f"id-{text[8:]}", metadata={"page": number}) for number, text in enumerate(TEXTS)]
ORDER = [1, 3, 0, 2]


def nodes() -> list[NodeWithScore]:
    return [
        NodeWithScore(node=TextNode(text=text, id_=f"id-{text[8:]}"), score=0.5 - 0.1 * number)
        for number, text in enumerate(TEXTS)
    ]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve_chat(reading(by_number), key="k") as running:
        yield running


def named(server: ChatServer, **options: object) -> dict[str, Any]:
    """The fields of a framework class for a model given by its name."""
    return {"model": "llm:gpt-x", "api_key": "k", "options": {"base_url": server.base_url, "max_retries": 0, **options}}


def ready(server: ChatServer) -> dict[str, Any]:
    return {"model": Reranker(LLMScorer(MockChatModel(by_number)))}


def of_langchain(server: ChatServer) -> LLMScorer:
    from langchain_openai import ChatOpenAI

    return LLMScorer(ChatOpenAI(model="gpt-x", base_url=server.base_url, api_key="k", max_retries=0))


def of_llama_index(server: ChatServer) -> LLMScorer:
    from llama_index.llms.openai_like import OpenAILike

    return LLMScorer(OpenAILike(model="gpt-x", api_base=server.base_url, api_key="k", is_chat_model=True))


MODELS: dict[str, Callable[[ChatServer], dict[str, Any]]] = {
    "a ready reranker": ready,
    "by name": named,
    "a LangChain chat model": lambda server: {"model": of_langchain(server)},
    "a LlamaIndex LLM": lambda server: {"model": Reranker(of_llama_index(server))},
}
models = pytest.mark.parametrize("model", MODELS.values(), ids=MODELS)
drivers = pytest.mark.parametrize("how", ["sync", "async"])


async def compressed(compressor: RerankCompressor, how: str, **options: Any) -> list[Document]:
    given = {"query": QUERY, "documents": DOCUMENTS}
    return compressor.invoke(given, **options) if how == "sync" else await compressor.ainvoke(given, **options)


async def postprocessed(postprocessor: RerankPostprocessor, how: str) -> list[NodeWithScore]:
    if how == "sync":
        return postprocessor.postprocess_nodes(nodes(), query_str=QUERY)
    return await postprocessor.apostprocess_nodes(nodes(), query_str=QUERY)


class Runs(BaseCallbackHandler):
    """Keeps what starts and ends."""

    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.ended: list[list[Document]] = []
        self.failed: list[BaseException] = []

    def on_retriever_start(self, serialized: object, query: str, **details: Any) -> None:
        self.started.append({"query": query, **details["metadata"]})

    def on_retriever_end(self, documents: list[Document], **details: Any) -> None:
        self.ended.append(documents)

    def on_retriever_error(self, error: BaseException, **details: Any) -> None:
        self.failed.append(error)


class Events(BaseEventHandler):
    """Keeps the rerank events."""

    seen: list[Any] = Field(default_factory=list)

    def handle(self, event: Any, **_: object) -> None:
        if isinstance(event, (ReRankStartEvent, ReRankEndEvent)):
            self.seen.append(event)


@pytest.fixture
def events() -> Iterator[Events]:
    handler = Events()
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@models
@drivers
async def test_a_compressor(server: ChatServer, model: Callable[[ChatServer], dict[str, Any]], how: str) -> None:
    runs, given = Runs(), model(server)
    compressor = RerankCompressor(**given)
    found = await compressed(compressor, how, config={"callbacks": [runs]})
    assert [document.metadata["rerank_index"] for document in found] == ORDER
    assert [document.id for document in found] == [DOCUMENTS[index].id for index in ORDER]
    assert [document.metadata["page"] for document in found] == ORDER
    scores = [document.metadata["relevance_score"] for document in found]
    assert scores == sorted(set(scores), reverse=True)
    assert all(type(score) is float for score in scores)
    assert runs.ended == [found]
    assert runs.started[0]["query"] == QUERY
    assert runs.started[0]["ls_model_name"] == compressor.reranker.model
    assert all("relevance_score" not in document.metadata for document in DOCUMENTS)


@models
@drivers
async def test_a_postprocessor(
    server: ChatServer, model: Callable[[ChatServer], dict[str, Any]], how: str, events: Events
) -> None:
    postprocessor = RerankPostprocessor(top_n=3, **model(server))
    found = await postprocessed(postprocessor, how)
    assert [each.node.metadata["rerank_index"] for each in found] == ORDER[:3]
    assert [each.node.node_id for each in found] == ["id-900", "id-600", "id-300"]
    assert [each.node.metadata["retrieval_score"] for each in found] == pytest.approx([0.4, 0.2, 0.5])
    scores = [each.score for each in found]
    assert scores == sorted(set(scores), reverse=True)
    start, end = events.seen
    assert (start.model_name, start.top_n) == (postprocessor.reranker.model, 3)
    assert [each.node.node_id for each in end.nodes] == ["id-900", "id-600", "id-300"]


@drivers
async def test_a_retriever(server: ChatServer, how: str) -> None:
    class Found(BaseRetriever):
        def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
            return DOCUMENTS

    retriever = RerankRetriever(base_retriever=Found(), k=2, **named(server, scores=True))
    found = retriever.invoke(QUERY) if how == "sync" else await retriever.ainvoke(QUERY)
    assert [document.metadata["rerank_index"] for document in found] == ORDER[:2]
    assert [document.metadata["relevance_score"] for document in found] == pytest.approx([1.0, 2 / 3])


@pytest.mark.parametrize("options", [{"scores": True}, {"method": "pointwise"}], ids=["scores", "pointwise"])
def test_probabilities_have_a_threshold_and_ranks_have_none(server: ChatServer, options: dict[str, Any]) -> None:
    fields = named(server, **options)
    found = RerankCompressor(threshold=0.5, **fields).compress_documents(DOCUMENTS, QUERY)
    assert [document.metadata["rerank_index"] for document in found] == ORDER[:2]
    kept = RerankPostprocessor(threshold=0.5, **fields).postprocess_nodes(nodes(), query_str=QUERY)
    assert [each.node.node_id for each in kept] == ["id-900", "id-600"]
    with pytest.raises(ValueError, match="scores of kind 'rank'"):
        RerankCompressor(threshold=0.5, **named(server))


@pytest.mark.parametrize("framework", ["langchain", "llama-index"])
async def test_async_calls_are_in_flight_at_once_and_end_when_cancelled(server: ChatServer, framework: str) -> None:
    fields = named(server)
    compressor, postprocessor = RerankCompressor(**fields), RerankPostprocessor(**fields)

    async def once() -> object:
        if framework == "langchain":
            return await compressor.acompress_documents(DOCUMENTS, QUERY)
        return await postprocessor.apostprocess_nodes(nodes(), query_str=QUERY)

    await once()
    server.delay = 0.5
    await asyncio.gather(*(once() for _ in range(8)))
    assert server.most_at_once > 4  # all eight, but on a busy machine
    server.delay = 10.0
    before = asyncio.all_tasks()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(once(), 0.1)
    assert asyncio.all_tasks() == before
    await compressor.reranker.aclose()


@drivers
async def test_a_failure_is_raised_and_ends_runs_and_events(server: ChatServer, how: str, events: Events) -> None:
    server.fail_always(status(500))
    runs = Runs()
    with pytest.raises(ServerError):
        await compressed(RerankCompressor(**named(server)), how, config={"callbacks": [runs]})
    assert len(runs.started) == len(runs.failed) == 1
    with pytest.raises(ServerError):
        await postprocessed(RerankPostprocessor(**named(server)), how)
    assert [type(event) for event in events.seen] == [ReRankStartEvent, ReRankEndEvent]


@drivers
async def test_passed_through_documents_have_no_score(server: ChatServer, how: str) -> None:
    server.fail_always(status(500))
    fields = {**named(server), "on_error": "passthrough"}
    found = await compressed(RerankCompressor(**fields), how)
    assert [document.id for document in found] == [document.id for document in DOCUMENTS]
    assert all(document.metadata["rerank_degraded"] for document in found)
    assert [document.metadata["relevance_score"] for document in found] == [None] * 4
    passed = await postprocessed(RerankPostprocessor(**fields), how)
    assert [(each.node.node_id, each.score) for each in passed] == [(f"id-{text[8:]}", None) for text in TEXTS]
    assert all(each.node.metadata["rerank_degraded"] for each in passed)


def in_part() -> Reranker:
    """Orders all documents, and scores one of them: of the others the model does not say."""

    def say(question: AskedQuestion) -> str:
        if question.kind == "order":
            best = sorted(zip(question.texts, question.labels, strict=True), reverse=True)
            return chain([label for _, label in best])
        pairs = zip(question.labels, question.texts, strict=True)
        return "\n".join(f"{label}: {'3' if '900' in text else 'high'}" for label, text in pairs)

    return Reranker(LLMScorer(Saying(say, features=TEXT_ONLY), scores=True))


def test_where_a_part_has_no_score_none_is_invented() -> None:
    found = RerankCompressor(model=in_part()).compress_documents(DOCUMENTS, QUERY)
    assert [document.metadata["rerank_index"] for document in found] == ORDER
    assert [document.metadata["relevance_score"] for document in found] == [1.0, None, None, None]
    assert all(document.metadata["rerank_degraded"] for document in found)


def test_a_degraded_order_is_not_thrown_away_by_the_postprocessor() -> None:
    """The model's order stands, though the scores that it did not give are missing."""
    found = RerankPostprocessor(model=in_part()).postprocess_nodes(nodes(), query_str=QUERY)
    assert [each.node.metadata["rerank_index"] for each in found] == ORDER
    assert [each.score for each in found] == [1.0, None, None, None]
    assert all(each.node.metadata["rerank_degraded"] for each in found)


def test_r5_a_score_stays_with_its_node() -> None:
    """R5: after "Relevance: high" every later node had the score of the one behind it, and the last vanished."""

    def say(question: AskedQuestion) -> str:
        said = {"n0": "high", "n1": "9", "n2": "1", "n3": "4"}
        return "\n".join(f"{label}: {said[text]}" for label, text in zip(question.labels, question.texts, strict=True))

    scorer = LLMScorer(Saying(say, features=TEXT_ONLY), method="pointwise", grades=9)
    given = [NodeWithScore(node=TextNode(text=f"n{number}")) for number in range(4)]
    found = RerankPostprocessor(model=scorer).postprocess_nodes(given, query_str=QUERY)
    scores = {each.node.get_content(): each.score for each in found}
    assert scores == {"n0": None, "n1": 1.0, "n2": pytest.approx(1 / 9), "n3": pytest.approx(4 / 9)}


# After a cross-encoder, and without any server


def test_one_line_after_a_cross_encoder(server: ChatServer, tiny_models: dict[str, Any]) -> None:
    first = Reranker(f"cross-encoder:{tiny_models['bert']}", device="cpu", top_n=3)
    kept = first.rank("red fox", numbered(8))
    best = Reranker("llm:gpt-x", api_key="k", base_url=server.base_url)
    ranking = best.rank("red fox", first.rank("red fox", numbered(8)))
    assert [hit.document.text for hit in ranking] == sorted((hit.document.text for hit in kept), reverse=True)
    assert [kept[hit.index].document.text for hit in ranking] == [hit.document.text for hit in ranking]
    (request,) = server.posts
    sent = [text for text in numbered(8) if text.encode() in request.body]
    assert len(sent) == 3, "only what the first kept is paid for"


@drivers
async def test_a_transport_takes_the_place_of_the_network(how: str) -> None:
    brain = reading(by_number)

    def answer(request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content)
        said = brain(body["messages"], body)
        choice = {"index": 0, "message": {"role": "assistant", "content": said.text}, "finish_reason": "stop"}
        return httpx.Response(200, json={"id": "1", "object": "chat.completion", "model": "m", "choices": [choice]})

    compressor = RerankCompressor(
        model="llm:gpt-x",
        api_key="k",
        options={"base_url": "http://localhost:1/v1", "transport": httpx.MockTransport(answer)},
    )
    found = await compressed(compressor, how)
    assert [document.metadata["rerank_index"] for document in found] == ORDER


# Round trips

SETTINGS: dict[str, Any] = {"method": "setwise", "strategy": "heap", "window": 3, "top": 2, "answers": "json"}


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_a_named_model_survives_every_round_trip(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    fields = {**named(server, **SETTINGS), "top_n": 2}
    compressor, postprocessor = RerankCompressor(**fields), RerankPostprocessor(**fields)
    revived = loads(dumps(compressor), allowed_objects=[RerankCompressor], valid_namespaces=["uprank"])
    for other in (revived, pickle.loads(pickle.dumps(compressor)), compressor.model_copy()):  # noqa: S301 - our own
        assert other.model_dump() == compressor.model_dump()
        server.requests.clear()
        found = other.compress_documents(DOCUMENTS, QUERY)
        assert [document.metadata["rerank_index"] for document in found] == ORDER[:2]
        assert {body["response_format"]["json_schema"]["name"] for body in server.bodies} == {"choose_passages"}
    by_json = RerankPostprocessor.from_json(postprocessor.to_json())
    for one in (by_json, pickle.loads(pickle.dumps(postprocessor))):  # noqa: S301
        assert one.options == postprocessor.options
        assert [each.node.node_id for each in one.postprocess_nodes(nodes(), query_str=QUERY)] == ["id-900", "id-600"]
    reranker = Reranker("llm:gpt-x", base_url=server.base_url, **SETTINGS)
    again = pickle.loads(pickle.dumps(reranker))  # noqa: S301
    assert again.rank(QUERY, TEXTS).to_dicts() == reranker.rank(QUERY, TEXTS).to_dicts()
    assert again.scorer.plan(30) == reranker.scorer.plan(30)


def test_a_ready_model_is_not_pickled_and_the_error_says_what_to_do(server: ChatServer) -> None:
    for scorer in (LLMScorer(MockChatModel(by_number)), of_langchain(server), of_llama_index(server)):
        for one in (scorer, Reranker(scorer), RerankCompressor(model=scorer)):
            with pytest.raises((TypeError, ConfigurationError), match=r'name it \("llm:<model>"\)'):
                pickle.dumps(one)
        with pytest.raises((TypeError, ConfigurationError), match="by its name"):
            pickle.dumps(RerankPostprocessor(model=scorer))
        with pytest.raises(ConfigurationError, match="by its name"):
            RerankPostprocessor(model=scorer).to_json()


def say_backwards(messages: list[dict[str, str]]) -> str:
    return "[4] > [3] > [2] > [1]"


def test_a_function_that_can_be_imported_is_pickled() -> None:
    reranker = Reranker(LLMScorer(say_backwards, prompt="rank-zephyr", top=3))
    again = pickle.loads(pickle.dumps(reranker))  # noqa: S301
    assert [hit.index for hit in again.rank(QUERY, TEXTS)] == [3, 2, 1, 0]


def test_options_of_the_model_are_checked_when_it_is_made() -> None:
    for cls in (RerankCompressor, RerankPostprocessor):
        with pytest.raises(ValueError, match="Did you mean 'base_url'"):
            cls(model="llm:m", api_key="k", options={"base_ulr": "http://localhost:1"})
        with pytest.raises(ValueError, match="must be one of listwise"):
            cls(model="llm:m", api_key="k", options={"method": "best"})


# A loop that already runs, as in a notebook


async def say_backwards_later(messages: list[dict[str, str]]) -> str:
    await asyncio.sleep(0.001)
    return say_backwards(messages)


@pytest.mark.parametrize("llm", [say_backwards, say_backwards_later], ids=["sync", "async"])
async def test_sync_calls_work_where_a_loop_runs(llm: Any) -> None:
    scorer = LLMScorer(llm, prompt="rank-zephyr")
    reranker = Reranker(scorer)
    assert [hit.index for hit in reranker.rank(QUERY, TEXTS)] == [3, 2, 1, 0]
    assert [len(each) for each in reranker.rank_many([QUERY, "who?"], [TEXTS, TEXTS[:1]])] == [4, 1]
    found = RerankCompressor(model=reranker).compress_documents(DOCUMENTS, QUERY)
    assert [document.metadata["rerank_index"] for document in found] == [3, 2, 1, 0]
    kept = RerankPostprocessor(model=reranker).postprocess_nodes(nodes(), query_str=QUERY)
    assert [each.node.metadata["rerank_index"] for each in kept] == [3, 2, 1, 0]
    assert [hit.index for hit in await reranker.arank(QUERY, TEXTS)] == [3, 2, 1, 0]
    probe = scorer.probe([QUERY], [TEXTS], shuffles=2)
    assert probe == await scorer.aprobe([QUERY], [TEXTS], shuffles=2)


async def test_by_name_sync_calls_work_where_a_loop_runs(server: ChatServer) -> None:
    async with Reranker("llm:gpt-x", api_key="k", base_url=server.base_url) as reranker:
        assert [hit.index for hit in reranker.rank(QUERY, TEXTS)] == ORDER
        assert [hit.index for hit in await reranker.arank(QUERY, TEXTS)] == ORDER
