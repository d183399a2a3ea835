"""OpenTelemetry: the span of a ranking is current during the call, for what runs within it, and not afterwards."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest
from opentelemetry import trace

from telemetry_seen import Seen, Way, arank, both, broken, length
from uprank import Reranker, ScorerError
from uprank.testing import MockTransport


@pytest.fixture
def seen() -> Seen:
    return Seen()


class Traced(MockTransport):
    """A transport that makes a span for each request, as instrumentations of HTTP clients do."""

    def __init__(self, seen: Seen, **options: object) -> None:
        super().__init__(**options)
        self.seen = seen

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self.seen.tracer.start_as_current_span("POST"):
            return super().handle_request(request)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        with self.seen.tracer.start_as_current_span("POST"):
            return await super().handle_async_request(request)


@both
async def test_spans_of_requests_lie_within_that_of_the_ranking(way: Way, seen: Seen) -> None:
    """Also where a long list becomes several requests, which run in threads or tasks of their own."""
    transport = Traced(seen)
    with Reranker("jina:m", api_key="k", transport=transport, max_documents=2, hooks=[seen.hook()]) as reranker:
        with seen.tracer.start_as_current_span("handler"):
            await way(reranker, "q", [f"text {number}" for number in range(6)])
        if way is arank:
            await reranker.aclose()
    outer, ranking = seen.spans("handler")[0], seen.span()
    assert ranking.parent.span_id == outer.context.span_id
    assert [span.parent.span_id for span in seen.spans("POST")] == [ranking.context.span_id] * 3


@both
@pytest.mark.parametrize("scorer", [length, broken])
async def test_afterwards_the_span_before_is_current_again(
    way: Way, scorer: object, seen: Seen, caplog: pytest.LogCaptureFixture
) -> None:
    reranker = Reranker(scorer, on_error="raise", hooks=[seen.hook(), seen.hook()])
    with seen.tracer.start_as_current_span("outer") as outer:
        try:
            await way(reranker, "q", ["a"])
        except ScorerError:
            assert scorer is broken
        assert trace.get_current_span() is outer
    assert trace.get_current_span() is trace.INVALID_SPAN
    second, first = seen.spans()  # two hooks: the span of the second lies in that of the first
    assert (second.parent.span_id, first.parent.span_id) == (first.context.span_id, outer.context.span_id)
    assert "detach" not in caplog.text


def in_its_own_span(seen: Seen) -> Callable[[str, list[str]], list[float]]:
    def score(query: str, texts: list[str]) -> list[float]:
        with seen.tracer.start_as_current_span(f"score {query}"):
            return length(query, texts)

    return score


def assert_each_lies_in_its_own(seen: Seen, queries: list[str]) -> None:
    asked = {span.context.span_id: span.attributes["reranker.query"] for span in seen.spans()}
    assert sorted(asked.values()) == sorted(queries)
    for query in queries:
        [inner] = seen.spans(f"score {query}")
        assert asked[inner.parent.span_id] == query


def test_calls_from_many_threads_have_spans_of_their_own(seen: Seen) -> None:
    reranker = Reranker(in_its_own_span(seen), hooks=[seen.hook(content=True)])
    queries = [f"q{number}" for number in range(40)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda query: reranker.rank(query, ["a"]), queries))
    assert_each_lies_in_its_own(seen, queries)


async def test_tasks_have_spans_of_their_own(seen: Seen) -> None:
    reranker = Reranker(in_its_own_span(seen), hooks=[seen.hook(content=True)])
    queries = [f"q{number}" for number in range(40)]
    await asyncio.gather(*(reranker.arank(query, ["a"]) for query in queries))
    assert_each_lies_in_its_own(seen, queries)


@pytest.mark.parametrize("way", ["rank_many", "rank_stream"])
def test_queries_ranked_together_have_spans_side_by_side_and_none_is_current(way: str, seen: Seen) -> None:
    reranker = Reranker(in_its_own_span(seen), hooks=[seen.hook(content=True)])
    with seen.tracer.start_as_current_span("outer") as outer:
        if way == "rank_many":
            reranker.rank_many(["p", "q"], [["a"], ["b"]])
        else:
            list(reranker.rank_stream([("p", ["a"]), ("q", ["b"])]))
    spans = [*seen.spans(), *seen.spans("score p"), *seen.spans("score q")]
    assert [span.parent.span_id for span in spans] == [outer.context.span_id] * 4
    assert [span.attributes["reranker.query"] for span in seen.spans()] == ["q", "p"]
