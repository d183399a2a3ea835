"""A plain client of the servers: a valid request to each, and what its reply says."""

from __future__ import annotations

import functools
import ssl

import httpx

from rerank_servers.listener import RerankServer

QUERY = "What is the capital of France?"
TEXTS = [
    "Whales swim in the deep sea.",
    "Paris is the capital of France.",
    "France has many rivers.",
    "The lazy dog sleeps.",
]
PLAIN: dict[str, object] = {"query": QUERY, "documents": TEXTS}
NAMED: dict[str, object] = {"model": "m", **PLAIN}
OBJECTS = [{"text": text} for text in TEXTS]
BODIES: dict[str, dict[str, object]] = {
    "cohere": NAMED,
    "jina": NAMED,
    "voyage": NAMED,
    "mixedbread": {"model": "m", "query": QUERY, "input": TEXTS},
    "together": NAMED,
    "fireworks": PLAIN,
    "pinecone": {"model": "bge-reranker-v2-m3", "query": QUERY, "documents": OBJECTS},
    "nvidia": {"model": "a/b-1.0", "query": {"text": QUERY}, "passages": OBJECTS, "truncate": "END"},
    "openrouter": NAMED,
    "vllm": PLAIN,
    "vllm-score": {"data_1": QUERY, "data_2": TEXTS},
    "tei": {"query": QUERY, "texts": TEXTS},
    "llama-cpp": PLAIN,
    "infinity": PLAIN,
    "xinference": NAMED,
    "localai": NAMED,
    "sie": {"query": {"text": QUERY}, "items": OBJECTS},
}
HEADERS = {
    "Authorization": "Bearer k",
    "Api-Key": "k",
    "X-Pinecone-Api-Version": "2026-04",
    "Accept": "application/json",
}


# Reading the certificates of the system takes longer than a request: once is enough.
post = functools.partial(httpx.post, verify=ssl.create_default_context(), trust_env=False, timeout=15)


def ask(server: RerankServer, body: object = None, path: str | None = None, **changes: object) -> httpx.Response:
    """Post the usual body with some fields changed; ``...`` leaves one out."""
    name = server.service.name
    if body is None:
        body = {key: value for key, value in {**BODIES[name], **changes}.items() if value is not ...}
    path = (path or server.path).replace("{model}", "m")
    return post(server.url + path, json=body, headers=HEADERS)


def entries(server: RerankServer, reply: httpx.Response) -> list[tuple[int, float]]:
    """Index and score of each result, in the order of the reply."""
    assert reply.status_code == 200, reply.text
    kind = type(server.service)
    found = reply.json() if kind.list_key is None else reply.json()[kind.list_key]
    return [(int(str(each[kind.index_key]).removeprefix("item-")), each[kind.score_key]) for each in found]


def message(reply: httpx.Response) -> str:
    """The text of an error, of any service."""
    value = reply.json()
    for key in ("message", "detail", "error"):
        value = value.get(key, value) if isinstance(value, dict) else value
    return str(value.get("message", value) if isinstance(value, dict) else value)
