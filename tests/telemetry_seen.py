"""What the tests of OpenTelemetry share: spans and metrics as the SDK exports them, and ways to rank."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from uprank import Reranker
from uprank.telemetry import OpenTelemetry


class Seen:
    """What a tracer and a meter exported."""

    def __init__(self, **options: object) -> None:
        self.exporter, self.reader = InMemorySpanExporter(), InMemoryMetricReader()
        self.tracers, self.meters = TracerProvider(**options), MeterProvider([self.reader])
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.tracers.get_tracer("test")

    def hook(self, **options: object) -> OpenTelemetry:
        return OpenTelemetry(self.tracers, self.meters, **options)

    def spans(self, name: str = "rerank") -> list[ReadableSpan]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def span(self) -> ReadableSpan:
        [span] = self.spans()
        return span

    def points(self) -> dict[str, list[tuple[dict[str, object], float]]]:
        """Attributes and value (of the histogram, the count) of each metric."""
        [resource] = self.reader.get_metrics_data().resource_metrics
        [scope] = resource.scope_metrics
        found = {}
        for metric in scope.metrics:
            points = metric.data.data_points
            found[metric.name] = [(dict(p.attributes), getattr(p, "value", getattr(p, "count", 0))) for p in points]
        return found


def length(query: str, texts: list[str]) -> list[float]:
    return [float(len(text)) for text in texts]


def broken(query: str, texts: list[str]) -> list[float]:
    raise ConnectionError("the server is down")


Way = Callable[[Reranker, str, "list[object]"], Awaitable[object]]


async def rank(reranker: Reranker, query: str, documents: list[object]) -> object:
    return reranker.rank(query, documents)


async def arank(reranker: Reranker, query: str, documents: list[object]) -> object:
    return await reranker.arank(query, documents)


both = pytest.mark.parametrize("way", [rank, arank])
