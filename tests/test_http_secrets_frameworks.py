"""What pickles, JSON, tracers, events and spans hold of a key: nothing. What is unpickled asks the environment."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.load import dumps
from langchain_core.retrievers import BaseRetriever
from langchain_core.tracers.base import BaseTracer
from langchain_core.tracers.schemas import Run
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.span import SimpleSpan
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.schema import NodeWithScore, TextNode
from pydantic import Field, SecretStr, ValidationError

from planted import CASES, HEADER, KEY, PASSWORD, TEXTS, Case, hidden, unshown
from rerank_servers import RerankServer, serve, status
from uprank import ConfigurationError, Reranker
from uprank.errors import AuthenticationError
from uprank.langchain import RerankCompressor, RerankRetriever
from uprank.llama_index import RerankPostprocessor
from uprank.scorers import CohereScorer, HTTPScorer

DOCUMENTS = [Document(text) for text in TEXTS]
NODES = [NodeWithScore(node=TextNode(text=text)) for text in TEXTS]
QUERY = "capital of France?"


class Found(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: object) -> list[Document]:
        return DOCUMENTS


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Case:
    for variable in ("CO_API_KEY", "COHERE_API_KEY", *(case.variable for case in CASES.values())):
        monkeypatch.delenv(variable, raising=False)
    return request.param


@pytest.fixture
def server(case: Case) -> Iterator[RerankServer]:
    with serve(case.scheme, key=KEY) as running:
        yield running


def planted(server: RerankServer) -> dict[str, Any]:
    """All three secrets; the server is its own proxy."""
    proxy = server.url.replace("://", f"://user:{PASSWORD}@")
    return {"api_key": KEY, "headers": {"X-Client-Secret": HEADER, "X-Plain": "v"}, "proxy": proxy}


def compressor(case: Case, options: dict[str, Any]) -> RerankCompressor:
    return RerankCompressor(model=case.model, api_key=SecretStr(KEY), options=options)


def retriever(case: Case, options: dict[str, Any]) -> RerankRetriever:
    return RerankRetriever(model=case.model, base_retriever=Found(), api_key=SecretStr(KEY), options=options)


def postprocessor(case: Case, options: dict[str, Any]) -> RerankPostprocessor:
    return RerankPostprocessor(model=case.model, api_key=SecretStr(KEY), options=options)


FRAMEWORKS: dict[str, Callable[..., Any]] = {
    "compressor": compressor,
    "retriever": retriever,
    "postprocessor": postprocessor,
}
CALLS: dict[type, Callable[[Any], int]] = {
    Reranker: lambda made: len(made.rank(QUERY, TEXTS)),
    HTTPScorer: lambda made: len(made.score(QUERY, TEXTS).values),
    CohereScorer: lambda made: len(made.score(QUERY, TEXTS).values),
    RerankCompressor: lambda made: len(made.compress_documents(DOCUMENTS, QUERY)),
    RerankRetriever: lambda made: len(made.invoke(QUERY)),
    RerankPostprocessor: lambda made: len(made.postprocess_nodes(NODES, query_str=QUERY)),
}
PICKLED: dict[str, Callable[[Case, RerankServer], Any]] = {
    "Reranker": lambda case, server: Reranker(case.model, base_url=server.base_url, max_retries=0, **planted(server)),
    "scorer": lambda case, server: (
        Reranker(case.model, base_url=server.base_url, max_retries=0, **planted(server)).scorer
    ),
    "compressor": lambda case, server: compressor(case, {"base_url": server.base_url, "max_retries": 0}),
    "retriever": lambda case, server: retriever(case, {"base_url": server.base_url, "max_retries": 0}),
    "postprocessor": lambda case, server: postprocessor(case, {"base_url": server.base_url, "max_retries": 0}),
    "compressor of a Reranker": lambda case, server: RerankCompressor(model=PICKLED["Reranker"](case, server)),
    "postprocessor of a Reranker": lambda case, server: RerankPostprocessor(model=PICKLED["Reranker"](case, server)),
}


@pytest.mark.parametrize("make", PICKLED.values(), ids=PICKLED)
def test_a_pickle_holds_no_secret_and_works_with_the_key_of_the_environment(
    case: Case, server: RerankServer, make: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = make(case, server)
    call = CALLS[type(made)]
    assert call(made) == 3  # so that its clients, which hold the key, are there
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        hidden(pickle.dumps(made, protocol))
    data = pickle.dumps(made)
    with pytest.raises(AuthenticationError) as caught:
        call(pickle.loads(data))  # noqa: S301 - our own
    if case.scheme == "tei":
        assert "HTTP 401" in str(caught.value)
    assert f"set the environment variable {case.variable}" in str(caught.value)
    monkeypatch.setenv(case.variable, KEY)
    sent = len(server.posts)
    assert call(pickle.loads(data)) == 3  # noqa: S301
    assert KEY in server.posts[sent].headers[case.header]
    assert "x-client-secret" not in server.posts[sent].headers
    if "proxy-authorization" in server.posts[0].headers:
        assert server.posts[sent].target.startswith("http://"), "the proxy itself must be kept"


@pytest.mark.parametrize("scheme", ["jina", "pinecone", "cohere"])
def test_unpickled_without_a_key_a_hosted_model_says_what_to_do(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no server was named, there is no sense in a call without a key."""
    case = CASES[scheme]
    for variable in (case.variable, "COHERE_API_KEY"):
        monkeypatch.delenv(variable, raising=False)
    for made in (Reranker(case.model, api_key=KEY), *(make(case, {}) for make in FRAMEWORKS.values())):
        data = pickle.dumps(made)
        hidden(data)
        with pytest.raises(ConfigurationError, match=f"needs a key.*{case.variable}"):
            pickle.loads(data)  # noqa: S301
        monkeypatch.setenv(case.variable, KEY)
        assert type(pickle.loads(data)) is type(made)  # noqa: S301
        monkeypatch.delenv(case.variable)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_json_and_reprs_hold_no_secret(case: Case, server: RerankServer, framework: str) -> None:
    make = FRAMEWORKS[framework]
    made = make(case, {"base_url": server.base_url})
    assert CALLS[type(made)](made) == 3
    hidden(repr(made), str(made), made.model_dump(), made.model_dump_json(), vars(made), made.model_copy())
    if framework == "postprocessor":
        hidden(made.to_json(), made.to_dict())
    else:
        hidden(dumps(made), dumps(made, pretty=True), made.to_json())
    ready = Reranker(case.model, base_url=server.base_url, **planted(server))
    if framework != "retriever":
        over = type(made)(model=ready)
        hidden(repr(over), dumps(over) if framework == "compressor" else over.to_dict(), vars(over))


@pytest.mark.parametrize("framework", FRAMEWORKS)
@pytest.mark.parametrize(
    "options",
    [
        {"headers": {"Authorization": f"Bearer {HEADER}"}},
        {"headers": {"X-Auth-Key": HEADER}},
        {"proxy": f"http://user:{PASSWORD}@127.0.0.1:9"},
        {"base_url": f"http://user:{PASSWORD}@127.0.0.1:9"},
        {"timeout": -1},
    ],
    ids=lambda options: next(iter(options)),
)
def test_options_that_would_be_shown_are_refused_without_showing_them(
    framework: str, options: dict[str, object]
) -> None:
    with pytest.raises((ValidationError, ConfigurationError)) as caught:
        FRAMEWORKS[framework](CASES["jina"], options)
    hidden(caught.value, repr(caught.value))


class Recorder(BaseTracer):
    """Keeps whole runs, as LangSmith's tracer would send them."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("ok", [True, False], ids=["success", "failure"])
@pytest.mark.parametrize("framework", ["compressor", "retriever"])
async def test_langchain_runs_hold_no_secret(
    case: Case, server: RerankServer, framework: str, ok: bool, how: str
) -> None:
    if not ok:
        server.fail_always(status(401, message=f"no such key: {KEY}"))
    made, recorder = FRAMEWORKS[framework](case, {"base_url": server.base_url}), Recorder()
    given: Any = {"query": QUERY, "documents": DOCUMENTS} if framework == "compressor" else QUERY
    error: Exception | None = None
    try:
        if how == "sync":
            made.invoke(given, {"callbacks": [recorder]})
        else:
            await made.ainvoke(given, {"callbacks": [recorder]})
    except AuthenticationError as refused:
        error = refused
    assert (error is None) is ok
    (run,) = recorder.runs
    runs = (run, *run.child_runs)
    texts = [text for each in runs for text in (each.model_dump_json(), repr(vars(each)), str(each.error))]
    assert any(case.model in text for text in texts)
    hidden(*texts)
    if error is not None:
        assert "HTTP 401" in str(run.error)
        unshown(error)


class Events(BaseEventHandler):
    seen: list[str] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "Events"

    def handle(self, event: Any, **kwargs: Any) -> None:
        self.seen.append(f"{event!r} {event.model_dump()} {kwargs}")


class Spans(SimpleSpanHandler):
    """Keeps what LlamaIndex hands to every span handler, the arguments and the object included."""

    seen: list[str] = Field(default_factory=list)

    def new_span(self, id_: str, bound_args: Any, instance: Any = None, **kwargs: Any) -> SimpleSpan | None:
        self.seen.append(f"{bound_args} {instance!r} {kwargs}")
        return super().new_span(id_, bound_args, instance, **kwargs)

    def prepare_to_drop_span(self, id_: str, bound_args: Any, **kwargs: Any) -> SimpleSpan | None:
        self.seen.append(f"{bound_args} {kwargs}")
        return super().prepare_to_drop_span(id_, bound_args, **kwargs)


@pytest.mark.parametrize("how", ["sync", "async"])
@pytest.mark.parametrize("ok", [True, False], ids=["success", "failure"])
async def test_llama_index_events_and_spans_hold_no_secret(
    case: Case, server: RerankServer, ok: bool, how: str
) -> None:
    if not ok:
        server.fail_always(status(401, message=f"no such key: {KEY}"))
    made, root = postprocessor(case, {"base_url": server.base_url}), get_dispatcher()
    events, spans = Events(), Spans(open_spans={}, completed_spans=[], dropped_spans=[])
    root.add_event_handler(events)
    root.add_span_handler(spans)
    error: Exception | None = None
    try:
        if how == "sync":
            made.postprocess_nodes(NODES, query_str=QUERY)
        else:
            await made.apostprocess_nodes(NODES, query_str=QUERY)
    except AuthenticationError as refused:
        error = refused
    finally:
        root.event_handlers.remove(events)
        root.span_handlers.remove(spans)
    assert (error is None) is ok
    assert len(events.seen) >= 2
    assert spans.seen
    ended = spans.completed_spans if ok else spans.dropped_spans
    assert ended
    hidden(*events.seen, *spans.seen, *(repr(span) for span in ended), *(span.model_dump() for span in ended))
