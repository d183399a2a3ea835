"""Every rerank service, played without a network."""

# ruff: noqa: E402 - the check comes before the imports of what it checks
from __future__ import annotations

from uprank.extras import require

require("uprank.testing", "http", "httpx")

import json
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, SupportsFloat, TypeAlias

import httpx

__all__ = ["Failure", "MockTransport", "ScoreFunction", "SentRequest"]

ScoreFunction: TypeAlias = Callable[[str, list[str]], Iterable[SupportsFloat]]
"""From a query and its documents to one score a document, in their order."""

Failure: TypeAlias = "int | Literal['refused', 'broken', 'timeout'] | httpx.Response"
"""An HTTP status, a connection that is refused or breaks, a reply that does not come in time, or a whole reply."""


@dataclass(frozen=True, slots=True)
class SentRequest:
    """A request that :class:`MockTransport` received.

    Args:
        url: Where it went.
        headers: With names in lower case, without the key.
        body: The decoded JSON; empty for a GET.
        query: The query in it.
        documents: The texts in it.
    """

    url: str
    headers: Mapping[str, str]
    body: Mapping[str, object]
    query: str
    documents: tuple[str, ...]


class MockTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Plays any of the services, in whichever dialect it is asked; give it as ``transport=``.

    It checks no key and no limit: it is there to test what your code does with scores and failures.

    Args:
        scores: Gives the scores; by default the share of the query's words that a document has. It is
            asked for each request: identical texts come once, long lists in parts, and ``check=True``
            asks for a pair of its own.
        fail: What the first requests get instead of scores, in order, retries included.

    Attributes:
        requests: What was sent, in order.
    """

    def __init__(self, scores: ScoreFunction | None = None, *, fail: Iterable[Failure] = ()) -> None:
        self.requests: list[SentRequest] = []
        self._scores = scores or shared_words
        self._failures = iter([_valid(failure) for failure in fail])
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<MockTransport, {len(self.requests)} requests so far>"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request, as httpx asks of a transport."""
        return self._answer(request, request.read())

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Likewise."""
        return self._answer(request, await request.aread())

    def _answer(self, request: httpx.Request, content: bytes) -> httpx.Response:
        body = json.loads(content) if content else {}
        sent = _read(request, body)
        with self._lock:  # several threads may share a transport
            self.requests.append(sent)
            failure = next(self._failures, None)
        if failure is not None:
            return _fail(failure, request)
        if not body:
            return httpx.Response(404, json={"message": "only rerank routes are played here"})
        scores = [float(score) for score in self._scores(sent.query, list(sent.documents))]
        if len(scores) != len(sent.documents):
            raise ValueError(f"scores gave {len(scores)} scores for {len(sent.documents)} documents")
        return httpx.Response(200, json=_reply(body, scores))


def _valid(failure: Failure) -> Failure:
    status = isinstance(failure, int) and 300 <= failure <= 599
    if status or failure in ("refused", "broken", "timeout") or isinstance(failure, httpx.Response):
        return failure
    raise ValueError(f'fail takes HTTP statuses from 300, "refused", "broken", "timeout" and replies; got {failure!r}')


def shared_words(query: str, documents: list[str]) -> list[float]:
    """For each document, the share of the query's words that it has."""
    wanted = set(query.lower().split())
    return [len(wanted & set(document.lower().split())) / max(1, len(wanted)) for document in documents]


def _read(request: httpx.Request, body: Mapping[str, object]) -> SentRequest:
    query = next((body[key] for key in ("query", "data_1") if key in body), "")
    found = next(
        (body[key] for key in ("documents", "texts", "input", "passages", "items", "data_2") if key in body), []
    )
    texts = tuple(_text(document) for document in found) if isinstance(found, list) else ()
    headers = {name: value for name, value in request.headers.items() if name not in ("authorization", "api-key")}
    return SentRequest(str(request.url), headers, body, _text(query), texts)


def _text(value: object) -> str:
    return str(value["text"]) if isinstance(value, Mapping) else str(value)


def _reply(body: Mapping[str, object], scores: Sequence[float]) -> object:
    """The results as the service asked would give them: best first, under its own keys."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    if "passages" in body:
        return {"rankings": [{"index": index, "logit": scores[index]} for index in order]}
    if "items" in body:
        return {"scores": [{"item_id": str(index), "score": scores[index]} for index in order]}
    if "texts" in body:
        return [{"index": index, "score": scores[index]} for index in order]
    if "input" in body or "data_2" in body:
        return {"data": [{"index": index, "score": scores[index]} for index in order]}
    return {"id": "mock", "results": [{"index": index, "relevance_score": scores[index]} for index in order]}


def _fail(failure: Failure, request: httpx.Request) -> httpx.Response:
    if isinstance(failure, httpx.Response):
        return failure
    if isinstance(failure, int):
        return httpx.Response(failure, json={"message": f"MockTransport was told to fail with {failure}"})
    if failure == "refused":
        raise httpx.ConnectError("connection refused", request=request)
    if failure == "timeout":
        raise httpx.ReadTimeout("no reply in time", request=request)
    raise httpx.RemoteProtocolError("the connection broke", request=request)
