"""A server with a model of each kind of score, and plain requests to it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from serving import serving
from table_scorer import TableScorer
from uprank import Reranker

TABLE = {"a": 0.25, "b": 0.75, "c": 0.5}
BODY = {"query": "q", "documents": ["a", "b", "c"]}
USAGE = {"prompt_tokens": 3, "total_tokens": 3}


@dataclass(frozen=True)
class DialectServer:
    """One that runs.

    Attributes:
        client: Of its address.
        scorer: Of its first model, ``"probability"``, which takes instructions.
    """

    client: httpx.Client
    scorer: TableScorer

    def post(self, path: str, body: Mapping[str, object]) -> Any:  # Any: what JSON has
        """The reply to a request, which must succeed."""
        return self._reply(path, body, 200)

    def refused(self, path: str, body: Mapping[str, object], status: int) -> Any:  # Any: likewise
        """The reply to a request, which must have this status."""
        return self._reply(path, body, status)

    def _reply(self, path: str, body: Mapping[str, object], status: int) -> Any:  # Any: likewise
        reply = self.client.post(path, json=body)
        assert reply.status_code == status, reply.text
        return reply.json()


@contextmanager
def dialect_server() -> Iterator[DialectServer]:
    """Run a server whose models know the documents a, b and c, and rank them b, c, a."""
    scorers = [
        TableScorer("probability", TABLE, kind="probability", instructed=True),
        TableScorer("logit", {"a": -1.0, "b": 3.0, "c": 0.0}),
        TableScorer("cosine", {"a": -0.5, "b": 0.75, "c": 0.0}, kind="cosine"),
        TableScorer("rank", {"a": 1.0, "b": 9.0, "c": 5.0}, kind="rank"),
        TableScorer("certain", {"a": 0.0, "b": 1.0, "c": 1e-30}, kind="probability"),
        TableScorer("scoreless", TABLE, kind="probability", reported=[None, 0.75, None]),
        TableScorer("BAAI/bge-m3", TABLE, kind="probability"),
    ]
    rerankers = {scorer.name: Reranker(scorer) for scorer in scorers}
    rerankers["best"] = Reranker(TableScorer("best", TABLE, kind="probability"), top_n=1)
    rerankers["good"] = Reranker(TableScorer("good", TABLE, kind="probability"), threshold=0.5)
    with serving(rerankers) as address, httpx.Client(base_url=address) as client:
        yield DialectServer(client, scorers[0])


def pairs(items: Sequence[Mapping[str, object]]) -> list[tuple[object, object]]:
    """Indices and scores of results, in their order."""
    return [(item["index"], item["relevance_score"]) for item in items]
