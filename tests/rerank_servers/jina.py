"""Jina, ``POST /v1/rerank``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from rerank_servers.messages import Reply, Request
from rerank_servers.schema import FLAG, TEXT, Field, holds, integer, listed, required
from rerank_servers.scoring import is_listwise, pair_tokens
from rerank_servers.service import Body, Refusal, Service, best, json_reply


def _is_text(value: object) -> bool:
    return isinstance(value, str) or (holds(value, "text"))


def _is_text_or_image(value: object) -> bool:
    return _is_text(value) or (holds(value, "image"))


COMMON: Mapping[str, Field] = {
    "model": required(TEXT),
    "query": required(TEXT),
    "documents": required(listed("strings or {text}", _is_text)),
    "top_n": integer(1),
    "return_documents": FLAG,
    "truncation": FLAG,
}
V3: Mapping[str, Field] = {**COMMON, "max_doc_length": integer(1, 8192), "return_embeddings": FLAG}
M0: Mapping[str, Field] = {
    **COMMON,
    "documents": required(listed("strings, {text} or {image}", _is_text_or_image)),
}

CODES = {
    400: "INPUT_INVALID_REQUEST",
    401: "AUTH_INVALID_API_KEY",
    402: "AUTHZ_INSUFFICIENT_BALANCE",
    403: "AUTHZ_INSUFFICIENT_BALANCE",
    404: "RESOURCE_NOT_FOUND",
    409: "RESOURCE_CONFLICT",
    429: "RATE_REQUEST_LIMIT_EXCEEDED",
    500: "INTERNAL_ERROR",
    503: "SERVICE_UNAVAILABLE",
    504: "SERVICE_TIMEOUT",
}


@dataclass
class Jina(Service):
    """Jina: fields depend on the model, documents come back unless refused, v3 models are listwise and give cosines.

    Attributes:
        echo: A document sent as a string comes back as ``{"text"}`` ("object") or as a string ("text").
        returns_documents: What happens where ``return_documents`` is not sent. Default True.
        max_documents: Documents in a request; more get 422. Default 1,024.
        max_tokens: Tokens of a query and a document with ``truncation`` false; more get 422. Default: no limit.
    """

    name: ClassVar[str] = "jina"
    path: ClassVar[str] = "/v1/rerank"
    unknown_model_status: ClassVar[int] = 400
    id_header: ClassVar[str | None] = None

    echo: Literal["object", "text"] = "object"
    returns_documents: bool = True
    max_documents: int = 1024
    max_tokens: int | None = None

    def rerank(self, body: Body, request: Request) -> Reply:
        asked = str(body.get("model", ""))
        self.check(body, V3 if is_listwise(asked) else M0 if asked == "jina-reranker-m0" else COMMON)
        model = self.check_model(asked)
        texts = request.texts
        if len(texts) > self.max_documents:
            raise Refusal(422, f"at most {self.max_documents} documents are allowed, got {len(texts)}")
        if self.max_tokens is not None and body.get("truncation") is False:
            long = [index for index, text in enumerate(texts) if pair_tokens(request.query, [text]) > self.max_tokens]
            if long:
                raise Refusal(422, f"documents {long} are longer than {self.max_tokens} tokens")
        documents = body["documents"]
        assert isinstance(documents, list)
        wanted = body.get("return_documents")
        echoed = self.returns_documents if wanted is None else wanted
        results: list[Body] = []
        for index, score in best(self.scores(request.query, texts, model=model), body.get("top_n")):
            result: Body = {"index": index, "relevance_score": score}
            if echoed:
                sent = documents[index]
                result["document"] = {"text": sent} if isinstance(sent, str) and self.echo == "object" else sent
            if body.get("return_embeddings"):
                result["embedding"] = [score, 0.0]
            results.append(result)
        usage = {"total_tokens": pair_tokens(request.query, texts)}
        return json_reply({"model": model, "object": "list", "usage": usage, "results": results})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if status == 422:
            errors = [
                {"field": each.field, "message": each.message, "type": each.kind, "input": each.value}
                for each in (refusal.problems if refusal is not None else [])
            ]
            detail = f"[RID: {request.id}] Validation error: 'body -> {errors[0]['field']}'" if errors else ""
            return json_reply({"detail": f"{detail} {message}".strip(), "errors": errors}, status)
        code = "INPUT_MODEL_NOT_FOUND" if refusal is not None and refusal.code == "model" else CODES.get(status)
        code = code or ("INPUT_INVALID_REQUEST" if status < 500 else "INTERNAL_ERROR")
        return json_reply({"code": code, "detail": message, "request_id": request.id}, status)
