"""Voyage, ``POST /v1/rerank``."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from rerank_servers.messages import Reply, Request
from rerank_servers.schema import FLAG, TEXT, Field, integer, listed, required
from rerank_servers.scoring import tokens
from rerank_servers.service import Body, Refusal, Service, best, json_reply

FIELDS: Mapping[str, Field] = {
    "query": required(Field("a non-empty string", lambda value: isinstance(value, str) and value != "")),
    "documents": required(listed("non-empty strings", lambda value: isinstance(value, str) and value != "")),
    "model": required(TEXT),
    "top_k": integer(1),
    "return_documents": FLAG,
    "truncation": FLAG,
}
# Tokens of a query, tokens of a query and a document, tokens of a request.
LIMITS = {
    "rerank-2": (4_000, 16_000, 600_000),
    "rerank-2-lite": (2_000, 8_000, 600_000),
    "rerank-1": (2_000, 8_000, 300_000),
    "rerank-lite-1": (1_000, 4_000, 300_000),
}
NEWEST = (8_000, 32_000, 600_000)


@dataclass
class Voyage(Service):
    """Voyage: the list is called ``data``, a request has a budget of tokens, echoed documents are plain strings,
    and empty ones are refused.

    Attributes:
        budget: Tokens in a request: those of the query with every document, and those of the documents; more get
            400, whatever ``truncation`` says. Default: the model's own, 600,000 for the newer ones.
        max_documents: Documents in a request; more get 400. Default 1,000.
        free_requests: Requests in a window, as without a payment method (3 a minute); more get 429 without a
            ``Retry-After``. Default: no limit.
        window: The length of that window, in seconds. Default 60.
    """

    name: ClassVar[str] = "voyage"
    path: ClassVar[str] = "/v1/rerank"
    list_key: ClassVar[str | None] = "data"
    missing_status: ClassVar[int] = 400
    value_status: ClassVar[int] = 400
    unknown_status: ClassVar[int] = 400
    unknown_model_status: ClassVar[int] = 400

    budget: int | None = None
    max_documents: int = 1000
    free_requests: int | None = None
    window: float = 60.0
    _served_at: deque[float] = field(default_factory=deque, init=False, repr=False)

    def rerank(self, body: Body, request: Request) -> Reply:
        self._limit_rate()
        self.check(body, FIELDS)
        model = self.check_model(body["model"])
        query, texts = request.query, request.texts
        if len(texts) > self.max_documents:
            raise Refusal(400, f"at most {self.max_documents} documents are allowed, your request has {len(texts)}")
        total = self._tokens(query, texts, model, truncation=body.get("truncation") is not False)
        results: list[Body] = []
        for index, score in best(self.scores(query, texts, model=model), body.get("top_k")):
            result: Body = {"index": index, "relevance_score": score}
            if body.get("return_documents"):
                result["document"] = texts[index]
            results.append(result)
        usage = {"total_tokens": total}
        return json_reply({"object": "list", "data": results, "model": model, "usage": usage})

    def _limit_rate(self) -> None:
        if self.free_requests is None:
            return
        now = time.monotonic()
        while self._served_at and now - self._served_at[0] >= self.window:
            self._served_at.popleft()
        if len(self._served_at) >= self.free_requests:
            raise Refusal(429, f"without a payment method the limit is {self.free_requests} RPM and 10K TPM")
        self._served_at.append(now)

    def _tokens(self, query: str, texts: list[str], model: str, *, truncation: bool) -> int:
        query_limit, pair_limit, budget = LIMITS.get(model, NEWEST)
        budget = budget if self.budget is None else self.budget
        asked = tokens(query)
        if asked > query_limit and not truncation:
            raise Refusal(400, f"The query has {asked} tokens, more than the {query_limit} of this model.")
        asked = min(asked, query_limit)
        counts = [tokens(text) for text in texts]
        if not truncation and max(counts) + asked > pair_limit:
            raise Refusal(400, f"A query and document have more than {pair_limit} tokens. Consider truncation.")
        total = sum(asked + min(count, pair_limit - asked) for count in counts)
        if total > budget:
            raise Refusal(
                400,
                f"Request to model '{model}' failed. The max allowed tokens per submitted batch is {budget}. "
                f"Your batch has {total} tokens after truncation.",
            )
        return total

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if refusal is not None and refusal.problems and refusal.problems[0].kind == "unknown":
            message = f"Argument '{refusal.problems[0].field}' is not supported by our API"
        if status == 401:
            message = "the API key is invalid"
        return json_reply({"detail": message}, status)
