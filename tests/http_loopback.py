"""What the tests of rerank services on loopback share: the services, their documents, and what to wait or watch for."""

from __future__ import annotations

import gc
import os
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from rerank_servers import RerankServer, native, relevance
from uprank import Ranking, Reranker
from uprank.scorers.http.gate import Gate, NoPlace

QUERY = "where do whales swim?"
TEXTS = ["The lazy dog sleeps.", "Whales swim in the deep sea.", "Paris is the capital of France."]
MODELS = {"jina": "jina:jina-reranker-v2-base-multilingual", "cohere": "cohere:rerank-v4.0-fast"}


def made(service: str, server: RerankServer, **options: object) -> Reranker:
    return Reranker(MODELS[service], api_key="k", base_url=server.base_url, **options)


def assert_right(rankings: list[Ranking], asked: list[str], service: str, texts: list[str] = TEXTS) -> None:
    """Every query has its own scores: none is another's."""
    assert [ranking.query for ranking in rankings] == asked
    for ranking in rankings:
        wanted = [native(service, relevance(ranking.query, text)) for text in texts]
        assert {hit.index: hit.score for hit in ranking} == dict(enumerate(wanted))


def eventually(holds: Callable[[], bool], seconds: float = 3.0) -> bool:
    """Whether something that another thread does comes true within so many seconds."""
    ends = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > ends:
            return False
        time.sleep(0.005)
    return True


@contextmanager
def leaving_nothing_open() -> Iterator[None]:
    """Fail for whatever is left open, or never awaited."""
    unraisable: list[object] = []
    hook, sys.unraisablehook = sys.unraisablehook, lambda args: unraisable.append(args.exc_value)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", ResourceWarning)
            warnings.filterwarnings("error", message=".*never awaited", category=RuntimeWarning)
            gc.collect()
            unraisable.clear()  # what earlier tests left
            yield
            gc.collect()
    finally:
        sys.unraisablehook = hook
    assert unraisable == []


def ended(child: int, seconds: float = 20.0) -> int:
    """The exit status of a child; it is ended if it hangs."""
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        found, status = os.waitpid(child, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.01)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    pytest.fail("the child hangs")


def forked(call: Callable[[], None]) -> int:
    """Call something in a forked child; return its exit status."""
    child = os.fork()
    if child:
        return ended(child)
    status = 1
    try:
        call()
        status = 0
    finally:
        os._exit(status)  # nothing of pytest may run twice


def assert_free(gate: Gate, places: int) -> None:
    """Exactly so many can enter: no place was lost, none was made up."""
    entered = [gate.entered(0.0) for _ in range(places)]
    for each in entered:
        each.__enter__()
    with pytest.raises(NoPlace), gate.entered(0.0):
        pass
    for each in entered:
        each.__exit__(None, None, None)


def answered(gate: Gate, *, ok: bool = False, throttled: bool = False) -> None:
    """One request comes and goes."""
    with gate.entered(1.0) as ticket:
        ticket.ok, ticket.throttled = ok, throttled
