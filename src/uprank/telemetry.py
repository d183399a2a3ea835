"""OpenTelemetry: one span a ranking, with OpenInference's attributes, and metrics."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextvars import Token
from dataclasses import dataclass
from typing import TYPE_CHECKING

from uprank.documents import Document
from uprank.extras import require
from uprank.notes import notes_of
from uprank.observe import Hooks, RankEnd, RankError, RankStart
from uprank.ranking import Ranking
from uprank.scorers.evidence import Attempt
from uprank.validation import RETRIEVAL_SCORE

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider
    from opentelemetry.util.types import AttributeValue

__all__ = ["OpenTelemetry"]

# OpenInference's semantic conventions; see https://arize-ai.github.io/openinference/spec/semantic_conventions.html
SPAN_KIND = "openinference.span.kind"
INPUT_VALUE = "input.value"
RERANKER = "RERANKER"
QUERY = "reranker.query"
MODEL_NAME = "reranker.model_name"
TOP_K = "reranker.top_k"
INPUT_DOCUMENTS = "reranker.input_documents"
OUTPUT_DOCUMENTS = "reranker.output_documents"
CONTENT = "document.content"
ID = "document.id"
SCORE = "document.score"
METADATA = "document.metadata"

# OpenTelemetry's own name for the class of an error, on spans, events and metrics.
ERROR_TYPE = "error.type"

_LIMITS = ("OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT", "OTEL_ATTRIBUTE_COUNT_LIMIT")
_DEFAULT_LIMIT = 128  # of attributes on a span, in OpenTelemetry's specification
_BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)  # seconds

_COUNTERS = {
    "documents": ("{document}", "Documents given to be ranked"),
    "pairs": ("{pair}", "Query-document pairs scored"),
    "tokens": ("{token}", "Tokens read and written by the models, where known"),
    "requests": ("{request}", "Requests sent to services, retries included"),
    "retries": ("{request}", "Requests that repeated one that had failed"),
    "search_units": ("{unit}", "What some services bill by, where they say"),
    "cost": ("{currency}", "Cost at the prices given, where prices are given"),
    "errors": ("{ranking}", "Rankings that were not made"),
    "degraded": ("{ranking}", "Rankings in the original order, or the best that could be had"),
    "attempts": ("{attempt}", "Models that were to answer and did not"),
}


class OpenTelemetry(Hooks):
    """Sends a span and metrics for each ranking: ``Reranker("embedded", hooks=[OpenTelemetry()])``.

    The span is named ``rerank`` and is an OpenInference span of kind ``RERANKER``, with the model, ``top_n`` and the
    documents' ids and scores. Beside these it has ``uprank.usage.*``, ``uprank.degraded``, ``uprank.score_kind``,
    ``uprank.documents.input`` and ``.output`` (counts), and ``uprank.requested_model`` where another one answered.
    Errors are recorded as exceptions, and each model that was to answer and did not as an event
    ``uprank.attempt``, with their messages as they are.

    The span is the current one during the call, so that spans of HTTP clients and language models lie within it.
    Several queries of one ``rank_many`` have a span each, none of them current, which last as long as the call.
    Within LangChain the span lies below that of OpenInference's instrumentor, which itself has no rerankers;
    within LlamaIndex the instrumentor's own span of the rerank gets the ``uprank.*`` attributes instead.

    The metrics, all with ``reranker.model_name`` (the model that answered): ``uprank.rerank.duration``, a histogram
    in seconds, with ``error.type`` where it failed, and the counters ``uprank.rerank.documents``, ``.pairs``,
    ``.tokens``, ``.requests``, ``.retries``, ``.search_units``, ``.cost``, ``.errors``, ``.degraded`` and
    ``.attempts``.

    Args:
        tracer_provider: Makes the spans; by default OpenTelemetry's global one.
        meter_provider: Makes the metrics; likewise.
        content: Whether spans hold texts: the query, and the documents' texts and metadata.
        max_attributes: How many attributes a span may have; documents that would exceed it are left out, the
            lowest first. By default ``OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT`` or 128, as OpenTelemetry's SDK has it.

    Raises:
        MissingDependencyError: If ``opentelemetry-api`` is not installed.
    """

    def __init__(
        self,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        *,
        content: bool = False,
        max_attributes: int | None = None,
    ) -> None:
        require("OpenTelemetry", "telemetry", "opentelemetry.trace")
        from opentelemetry import metrics, trace

        from uprank import __version__

        self._made_of = (tracer_provider, meter_provider, content, max_attributes)
        self._content = content
        self._limit = _limit() if max_attributes is None else max_attributes
        self._tracer = trace.get_tracer("uprank", __version__, tracer_provider)
        meter = metrics.get_meter("uprank", __version__, meter_provider)
        self._duration = meter.create_histogram(
            "uprank.rerank.duration",
            unit="s",
            description="Duration of a call that ranks",
            explicit_bucket_boundaries_advisory=_BUCKETS,
        )
        self._counters = {
            name: meter.create_counter(f"uprank.rerank.{name}", unit=unit, description=description)
            for name, (unit, description) in _COUNTERS.items()
        }

    def __reduce__(self) -> tuple[object, ...]:
        return _remake, self._made_of  # made anew where it is unpickled; a provider given must be fit for it

    def on_start(self, start: RankStart) -> object:
        from opentelemetry import context, trace

        current = trace.get_current_span()
        if start.reported_by == "llama_index" and _is_of(current, "openinference.instrumentation.llama_index"):
            return _Open(current, None, shared=True)
        attributes: dict[str, AttributeValue] = {SPAN_KIND: RERANKER, MODEL_NAME: start.model}
        if start.top_n is not None:
            attributes[TOP_K] = start.top_n
        span = self._tracer.start_span("rerank", _parent(current), attributes=attributes)
        alone = start.queries == 1  # what is done for several queries at once lies within none of their spans
        return _Open(span, context.attach(trace.set_span_in_context(span)) if alone else None)

    def on_end(self, end: RankEnd) -> None:
        opened, ranking = _opened(end.token), end.ranking
        try:
            self._count(end)
            if opened.span.is_recording():
                for attempt in ranking.attempts:
                    opened.span.add_event("uprank.attempt", _attempt(attempt))
                self._describe(opened, end.start, ranking)
        finally:
            opened.close()

    def on_error(self, error: RankError) -> None:
        from opentelemetry.trace import Status, StatusCode

        opened, kind = _opened(error.token), type(error.error).__name__
        labels = {MODEL_NAME: error.start.model, ERROR_TYPE: kind}
        try:
            self._duration.record(error.elapsed, labels)
            self._counters["errors"].add(1, labels)
            self._counters["documents"].add(len(error.start.documents), {MODEL_NAME: error.start.model})
            if opened.span.is_recording() and not opened.shared:
                self._describe(opened, error.start, None)
                opened.span.set_attribute(ERROR_TYPE, kind)
                opened.span.record_exception(error.error)
                opened.span.set_status(Status(StatusCode.ERROR, f"{kind}: {error.error}"))
        finally:
            opened.close()

    def _describe(self, opened: _Open, start: RankStart, ranking: Ranking | None) -> None:
        own = _outcome(start, ranking)
        if opened.shared:
            opened.span.set_attributes(own)
            return
        own |= {SPAN_KIND: RERANKER, MODEL_NAME: start.model if ranking is None else ranking.model}
        if start.top_n is not None:
            own[TOP_K] = start.top_n
        if self._content:
            own |= {QUERY: start.query, INPUT_VALUE: start.query}
        room = self._limit - len(own) - 1  # one for error.type
        for document in self._documents(start, ranking):
            if len(document) > room:
                break
            opened.span.set_attributes(document)
            room -= len(document)
        # Last, so that where a lower limit is set in code, documents go and not these.
        opened.span.set_attributes(own)

    def _documents(self, start: RankStart, ranking: Ranking | None) -> Iterator[dict[str, AttributeValue]]:
        """The attributes of each document: first of those that came out, best first, then of those that went in."""
        for number, hit in enumerate(ranking or ()):
            assert ranking is not None  # noqa: S101 - for the type checker: it has a hit
            about = notes_of(ranking, hit) if self._content else _without_text(notes_of(ranking, hit))
            yield self._document(f"{OUTPUT_DOCUMENTS}.{number}.", hit.document, hit.score, about)
        for number, document in enumerate(start.documents):
            score = document.metadata.get(RETRIEVAL_SCORE)
            known = isinstance(score, (int, float)) and not isinstance(score, bool)
            yield self._document(f"{INPUT_DOCUMENTS}.{number}.", document, score if known else None, {})

    def _document(
        self, prefix: str, document: Document, score: float | None, about: Mapping[str, object]
    ) -> dict[str, AttributeValue]:
        found: dict[str, AttributeValue] = {}
        if document.id is not None:
            found[prefix + ID] = document.id
        if score is not None:
            found[prefix + SCORE] = float(score)
        metadata = {**document.metadata, **about} if self._content else about
        if metadata:
            found[prefix + METADATA] = _as_json(metadata)
        if self._content:
            found[prefix + CONTENT] = document.text
        return found

    def _count(self, end: RankEnd) -> None:
        ranking, usage = end.ranking, end.ranking.usage
        labels = {MODEL_NAME: ranking.model}
        self._duration.record(end.elapsed, labels)
        counts = {
            "documents": len(end.start.documents),
            "pairs": usage.pairs,
            "tokens": usage.tokens,
            "requests": usage.requests,
            "retries": usage.retries,
            "search_units": usage.search_units,
            "cost": usage.cost,
            "degraded": int(ranking.degraded),
        }
        for name, count in counts.items():
            if count:
                self._counters[name].add(count, labels)
        for attempt in ranking.attempts:
            self._counters["attempts"].add(1, {MODEL_NAME: attempt.model, ERROR_TYPE: attempt.kind})


@dataclass(frozen=True, slots=True)
class _Open:
    """A span that is under way.

    Args:
        span: Ours, or one that a framework's instrumentation made for the same rerank.
        token: By which the context before is restored; ``None`` where the span is not current.
        shared: Whether it is not ours to end.
    """

    span: Span
    token: Token[Context] | None
    shared: bool = False

    def close(self) -> None:
        from opentelemetry import context

        if self.token is not None:
            context.detach(self.token)
        if not self.shared:
            self.span.end()


def _opened(token: object) -> _Open:
    assert isinstance(token, _Open)  # noqa: S101 - what on_start returned
    return token


def _outcome(start: RankStart, ranking: Ranking | None) -> dict[str, AttributeValue]:
    """What OpenInference has no names for."""
    found: dict[str, AttributeValue | None] = {"uprank.documents.input": len(start.documents)}
    if start.threshold is not None:
        found["uprank.threshold"] = start.threshold
    if ranking is not None:
        found |= {
            "uprank.documents.output": len(ranking),
            "uprank.degraded": ranking.degraded,
            "uprank.score_kind": ranking.score_kind,
            "uprank.requested_model": None if ranking.model == start.model else start.model,
        }
        usage = ranking.usage
        for name in ("pairs", "tokens", "search_units", "requests", "retries", "cost"):
            found[f"uprank.usage.{name}"] = getattr(usage, name)
    return {name: value for name, value in found.items() if value is not None}


def _attempt(attempt: Attempt) -> dict[str, AttributeValue]:
    return {
        MODEL_NAME: attempt.model,
        ERROR_TYPE: attempt.kind,
        "exception.message": attempt.error,
        "uprank.seconds": attempt.seconds,
    }


def _as_json(metadata: Mapping[str, object]) -> str:
    try:
        return json.dumps(metadata, default=str, ensure_ascii=False, skipkeys=True)
    except (ValueError, RecursionError):  # it holds itself
        return json.dumps({"uprank": "not fit for JSON"})


def _without_text(notes: Mapping[str, object]) -> dict[str, object]:
    return {key: value for key, value in notes.items() if key != "rerank_passage"}


def _limit() -> int:
    for name in _LIMITS:
        value = os.environ.get(name, "").strip()
        if value.isdecimal():
            return int(value)
    return _DEFAULT_LIMIT


def _is_of(span: Span, package: str) -> bool:
    return type(span).__module__.startswith(package)


def _parent(current: Span) -> Context | None:
    """The context to start a span in; ``None`` for the current one.

    OpenInference's instrumentor of LangChain keeps its spans aside and makes none current. Where the call is part
    of such a run, its span is the parent, unless the current one was started later and so lies within it.
    """
    module = sys.modules.get("openinference.instrumentation.langchain")
    try:
        if module is None or not module.LangChainInstrumentor().is_instrumented_by_opentelemetry:
            return None  # asked for first: without it, get_current_span() would print
        run: Span | None = module.get_current_span()
    except Exception:  # another project's module: a span without this parent is better than none
        return None
    if run is None or _started(current) > _started(run):
        return None
    from opentelemetry.trace import set_span_in_context

    return set_span_in_context(run)


def _started(span: Span) -> int:
    """When, in nanoseconds since the epoch; 0 where that cannot be told, as of a span of another process."""
    started: object = getattr(span, "start_time", None)
    return started if isinstance(started, int) else 0


def _remake(
    tracer_provider: TracerProvider | None,
    meter_provider: MeterProvider | None,
    content: bool,  # noqa: FBT001 - as it was given
    max_attributes: int | None,
) -> OpenTelemetry:
    return OpenTelemetry(tracer_provider, meter_provider, content=content, max_attributes=max_attributes)
