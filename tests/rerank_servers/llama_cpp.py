"""llama.cpp's server."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerank_servers.messages import Reply, Request
from rerank_servers.scoring import pair_tokens
from rerank_servers.service import Body, Refusal, Service, best, json_reply

KNOWN = ("model", "query", "documents", "texts", "top_n", "return_text")
KINDS = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    501: "not_supported_error",
    503: "unavailable_error",
}


@dataclass
class LlamaCpp(Service):
    """llama.cpp: strings only, raw logits (probabilities where the model's name has "qwen3"), its own errors.

    A body with ``texts`` is answered as TEI would: a bare list.

    Attributes:
        reranking: Whether it was started for reranking; otherwise every request gets 501.
        old: A build of before mid-2025: results in the order of the documents, ``top_n`` ignored, no tokens
            counted, an over-long input a 500.
        n_ctx: Tokens of a query and a document; more get an error. Default 8,192.
    """

    name: ClassVar[str] = "llama-cpp"
    path: ClassVar[str] = "/v1/rerank"
    hosted: ClassVar[bool] = False
    value_status: ClassVar[int] = 400
    id_header: ClassVar[str | None] = None

    reranking: bool = True
    old: bool = False
    n_ctx: int = 8192

    def routes(self) -> Sequence[str]:
        return ("/rerank", "/reranking", "/v1/rerank", "/v1/reranking")

    def get(self, request: Request) -> Reply | None:
        return json_reply({"status": "ok"}) if request.route == "/health" else None

    def rerank(self, body: Body, request: Request) -> Reply:
        if not self.reranking:
            raise Refusal(501, "This server does not support reranking. Start it with `--reranking`")
        if self.strict and not set(body) <= set(KNOWN):
            raise Refusal(400, f"unknown fields: {sorted(set(body) - set(KNOWN))}")
        query = body.get("query")
        if not isinstance(query, str):
            raise Refusal(400, '"query" must be a string' if "query" in body else '"query" must be provided')
        documents = body.get("documents", body.get("texts"))
        if not isinstance(documents, list) or not documents or not all(isinstance(each, str) for each in documents):
            raise Refusal(400, '"documents" must be a non-empty string array')
        top = body.get("top_n")
        if top is not None and (not isinstance(top, int) or isinstance(top, bool) or top < 0):
            raise Refusal(400, '"top_n" must be a number')
        self._check_length(query, documents)
        model = str(body.get("model") or "served-model")
        scores = self.scores(query, documents, model=model)
        total = 0 if self.old else pair_tokens(query, documents)
        ranked = list(enumerate(scores)) if self.old else best(scores, top)
        if "texts" in body:
            text = body.get("return_text") is True
            return json_reply(
                [
                    {"index": index, "score": score, **({"text": documents[index]} if text else {})}
                    for index, score in ranked
                ]
            )
        return json_reply(
            {
                "model": model,
                "object": "list",
                "usage": {"prompt_tokens": total, "total_tokens": total},
                "results": [{"index": index, "relevance_score": score} for index, score in ranked],
            }
        )

    def _check_length(self, query: str, documents: Sequence[str]) -> None:
        longest = max(pair_tokens(query, [document]) for document in documents)
        if longest <= self.n_ctx:
            return
        if self.old:
            raise Refusal(
                500,
                f"input ({longest} tokens) is too large to process. increase the physical batch size "
                f"(current batch size: {self.n_ctx})",
            )
        raise Refusal(
            400,
            f"the request ({longest} tokens) exceeds the available context size ({self.n_ctx} tokens)",
            code="exceed_context_size_error",
            extra={"n_prompt_tokens": longest, "n_ctx": self.n_ctx},
        )

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        kind = KINDS.get(status, "invalid_request_error" if status < 500 else "server_error")
        extra: Body = {}
        if refusal is not None and refusal.code == "exceed_context_size_error":
            kind, extra = refusal.code, refusal.extra
        if status == 401:
            message = "Invalid API Key"
        return json_reply({"error": {"code": status, "message": message, "type": kind, **extra}}, status)
