"""OpenTelemetry: what the span of a ranking holds, and the metrics, with OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import subprocess
import sys
from collections.abc import Sequence

import pytest
from openinference.semconv.trace import (
    DocumentAttributes,
    OpenInferenceSpanKindValues,
    RerankerAttributes,
    SpanAttributes,
)
from opentelemetry import trace
from opentelemetry.sdk.trace import SpanLimits
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import StatusCode

from telemetry_seen import Seen, Way, both, broken, length
from uprank import Document, MissingDependencyError, Reranker, ScorerError, telemetry
from uprank.scorers.base import Scorer, Scores, Usage
from uprank.scorers.evidence import Attempt, Evidence, Passage
from uprank.telemetry import OpenTelemetry

SECRET_QUERY, SECRET_TEXT, SECRET_NOTE = "plover", "curlew", "avocet"


@pytest.fixture
def seen() -> Seen:
    return Seen()


class Telling(Scorer):
    """Tells all that a scorer may tell."""

    name = "first"
    score_kind = "logit"

    def score(self, query: str, texts: Sequence[str], *, instruction: str | None = None) -> Scores:
        return Scores(
            [float(len(text)) for text in texts],
            "logit",
            usage=Usage(tokens=30, search_units=1.0, requests=3, retries=1, cost=0.5),
            degraded=True,
            model="second",
            attempts=(Attempt("first", "no answer", "RateLimitError", 0.25),),
            evidence=[Evidence(passage=Passage(0, 2, text[:2]), truncated=True) for text in texts],
        )


def test_the_names_are_openinferences() -> None:
    assert SpanAttributes.OPENINFERENCE_SPAN_KIND == telemetry.SPAN_KIND
    assert OpenInferenceSpanKindValues.RERANKER.value == telemetry.RERANKER
    for name in ("QUERY", "MODEL_NAME", "TOP_K", "INPUT_DOCUMENTS", "OUTPUT_DOCUMENTS"):
        assert getattr(telemetry, name) == getattr(RerankerAttributes, f"RERANKER_{name}")
    for name in ("CONTENT", "ID", "SCORE", "METADATA"):
        assert getattr(telemetry, name) == getattr(DocumentAttributes, f"DOCUMENT_{name}")
    assert SpanAttributes.INPUT_VALUE == telemetry.INPUT_VALUE


DOCUMENTS = [
    Document("a", id="one", metadata={"retrieval_score": 0.25, "page": 3}),
    Document("ccc", id="three"),
    Document("bb"),
]


@both
async def test_a_span_with_content(way: Way, seen: Seen) -> None:
    reranker = Reranker(length, name="length", top_n=2, threshold=0.5, hooks=[seen.hook(content=True)])
    await way(reranker, "what?", DOCUMENTS)

    span = seen.span()
    assert (span.parent, span.status.status_code) == (None, StatusCode.UNSET)
    assert span.instrumentation_scope.name == "uprank"
    assert dict(span.attributes) == {
        "openinference.span.kind": "RERANKER",
        "input.value": "what?",
        "reranker.query": "what?",
        "reranker.model_name": "length",
        "reranker.top_k": 2,
        "reranker.input_documents.0.document.id": "one",
        "reranker.input_documents.0.document.content": "a",
        "reranker.input_documents.0.document.score": 0.25,
        "reranker.input_documents.0.document.metadata": '{"retrieval_score": 0.25, "page": 3}',
        "reranker.input_documents.1.document.id": "three",
        "reranker.input_documents.1.document.content": "ccc",
        "reranker.input_documents.2.document.content": "bb",
        "reranker.output_documents.0.document.id": "three",
        "reranker.output_documents.0.document.content": "ccc",
        "reranker.output_documents.0.document.score": 3.0,
        "reranker.output_documents.0.document.metadata": '{"rerank_index": 1}',
        "reranker.output_documents.1.document.content": "bb",
        "reranker.output_documents.1.document.score": 2.0,
        "reranker.output_documents.1.document.metadata": '{"rerank_index": 2}',
        "uprank.documents.input": 3,
        "uprank.documents.output": 2,
        "uprank.degraded": False,
        "uprank.score_kind": "logit",
        "uprank.threshold": 0.5,
        "uprank.usage.pairs": 3,
        "uprank.usage.requests": 0,
        "uprank.usage.retries": 0,
    }


@both
async def test_by_default_no_span_holds_a_text(way: Way, seen: Seen) -> None:
    documents = [Document(SECRET_TEXT, id="one", metadata={"note": SECRET_NOTE, "retrieval_score": 0.5})]
    for model in (length, Telling()):
        await way(Reranker(model, hooks=[seen.hook()]), SECRET_QUERY, documents)
    with pytest.raises(ScorerError):
        await way(Reranker(broken, hooks=[seen.hook()]), SECRET_QUERY, documents)

    shown = "".join(span.to_json() for span in seen.spans())
    assert len(seen.spans()) == 3
    assert '"one"' in shown  # ids and scores are there
    assert '"reranker.input_documents.0.document.score": 0.5' in shown
    for secret in (SECRET_QUERY, SECRET_TEXT, SECRET_NOTE, '"cu"'):
        assert secret not in shown


@both
async def test_usage_degraded_and_the_models_that_did_not_answer(way: Way, seen: Seen) -> None:
    await way(Reranker(Telling(), hooks=[seen.hook(content=True)]), "q", ["abc"])

    span = seen.span()
    told = {name: value for name, value in span.attributes.items() if name.startswith("uprank.")}
    assert told == {
        "uprank.documents.input": 1,
        "uprank.documents.output": 1,
        "uprank.degraded": True,
        "uprank.score_kind": "logit",
        "uprank.requested_model": "first",
        "uprank.usage.pairs": 1,
        "uprank.usage.tokens": 30,
        "uprank.usage.search_units": 1.0,
        "uprank.usage.requests": 3,
        "uprank.usage.retries": 1,
        "uprank.usage.cost": 0.5,
    }
    assert span.attributes["reranker.model_name"] == "second"
    assert "reranker.top_k" not in span.attributes
    [event] = span.events
    assert event.name == "uprank.attempt"
    assert dict(event.attributes) == {
        "reranker.model_name": "first",
        "error.type": "RateLimitError",
        "exception.message": "no answer",
        "uprank.seconds": 0.25,
    }
    assert json.loads(span.attributes["reranker.output_documents.0.document.metadata"]) == {
        "rerank_degraded": True,
        "rerank_index": 0,
        "rerank_model": "second",
        "rerank_passage": "ab",
        "rerank_passage_start": 0,
        "rerank_truncated": True,
    }


@both
async def test_a_failure_is_recorded(way: Way, seen: Seen) -> None:
    with pytest.raises(ScorerError):
        await way(Reranker(broken, name="down", hooks=[seen.hook(content=True)]), "q", ["a"])

    span = seen.span()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description == "ScorerError: down failed with ConnectionError: the server is down"
    assert span.attributes["error.type"] == "ScorerError"
    assert span.attributes["reranker.input_documents.0.document.content"] == "a"
    assert [event.attributes["exception.message"] for event in span.events] == [
        "down failed with ConnectionError: the server is down"
    ]


async def test_a_cancelled_call_ends_its_span(seen: Seen) -> None:
    started = asyncio.Event()

    async def stuck(query: str, texts: list[str]) -> list[float]:
        started.set()
        await asyncio.sleep(60)
        return length(query, texts)

    task = asyncio.create_task(Reranker(stuck, hooks=[seen.hook()]).arank("q", ["a"]))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert seen.span().attributes["error.type"] == "CancelledError"


@pytest.mark.parametrize(
    ("variables", "limits", "hook", "shown"),
    [
        ({}, {}, {}, (20, 8)),  # 128 - 12 of the ranking - 1 for an error are 28 documents of 4 attributes
        ({"OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT": "60"}, {}, {}, (11, 0)),
        ({"OTEL_ATTRIBUTE_COUNT_LIMIT": "1000"}, {}, {}, (20, 100)),
        ({}, {"max_span_attributes": 1000}, {"max_attributes": 1000}, (20, 100)),
        ({}, {}, {"max_attributes": 16}, (0, 0)),
    ],
)
def test_what_matters_is_never_pushed_out_by_documents(
    monkeypatch: pytest.MonkeyPatch,
    variables: dict[str, str],
    limits: dict[str, int],
    hook: dict[str, int],
    shown: tuple[int, int],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The SDK keeps 128 attributes by default and drops the oldest: with 100 documents, those that say what it is."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    seen = Seen(span_limits=SpanLimits(**limits))
    documents = [
        Document("x" * (number + 1), id=str(number), metadata={"retrieval_score": 0.5}) for number in range(100)
    ]
    Reranker(length, top_n=20, hooks=[seen.hook(content=True, **hook)]).rank("q", documents)

    attributes = seen.span().attributes
    assert seen.span().dropped_attributes == 0
    assert "full" not in caplog.text  # the SDK's warning
    assert (attributes["openinference.span.kind"], attributes["reranker.query"]) == ("RERANKER", "q")
    for kind, count in zip(("output", "input"), shown, strict=True):
        found = [name for name in attributes if name.startswith(f"reranker.{kind}_documents.")]
        assert found == [
            f"reranker.{kind}_documents.{number}.document.{part}"
            for number in range(count)
            for part in ("id", "score", "metadata", "content")
        ]
    if shown[0]:
        assert attributes["reranker.output_documents.0.document.id"] == "99"


def test_a_lower_limit_set_in_code_leaves_what_matters() -> None:
    seen = Seen(span_limits=SpanLimits(max_span_attributes=12))
    Reranker(length, top_n=5, hooks=[seen.hook()]).rank("q", [Document("x" * n, id="i") for n in range(1, 30)])
    assert {"openinference.span.kind", "reranker.model_name", "reranker.top_k"} <= seen.span().attributes.keys()


def test_metadata_that_is_not_fit_for_json_is_shown_as_far_as_it_goes(seen: Seen) -> None:
    circular: dict[str, object] = {}
    circular["self"] = circular
    documents = [Document("a", metadata={"lock": seen, ("a", "b"): 1}), Document("bb", metadata=circular)]
    ranking = Reranker(length, hooks=[seen.hook(content=True)]).rank("q", documents)
    assert [hit.document for hit in ranking] == documents[::-1]
    attributes = seen.span().attributes
    assert "Seen object" in attributes["reranker.input_documents.0.document.metadata"]
    assert json.loads(attributes["reranker.input_documents.1.document.metadata"]) == {"uprank": "not fit for JSON"}


def test_metrics(seen: Seen) -> None:
    hook = seen.hook()
    for _ in range(2):
        Reranker(Telling(), hooks=[hook]).rank("q", ["abc", "de"])
    Reranker(length, name="length", hooks=[hook]).rank("q", ["a"])
    with pytest.raises(ScorerError):
        Reranker(broken, name="down", hooks=[hook]).rank("q", ["a", "b", "c"])

    second, own, down = ({"reranker.model_name": name} for name in ("second", "length", "down"))
    failed = {**down, "error.type": "ScorerError"}
    assert seen.points() == {
        "uprank.rerank.duration": [(second, 2), (own, 1), (failed, 1)],
        "uprank.rerank.documents": [(second, 4), (own, 1), (down, 3)],
        "uprank.rerank.pairs": [(second, 4), (own, 1)],
        "uprank.rerank.tokens": [(second, 60)],
        "uprank.rerank.requests": [(second, 6)],
        "uprank.rerank.retries": [(second, 2)],
        "uprank.rerank.search_units": [(second, 2.0)],
        "uprank.rerank.cost": [(second, 1.0)],
        "uprank.rerank.degraded": [(second, 2)],
        "uprank.rerank.attempts": [({"reranker.model_name": "first", "error.type": "RateLimitError"}, 2)],
        "uprank.rerank.errors": [(failed, 1)],
    }


def test_durations_are_seconds_in_buckets_of_milliseconds_and_more(seen: Seen) -> None:
    """The SDK's default buckets begin at 5, as if of milliseconds: all rerankers would look alike."""
    ranking = Reranker(length, hooks=[seen.hook()]).rank("q", ["a"])
    [resource] = seen.reader.get_metrics_data().resource_metrics
    [duration] = [m for m in resource.scope_metrics[0].metrics if m.name == "uprank.rerank.duration"]
    [point] = duration.data.data_points
    assert (duration.unit, point.sum) == ("s", ranking.elapsed)
    assert (point.explicit_bounds[0], point.explicit_bounds[-1]) == (0.001, 60.0)


def test_a_sampler_that_drops_spans_leaves_the_metrics() -> None:
    seen = Seen(sampler=ALWAYS_OFF)
    Reranker(length, hooks=[seen.hook(content=True)]).rank("q", ["a"])
    assert seen.spans() == []
    assert seen.points()["uprank.rerank.documents"][0][1] == 1


def test_without_an_sdk_it_does_nothing() -> None:
    assert len(Reranker(length, hooks=[OpenTelemetry()]).rank("q", ["a"])) == 1


def test_a_reranker_with_it_can_be_pickled() -> None:
    hook = pickle.loads(pickle.dumps(OpenTelemetry(content=True, max_attributes=7)))  # noqa: S301 - our own
    assert (hook._content, hook._limit) == (True, 7)


def test_without_the_package_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opentelemetry", None)
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    with pytest.raises(MissingDependencyError, match=r"uprank\[telemetry\]"):
        OpenTelemetry()


def test_the_module_loads_without_the_package() -> None:
    code = "import sys; sys.modules['opentelemetry'] = None; import uprank.telemetry"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_hook_that_cannot_export_fails_no_ranking(seen: Seen, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(InMemorySpanExporter):
        def export(self, spans: object) -> object:
            raise OSError("the collector is down")

    seen.tracers.add_span_processor(SimpleSpanProcessor(Broken()))
    with caplog.at_level(logging.WARNING):
        assert len(Reranker(length, hooks=[seen.hook()]).rank("q", ["a"])) == 1
    assert trace.get_current_span() is trace.INVALID_SPAN
