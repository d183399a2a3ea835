"""What RerankPostprocessor tells LlamaIndex's instrumentation and callbacks: always a start and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload, LlamaDebugHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.events.rerank import ReRankEndEvent, ReRankStartEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from pydantic import Field

from uprank import Reranker, ScorerError
from uprank.llama_index import RerankPostprocessor

QUERY = "red fox"


def shared_words(query: str, texts: list[str]) -> list[float]:
    return [float(len(set(query.split()) & set(text.split()))) for text in texts]


def failing(query: str, texts: list[str]) -> list[float]:
    raise RuntimeError("the scorer is down")


def some_nodes() -> list[NodeWithScore]:
    texts = {"dog": "a lazy dog", "hat": "the red hat", "fox": "red fox den"}
    return [NodeWithScore(node=TextNode(text=text, id_=name), score=0.5) for name, text in texts.items()]


class Events(BaseEventHandler):
    """Keeps the rerank events."""

    seen: list[BaseEvent] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **_: object) -> None:
        if isinstance(event, (ReRankStartEvent, ReRankEndEvent)):
            self.seen.append(event)

    def pair(self) -> tuple[ReRankStartEvent, ReRankEndEvent]:
        """Return the only two events, which are a start and then an end."""
        start, end = self.seen
        assert isinstance(start, ReRankStartEvent)
        assert isinstance(end, ReRankEndEvent)
        return start, end


@pytest.fixture
def events() -> Iterator[Events]:
    handler = Events()
    root = get_dispatcher()
    root.add_event_handler(handler)
    yield handler
    root.event_handlers.remove(handler)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    handler = SimpleSpanHandler(open_spans={}, completed_spans=[], dropped_spans=[])
    root = get_dispatcher()
    root.add_span_handler(handler)
    yield handler
    root.span_handlers.remove(handler)


Call = Callable[[RerankPostprocessor, list[NodeWithScore], "QueryBundle | None"], Awaitable[list[NodeWithScore]]]


async def call_sync(
    postprocessor: RerankPostprocessor, nodes: list[NodeWithScore], query: QueryBundle | None
) -> list[NodeWithScore]:
    return postprocessor.postprocess_nodes(nodes, query)


async def call_async(
    postprocessor: RerankPostprocessor, nodes: list[NodeWithScore], query: QueryBundle | None
) -> list[NodeWithScore]:
    return await postprocessor.apostprocess_nodes(nodes, query)


both = pytest.mark.parametrize(
    ("call", "method"), [(call_sync, "_postprocess_nodes"), (call_async, "_apostprocess_nodes")], ids=["sync", "async"]
)


@both
async def test_one_pair_of_events_in_one_span(
    call: Call, method: str, events: Events, spans: SimpleSpanHandler
) -> None:
    nodes = some_nodes()
    postprocessor = RerankPostprocessor(model=Reranker(shared_words, name="shared-words"), top_n=2)
    result = await call(postprocessor, nodes, QueryBundle(QUERY))
    start, end = events.pair()
    assert start.query == QueryBundle(QUERY)
    assert start.model_name == "shared-words"
    assert start.top_n == 2
    assert [item.score for item in start.nodes] == [0.5, 0.5, 0.5]  # still, after the call
    assert end.nodes == result
    assert [item.score for item in end.nodes] == [2.0, 1.0]
    (span,) = spans.completed_spans
    assert span.id_.startswith(f"RerankPostprocessor.{method}-")
    assert start.span_id == end.span_id == span.id_
    assert spans.open_spans == {}


@both
async def test_top_n_of_the_event_is_a_number_where_none_was_set(call: Call, method: str, events: Events) -> None:
    """A top_n of None made the event itself fail in other rerankers."""
    await call(RerankPostprocessor(model=Reranker(shared_words)), some_nodes(), QueryBundle(QUERY))
    await call(RerankPostprocessor(model=Reranker(shared_words, top_n=1)), some_nodes(), QueryBundle(QUERY))
    assert [event.top_n for event in events.seen if isinstance(event, ReRankStartEvent)] == [3, 1]


@both
async def test_no_nodes_end_what_they_start(call: Call, method: str, events: Events, spans: SimpleSpanHandler) -> None:
    assert await call(RerankPostprocessor(model=Reranker(shared_words)), [], QueryBundle(QUERY)) == []
    start, end = events.pair()
    assert (start.nodes, start.top_n, end.nodes) == ([], 0, [])
    assert start.span_id == end.span_id == spans.completed_spans[0].id_


@both
@pytest.mark.parametrize(
    ("scorer", "query", "error"),
    [
        (failing, QueryBundle(QUERY), ScorerError),
        (shared_words, None, ValueError),
        (shared_words, QueryBundle(" "), ValueError),
    ],
    ids=["scorer fails", "no query", "empty query"],
)
async def test_an_error_ends_what_it_starts(
    call: Call,
    method: str,
    scorer: Callable[[str, list[str]], list[float]],
    query: QueryBundle | None,
    error: type[Exception],
    events: Events,
    spans: SimpleSpanHandler,
) -> None:
    with pytest.raises(error):
        await call(RerankPostprocessor(model=Reranker(scorer)), some_nodes(), query)
    start, end = events.pair()
    assert end.nodes == []
    (span,) = spans.dropped_spans
    assert start.span_id == end.span_id == span.id_
    assert spans.completed_spans == []


@both
async def test_a_degraded_ranking_ends_with_its_nodes(call: Call, method: str, events: Events) -> None:
    postprocessor = RerankPostprocessor(model=Reranker(failing, on_error="passthrough"))
    result = await call(postprocessor, some_nodes(), QueryBundle(QUERY))
    assert events.pair()[1].nodes == result
    assert all(item.metadata["rerank_degraded"] for item in result)


async def test_a_cancelled_call_ends_what_it_started(events: Events, spans: SimpleSpanHandler) -> None:
    async def endless(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(20)
        return []

    debug = LlamaDebugHandler(print_trace_on_end=False)
    postprocessor = RerankPostprocessor(model=Reranker(endless), callback_manager=CallbackManager([debug]))
    task = asyncio.create_task(postprocessor.apostprocess_nodes(some_nodes(), QueryBundle(QUERY)))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    start, end = events.pair()
    assert end.nodes == []
    assert start.span_id == end.span_id == spans.dropped_spans[0].id_
    assert len(debug.get_event_pairs(CBEventType.RERANKING)[0]) == 2


def test_an_interrupt_ends_what_it_stopped(events: Events) -> None:
    def interrupted(query: str, texts: list[str]) -> list[float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        RerankPostprocessor(model=Reranker(interrupted)).postprocess_nodes(some_nodes(), QueryBundle(QUERY))
    start, end = events.pair()
    assert end.nodes == []
    assert start.span_id == end.span_id is not None


@both
async def test_callbacks_get_one_reranking_event(call: Call, method: str) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    manager = CallbackManager([debug])
    reranker = Reranker(shared_words, name="shared-words")
    postprocessor = RerankPostprocessor(model=reranker, top_n=2, callback_manager=manager)
    nodes = some_nodes()
    result = await call(postprocessor, nodes, QueryBundle(f"{QUERY}\n"))
    ((start, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert start.payload == {
        EventPayload.NODES: nodes,
        EventPayload.MODEL_NAME: "shared-words",
        EventPayload.QUERY_STR: QUERY,
        EventPayload.TOP_K: 2,
    }
    assert end.payload == {EventPayload.NODES: result}


@both
async def test_callbacks_get_the_error(call: Call, method: str) -> None:
    debug = LlamaDebugHandler(print_trace_on_end=False)
    postprocessor = RerankPostprocessor(model=Reranker(failing), callback_manager=CallbackManager([debug]))
    with pytest.raises(ScorerError) as raised:
        await call(postprocessor, some_nodes(), QueryBundle(QUERY))
    ((_, end),) = debug.get_event_pairs(CBEventType.RERANKING)
    assert end.payload == {EventPayload.EXCEPTION: raised.value}


async def test_concurrent_calls_keep_their_events_apart(events: Events) -> None:
    async def waits(query: str, texts: list[str]) -> list[float]:
        await asyncio.sleep(0.01)
        return shared_words(query, texts)

    postprocessor = RerankPostprocessor(model=Reranker(waits))
    queries = [f"query {number}" for number in range(8)]
    await asyncio.gather(*(postprocessor.apostprocess_nodes(some_nodes(), query_str=query) for query in queries))
    starts = {event.span_id: event for event in events.seen if isinstance(event, ReRankStartEvent)}
    ends = {event.span_id: event for event in events.seen if isinstance(event, ReRankEndEvent)}
    assert len(starts) == 8
    assert starts.keys() == ends.keys()
    assert None not in starts


class Louder(RerankPostprocessor):
    """A subclass that overrides the async method, as an application may."""

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return (await super()._apostprocess_nodes(nodes, query_bundle))[::-1]


async def test_a_subclass_keeps_the_spans(spans: SimpleSpanHandler) -> None:
    result = await Louder(model=Reranker(shared_words)).apostprocess_nodes(some_nodes(), query_str=QUERY)
    assert result[-1].node_id == "fox"
    inner, outer = spans.completed_spans
    assert inner.parent_id == outer.id_
