"""Strict rerank services on loopback, written from the services' published schemas, independent of the package's code.

Example::

    from rerank_servers import refused_port, relevance, native, serve, status, reset, edit

    with serve("voyage", key="k", budget=1000) as server:
        server.fail(0, status(429, retry_after=1))        # POST number 0; also fail(range(3), ...)
        reranker = Reranker("voyage:rerank-2.5", base_url=server.base_url, api_key="k")
        ranking = reranker.rank("capital of France?", ["Paris is the capital of France.", "Whales swim."])
    assert ranking[0].score == native("voyage", relevance("capital of France?", "Paris is the capital of France."))
    assert len(server.posts) == 2 and server.connections == 1

``serve(service, *, key=None, delay=0.0, tls=None, **options)``; ``SERVICES`` maps every service name to its class,
whose fields are the options and whose docstring says what it plays. For every service: ``key`` (a wrong or missing one
gets the service's own 401; with ``None`` a hosted service takes any bearer token, a self-hosted one needs none),
``models`` (only these names are known), ``strict`` (refuse fields that the service itself would ignore).

A running server::

    server.url           "http://127.0.0.1:40123"
    server.path          "/v1/rerank": where the service is documented to listen (SIE: with "{model}")
    server.base_url      url, with "/inference" for Fireworks and "/api" for OpenRouter
    server.requests      every request; server.posts: the POSTs only; each a Request:
                         .number (of the POST, from 0) .method .path .headers (names in lower case) .body .json
                         .received (monotonic seconds) .connection (its number) .id (what the reply carries)
                         .query and .texts (strings, in any dialect)
    server.connections   TCP connections accepted; server.open_connections: those open now
    server.most_at_once  the most requests that were being answered at the same time
    server.delay         seconds before each answer; may be changed while it runs
    server.hold_until(count, patience=10.0)    answer no POST until so many wait at once
    server.scores(query, texts, model="", raw_scores=False)    what it will report, in the order of the texts

    server.fail(number | iterable of numbers, fault)           by POST number
    server.fail_when(lambda request: "doc 7" in request.texts, fault, times=None)
    server.fail_path("/info", fault)                           by path, any method
    server.fail_always(fault)
    server.heal()                                              forget all of them

Faults::

    status(code, retry_after=None, retry_after_ms=None, message=None, headers=None, body=None)
                         the service's own error body; retry_after: seconds, a datetime (sent as an HTTP date) or a str
    closed()             connection closed before any reply
    reset()              half of the body, then a TCP reset
    slow()               one byte each 50 ms, at most 10 s
    silent(seconds)      no answer for so long, then the usual one
    html(code)           an HTML page (200, 502)
    empty()              200 without a body
    truncated()          half of the JSON, with the Content-Length of that half
    edit(name)           a reply changed in one way; EDITS lists the names
    edited(function)     function(decoded reply) -> the value to send instead

    CONNECTION_FAULTS    name -> fault: closed, reset, slow
    REPLY_FAULTS         name -> fault: html-200, html-502, empty, truncated and all of EDITS
    STATUSES             every status code worth a test

``edit``, ``edited``, ``reset``, ``slow``, ``silent`` and ``truncated`` act on the usual answer, so a request that would
be refused still is; the other faults take its place. ``relevance(query, document)`` is in (0, 1), without ties between
different pairs; ``native(service, p, ...)`` is what that service reports for it; ``tokens(text)`` is how the servers
count. ``refused_port()`` is a port that nothing listens on. A mistake inside a server is raised when its block ends.
``rerank_servers.client`` has a valid request body for each service, and a plain client that knows none of the package.
"""

from __future__ import annotations

from rerank_servers.faults import (
    CONNECTION_FAULTS,
    EDITS,
    REPLY_FAULTS,
    STATUSES,
    Fault,
    closed,
    edit,
    edited,
    empty,
    html,
    reset,
    silent,
    slow,
    status,
    truncated,
)
from rerank_servers.listener import RerankServer, refused_port, serve
from rerank_servers.messages import Reply, Request
from rerank_servers.scoring import native, pair_tokens, relevance, tokens
from rerank_servers.services import SERVICES

__all__ = [
    "CONNECTION_FAULTS",
    "EDITS",
    "REPLY_FAULTS",
    "SERVICES",
    "STATUSES",
    "Fault",
    "Reply",
    "Request",
    "RerankServer",
    "closed",
    "edit",
    "edited",
    "empty",
    "html",
    "native",
    "pair_tokens",
    "refused_port",
    "relevance",
    "reset",
    "serve",
    "silent",
    "slow",
    "status",
    "tokens",
    "truncated",
]
