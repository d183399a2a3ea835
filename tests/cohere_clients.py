"""Cohere's clients, as a caller may give them, and what came of a call."""

from __future__ import annotations

import cohere

from rerank_servers import RerankServer
from uprank import Ranking

KEY = "co-key-2c7a"


def body(server: RerankServer, number: int = -1) -> dict[str, object]:
    found = server.posts[number].json
    assert isinstance(found, dict)
    return {name: value for name, value in found.items() if value is not None}


def facts(ranking: Ranking) -> object:
    """All of a ranking but the time it took."""
    return [(hit.index, hit.rank, hit.score) for hit in ranking], ranking.usage, ranking.warnings, ranking.score_kind


def clients(base_url: str, kind: str) -> dict[str, object]:
    """What the caller gives: a key, or ready clients."""
    sync, awaited = (make(KEY, base_url=base_url) for make in (cohere.ClientV2, cohere.AsyncClientV2))
    return {
        "own": {"api_key": KEY, "base_url": base_url},
        "client": {"client": sync},
        "both": {"client": sync, "async_client": awaited},
        "async-client": {"async_client": awaited},
        "async-as-client": {"client": awaited},
    }[kind]
