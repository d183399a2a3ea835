"""What ``/metrics`` shows, in the text format that Prometheus reads.

Names follow https://prometheus.io/docs/practices/naming/. Label values come from the settings and from this package,
never from a request: an unknown model is ``""``, an unknown path is not counted.
"""

from __future__ import annotations

import asyncio
import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor

from fastapi import FastAPI
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    Info,
    PlatformCollector,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.responses import PlainTextResponse

import uprank
from uprank.cache import Cache, CacheStats
from uprank.server.logs import Done
from uprank.server.questions import Answer
from uprank.server.served import ServedModels

__all__ = ["Metrics"]

logger = logging.getLogger("uprank.server")

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_DOCUMENTS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000)
_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"  # which every Prometheus reads


class Metrics:
    """Counts what a server does, in a registry of its own, so that several servers fit into one process.

    Args:
        models: What is served.
        under_way: How many requests are being answered.
        max_queue: How many may be.
    """

    def __init__(self, models: ServedModels, under_way: Callable[[], int], max_queue: int) -> None:
        self.registry = CollectorRegistry()
        self._models = models
        self._make_gauges(under_way, max_queue)
        self._requests = Counter(
            "uprank_requests", "Requests that were answered.", ("route", "model", "status"), registry=self.registry
        )
        self._seconds = Histogram(
            "uprank_request_duration_seconds",
            "From the first look at a request to its answer.",
            ("model", "status"),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._refusals = Counter(
            "uprank_refusals", "Requests that got no ranking, by the reason.", ("code",), registry=self.registry
        )
        self._by_key = Counter(
            "uprank_key_requests",
            "Requests with a key, by the name that the settings give it.",
            ("key", "status"),
            registry=self.registry,
        )
        documents = Histogram(
            "uprank_request_documents",
            "Documents of a request that was answered with a ranking.",
            ("model",),
            buckets=_DOCUMENTS,
            registry=self.registry,
        )
        tokens = Counter("uprank_tokens", "Tokens that models read, where known.", ("model",), registry=self.registry)
        degraded = Counter(
            "uprank_degraded_rankings",
            "Rankings in an order that is only the best that could be had.",
            ("model",),
            registry=self.registry,
        )
        self._failed = Counter(
            "uprank_failed_attempts",
            "Models that were to answer and did not, so that a fallback was asked, by the kind of error.",
            ("model", "failed", "kind"),
            registry=self.registry,
        )
        self._answered = {
            name: (documents.labels(name), tokens.labels(name), degraded.labels(name)) for name in models.rerankers
        }
        self._thread = ThreadPoolExecutor(1, "uprank-metrics")  # asyncio's own may be full of scorers that do not await
        self._by_labels: dict[tuple[str, str, int], tuple[Counter, Histogram]] = {}
        caches = {name: one.cache for name, one in models.rerankers.items() if one.cache is not None}
        self.registry.register(_Caches(caches))

    def add_to(self, app: FastAPI) -> None:
        """Serve ``/metrics``; no key is asked for, as it holds no text and no key."""

        async def metrics() -> PlainTextResponse:
            # In a thread: the statistics of a cache in a file may have to wait for others that use it.
            text = await asyncio.get_running_loop().run_in_executor(self._thread, generate_latest, self.registry)
            return PlainTextResponse(text, media_type=_CONTENT_TYPE)

        app.add_api_route(
            "/metrics",
            metrics,
            methods=["GET"],
            response_class=PlainTextResponse,
            summary="Counters, histograms and gauges for Prometheus",
            tags=["operation"],
        )

    def count(self, done: Done) -> None:
        """Count one request."""
        key = (done.route, done.model, done.status)
        found = self._by_labels.get(key)
        if found is None:
            labels = (done.model, str(done.status))
            found = (self._requests.labels(done.route, *labels), self._seconds.labels(*labels))
            self._by_labels[key] = found
        requests, duration = found
        requests.inc()
        duration.observe(done.seconds)
        if done.caller is not None:
            self._by_key.labels(done.caller, str(done.status)).inc()
        if done.refusal is not None:
            self._refusals.labels(done.refusal.code).inc()
        elif done.answer is not None:
            self._count_answer(done.answer)

    def _count_answer(self, answer: Answer) -> None:
        documents, tokens, degraded = self._answered[answer.model]
        documents.observe(sum(map(len, answer.question.documents)))
        if answer.tokens:
            tokens.inc(answer.tokens)
        worse = sum(ranking.degraded for ranking in answer.rankings)
        if worse:
            degraded.inc(worse)
        for attempt in answer.attempts:
            self._failed.labels(answer.model, attempt.model, attempt.kind).inc()

    def _make_gauges(self, under_way: Callable[[], int], max_queue: int) -> None:
        build = Info("uprank_build", "What runs here.", registry=self.registry)
        build.info({"version": uprank.__version__, "python": platform.python_version()})
        waiting = Gauge(
            "uprank_requests_in_progress", "Requests that are under way, waiting ones included.", registry=self.registry
        )
        waiting.set_function(under_way)
        limit = Gauge(
            "uprank_requests_in_progress_limit", "As many may be; more are answered 429.", registry=self.registry
        )
        limit.set(max_queue)
        loaded = Gauge(
            "uprank_models_loaded", "1 once the models that are to be warm are loaded.", registry=self.registry
        )
        loaded.set_function(lambda: self._models.loaded)
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)


class _Caches(Collector):
    """How often kept scores were of use, by the caches' own count."""

    def __init__(self, caches: Mapping[str, Cache]) -> None:
        self._caches = caches

    def describe(self) -> Iterator[Metric]:
        """The names alone, so that making the registry opens no file."""
        return iter(self._families())

    def collect(self) -> Iterator[Metric]:
        hits, misses, entries, size = self._families()
        for name, cache in self._caches.items():
            stats = _stats(name, cache)
            if stats is not None:
                hits.add_metric([name], stats.hits)
                misses.add_metric([name], stats.misses)
                entries.add_metric([name], stats.entries)
                size.add_metric([name], stats.bytes)
        return iter((hits, misses, entries, size))

    def _families(self) -> tuple[CounterMetricFamily, CounterMetricFamily, GaugeMetricFamily, GaugeMetricFamily]:
        labels = ("model",)
        return (
            CounterMetricFamily("uprank_cache_hits", "Scores that were kept and not computed again.", labels=labels),
            CounterMetricFamily("uprank_cache_misses", "Scores that were asked for and not kept.", labels=labels),
            GaugeMetricFamily("uprank_cache_entries", "Scores that are kept.", labels=labels),
            GaugeMetricFamily("uprank_cache_bytes", "What they take up in memory or on disk.", labels=labels),
        )


def _stats(name: str, cache: Cache) -> CacheStats | None:
    try:
        return cache.stats()
    except Exception as error:  # a cache may be anybody's; one that fails must not hide all other metrics
        logger.warning("The cache of %s gives no statistics (%s)", name, type(error).__name__)
        return None
