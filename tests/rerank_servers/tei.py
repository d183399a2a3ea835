"""Hugging Face's Text Embeddings Inference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar

from rerank_servers.messages import Reply, Request
from rerank_servers.schema import FLAG, TEXT, TEXTS_OR_NONE, Field, not_null, one_of, required
from rerank_servers.scoring import pair_tokens
from rerank_servers.service import Body, Refusal, Service, json_reply

FIELDS: Mapping[str, Field] = {
    "query": required(TEXT),
    "texts": required(TEXTS_OR_NONE),
    "truncate": FLAG,
    "truncation_direction": not_null(one_of("Right", "Left", "right", "left")),
    "raw_scores": not_null(FLAG),
    "return_text": not_null(FLAG),
}
KINDS = {400: "Empty", 422: "Validation", 424: "Backend", 429: "Overloaded", 503: "Unhealthy"}
MEANINGS = {424: "inference failed", 429: "Model is overloaded", 503: "unhealthy"}


@dataclass
class Tei(Service):
    """TEI: a bare list, ties in descending index, a cap on texts, and permits that are never waited for.

    Attributes:
        max_client_batch_size: Texts in a request; more get 422. Default 32.
        permits: Texts being scored at once; a request that would exceed them gets 429 at once. Default 512.
        payload_limit: Bytes in a body; more get 413. Default 2,000,000.
        max_input_length: Tokens of a query and a text; more get 422 unless they are truncated. Default 512.
        auto_truncate: What happens where ``truncate`` is not sent, or null. Default True.
    """

    name: ClassVar[str] = "tei"
    path: ClassVar[str] = "/rerank"
    hosted: ClassVar[bool] = False
    list_key: ClassVar[str | None] = None
    score_key: ClassVar[str] = "score"
    refuses_unknown: ClassVar[bool] = False
    id_header: ClassVar[str | None] = None

    max_client_batch_size: int = 32
    permits: int = 512
    payload_limit: int = 2_000_000
    max_input_length: int = 512
    auto_truncate: bool = True
    in_use: int = field(default=0, init=False, repr=False)

    def get(self, request: Request) -> Reply | None:
        if request.route == "/health":
            return Reply()
        if request.route != "/info":
            return None
        self.authenticate(request)
        model = self.models[0] if self.models else "BAAI/bge-reranker-v2-m3"
        return json_reply(
            {
                "model_id": model,
                "model_sha": None,
                "model_dtype": "float16",
                "served_model_name": model,
                "model_type": {"reranker": {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}}},
                "max_concurrent_requests": self.permits,
                "max_input_length": self.max_input_length,
                "max_batch_tokens": 16384,
                "max_batch_requests": None,
                "max_client_batch_size": self.max_client_batch_size,
                "auto_truncate": self.auto_truncate,
                "tokenization_workers": 4,
                "version": "1.9.3",
                "sha": None,
                "docker_label": None,
            }
        )

    def parsed(self, request: Request) -> object:
        if len(request.body) > self.payload_limit:
            raise Refusal(413, "length limit exceeded", code="plain")
        return super().parsed(request)

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, FIELDS)
        query, texts = request.query, request.texts
        if not texts:
            raise Refusal(400, "`texts` cannot be empty")
        if len(texts) > self.max_client_batch_size:
            raise Refusal(422, f"batch size {len(texts)} > maximum allowed batch size {self.max_client_batch_size}")
        if self.in_use + len(texts) > self.permits:
            raise Refusal(429, MEANINGS[429])
        if not query and not all(texts):
            raise Refusal(400, "`inputs` cannot be empty")
        truncate = body.get("truncate")
        longest = max(pair_tokens(query, [text]) for text in texts)
        if longest > self.max_input_length and not (self.auto_truncate if truncate is None else truncate):
            raise Refusal(422, f"`inputs` must have less than {self.max_input_length} tokens. Given: {longest}")
        scores = self.scores(query, texts, raw_scores=body.get("raw_scores") is True)
        # A stable ascending sort, reversed: equal scores come in descending index.
        order = sorted(range(len(texts)), key=scores.__getitem__)[::-1]
        ranks = [
            {"index": index, "score": scores[index], **({"text": texts[index]} if body.get("return_text") else {})}
            for index in order
        ]
        self.in_use += len(texts)
        headers = {"x-compute-type": "cpu", "x-compute-tokens": str(pair_tokens(query, texts))}
        return replace(json_reply(ranks, headers=headers), release=lambda: self._release(len(texts)))

    def _release(self, permits: int) -> None:
        self.in_use -= permits

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if status in (401, 404, 405):
            return Reply(status)
        if refusal is not None and (refusal.code in ("malformed", "invalid", "plain") or status == 415):
            # The framework's own refusals are plain text.
            return Reply(status, f"Failed to deserialize the JSON body: {message}".encode(), content_type="text/plain")
        kind = KINDS.get(status, "Validation" if status < 500 else "Backend")
        return json_reply({"error": message, "error_type": kind}, status)

    def meaning(self, status: int) -> str:
        return MEANINGS.get(status) or super().meaning(status)
