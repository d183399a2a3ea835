"""Cohere, ``POST /v2/rerank``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rerank_servers.messages import Reply, Request
from rerank_servers.schema import TEXT, TEXTS, Field, integer, required
from rerank_servers.scoring import pair_tokens
from rerank_servers.service import Body, Refusal, Service, best, json_reply

FIELDS: Mapping[str, Field] = {
    "model": required(TEXT),
    "query": required(TEXT),
    "documents": required(TEXTS),
    "top_n": integer(1),
    "max_tokens_per_doc": integer(1),
    "priority": integer(0, 999),
}
SPANS = Field(
    "an object with a mode of 'enabled' or 'disabled'",
    lambda value: (
        isinstance(value, dict)
        and value.get("mode") in ("enabled", "disabled")
        and set(value) <= {"mode", "threshold", "max_spans"}
    ),
)


@dataclass
class Cohere(Service):
    """Cohere v2: unknown fields are refused, null is as good as leaving a field out, documents are never
    echoed, and not all of them may be blank.

    Attributes:
        max_documents: Documents in a request; more get 400. Default 10,000.
    """

    name: ClassVar[str] = "cohere"
    path: ClassVar[str] = "/v2/rerank"
    missing_status: ClassVar[int] = 400
    id_header: ClassVar[str | None] = None

    max_documents: int = 10_000

    def rerank(self, body: Body, request: Request) -> Reply:
        # Rerank 5 alone marks the relevant spans.
        spans = str(body.get("model", "")).startswith("rerank-v5")
        self.check(body, {**FIELDS, "relevant_spans": SPANS} if spans else FIELDS)
        model = self.check_model(body["model"])
        texts = request.texts
        if len(texts) > self.max_documents:
            raise Refusal(400, f"invalid request: at most {self.max_documents} documents, got {len(texts)}")
        if not any(text.strip() for text in texts):
            raise Refusal(400, "invalid request: list of documents must not contain only empty strings or whitespace")
        results: list[Body] = [
            {"index": index, "relevance_score": score}
            for index, score in best(self.scores(request.query, texts, model=model), body.get("top_n"))
        ]
        wanted = body.get("relevant_spans")
        if isinstance(wanted, dict) and wanted["mode"] == "enabled":
            for result in results:
                end = len(texts[int(str(result["index"]))])
                result["relevant_spans"] = [{"start": 0, "end": end, "score": result["relevance_score"]}]
        limit = int(str(body.get("max_tokens_per_doc") or 4096))
        cut = [index for index, text in enumerate(texts) if len(text.split()) > limit]
        meta: Body = {
            "api_version": {"version": "2", "is_experimental": False},
            "billed_units": {"search_units": math.ceil(len(texts) / 100)},
            "tokens": {"input_tokens": pair_tokens(request.query, texts), "output_tokens": 0},
        }
        if cut:
            meta["warnings"] = [f"documents {cut} are longer than {limit} tokens and were truncated"]
        return json_reply({"id": request.id, "results": results, "meta": meta})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if refusal is not None and refusal.problems and refusal.problems[0].kind == "unknown":
            message = f"unknown field: parameter '{refusal.problems[0].field}' is not a valid field."
        elif refusal is not None and refusal.problems:
            message = f"invalid request: {message}"
        elif status == 401:
            message = "no api key supplied" if "authorization" not in request.headers else "invalid api token"
        return json_reply({"id": request.id, "message": message}, status)
