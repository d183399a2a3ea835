"""Hosted services that differ from each other in names and shapes only."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerank_servers.messages import Reply, Request
from rerank_servers.schema import (
    FLAG,
    OBJECT,
    TEXT,
    TEXTS,
    Field,
    integer,
    is_object,
    is_text,
    listed,
    not_null,
    required,
)
from rerank_servers.scoring import pair_tokens
from rerank_servers.service import Body, Refusal, Service, best, fastapi_errors, json_reply


def _same_kind(value: object) -> bool:
    return (
        isinstance(value, list) and bool(value) and (all(map(is_text, value)) or all(is_object(each) for each in value))
    )


ALL_STRINGS_OR_ALL_OBJECTS = Field("a non-empty list of strings or of objects, not both", _same_kind)


def ranked_texts(documents: object, fields: Sequence[str] | None) -> list[str]:
    """What is scored: a string as it is, of an object the values of the fields, or of all.

    Raises:
        Refusal: A field is not there.
    """
    assert isinstance(documents, list)
    texts = []
    for index, document in enumerate(documents):
        if isinstance(document, str):
            texts.append(document)
            continue
        names = list(document) if fields is None else list(fields)
        missing = [name for name in names if name not in document]
        if missing:
            raise Refusal(400, f"document {index} has no field {missing[0]!r}", code="invalid")
        texts.append(" ".join(str(document[name]) for name in names))
    return texts


@dataclass
class Mixedbread(Service):
    """Mixedbread: the documents are called ``input``, the results ``data``, the number ``top_k``.

    Attributes:
        max_documents: Documents in a request; more get 422. Default 1,000.
    """

    name: ClassVar[str] = "mixedbread"
    path: ClassVar[str] = "/v1/reranking"
    list_key: ClassVar[str | None] = "data"
    score_key: ClassVar[str] = "score"
    fields: ClassVar[Mapping[str, Field]] = {
        "model": not_null(TEXT),
        "query": required(TEXT),
        "input": required(listed("strings or objects", lambda value: isinstance(value, (str, dict)))),
        "rank_fields": TEXTS,
        "top_k": not_null(integer(1)),
        "return_input": not_null(FLAG),
        "rewrite_query": not_null(FLAG),
    }

    max_documents: int = 1000

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, self.fields)
        model = self.check_model(body.get("model", "mixedbread-ai/mxbai-rerank-large-v2"))
        documents = body["input"]
        assert isinstance(documents, list)
        if len(documents) > self.max_documents:
            raise Refusal(422, f"at most {self.max_documents} documents are allowed, got {len(documents)}")
        fields = body.get("rank_fields")
        texts = ranked_texts(documents, fields if isinstance(fields, list) else None)
        echoed = body.get("return_input") is True
        data = [
            {"index": index, "score": score, "input": documents[index] if echoed else None, "object": "rank_result"}
            for index, score in best(self.scores(request.query, texts, model=model), body.get("top_k"))
        ]
        total = pair_tokens(request.query, texts)
        reply = {
            "usage": {"prompt_tokens": total, "total_tokens": total},
            "model": model,
            "data": data,
            "object": "list",
            "top_k": len(data),
            "return_input": echoed,
        }
        return json_reply(reply)

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        return json_reply({"detail": fastapi_errors(refusal, message) if status == 422 else message}, status)


@dataclass
class Together(Service):
    """Together: nothing but its own fields; objects for Salesforce/Llama-Rank-V1 alone; results always hold one."""

    name: ClassVar[str] = "together"
    path: ClassVar[str] = "/v1/rerank"
    missing_status: ClassVar[int] = 400
    value_status: ClassVar[int] = 400
    unknown_status: ClassVar[int] = 400
    fields: ClassVar[Mapping[str, Field]] = {
        "model": required(TEXT),
        "query": required(TEXT),
        "documents": required(ALL_STRINGS_OR_ALL_OBJECTS),
        "top_n": not_null(integer(1)),
        "return_documents": not_null(FLAG),
        "rank_fields": not_null(TEXTS),
    }

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, self.fields)
        model = self.check_model(body["model"])
        documents = body["documents"]
        assert isinstance(documents, list)
        if not isinstance(documents[0], str) and not model.lower().startswith("salesforce/llama-rank"):
            raise Refusal(400, f"{model} takes documents as strings only")
        fields = body.get("rank_fields")
        texts = ranked_texts(documents, fields if isinstance(fields, list) else None)
        results = []
        for index, score in best(self.scores(request.query, texts, model=model), body.get("top_n")):
            sent = documents[index]
            text = sent if isinstance(sent, str) else json.dumps(sent)
            echo = text if body.get("return_documents") else None
            results.append({"index": index, "relevance_score": score, "document": {"text": echo}})
        total = pair_tokens(request.query, texts)
        usage = {"prompt_tokens": total, "completion_tokens": 0, "total_tokens": total}
        return json_reply({"object": "rerank", "id": request.id, "model": model, "results": results, "usage": usage})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        kind = "invalid_request_error" if status < 500 else "server_error"
        param = refusal.problems[0].field if refusal is not None and refusal.problems else None
        return json_reply({"error": {"message": message, "type": kind, "param": param, "code": None}}, status)


@dataclass
class Fireworks(Service):
    """Fireworks: Jina's request and Voyage's reply; nothing but its own fields; documents come back unless refused."""

    name: ClassVar[str] = "fireworks"
    path: ClassVar[str] = "/inference/v1/rerank"
    prefix: ClassVar[str] = "/inference"
    list_key: ClassVar[str | None] = "data"
    fields: ClassVar[Mapping[str, Field]] = {
        "model": TEXT,
        "query": required(TEXT),
        "documents": required(TEXTS),
        "top_n": integer(1),
        "return_documents": not_null(FLAG),
        "task": TEXT,
    }

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, self.fields)
        model = self.check_model(body.get("model") or "fireworks/qwen3-reranker-8b")
        texts = request.texts
        data: list[Body] = []
        for index, score in best(self.scores(request.query, texts, model=model), body.get("top_n")):
            result: Body = {"index": index, "relevance_score": score}
            if body.get("return_documents", True):
                result["document"] = texts[index]
            data.append(result)
        total = pair_tokens(request.query, texts)
        usage = {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0}
        return json_reply({"object": "list", "model": model, "data": data, "usage": usage})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        kind = "invalid_request_error" if status < 500 else "internal_server_error"
        return json_reply({"error": {"object": "error", "type": kind, "code": kind, "message": message}}, status)


@dataclass(frozen=True)
class _PineconeModel:
    max_documents: int
    max_tokens: int
    parameters: tuple[str, ...] = ("truncate",)
    truncate: str = "END"
    one_field: bool = True


PINECONE_MODELS = {
    "bge-reranker-v2-m3": _PineconeModel(100, 1024, truncate="NONE"),
    "pinecone-rerank-v0": _PineconeModel(100, 512),
    "cohere-rerank-4-fast": _PineconeModel(250, 8192, ("max_tokens_per_doc",), one_field=False),
    "cohere-rerank-3.5": _PineconeModel(200, 40_000, ("max_chunks_per_doc",), one_field=False),
}


@dataclass
class Pinecone(Service):
    """Pinecone: its own headers for key and version, documents are objects only.

    Limits and parameters depend on the model.

    Attributes:
        max_documents: Documents in a request; more get 400. Default: the model's own.
    """

    name: ClassVar[str] = "pinecone"
    path: ClassVar[str] = "/rerank"
    list_key: ClassVar[str | None] = "data"
    score_key: ClassVar[str] = "score"
    missing_status: ClassVar[int] = 400
    value_status: ClassVar[int] = 400
    unknown_status: ClassVar[int] = 400
    fields: ClassVar[Mapping[str, Field]] = {
        "model": required(TEXT),
        "query": required(TEXT),
        "documents": required(listed("objects", is_object)),
        "top_n": not_null(integer(1)),
        "return_documents": not_null(FLAG),
        "rank_fields": not_null(TEXTS),
        "parameters": not_null(OBJECT),
    }
    codes: ClassVar[Mapping[int, str]] = {
        400: "INVALID_ARGUMENT",
        401: "UNAUTHENTICATED",
        402: "PAYMENT_REQUIRED",
        403: "FORBIDDEN",
        404: "NOT_FOUND",
        429: "RESOURCE_EXHAUSTED",
        503: "UNAVAILABLE",
        504: "DEADLINE_EXCEEDED",
    }

    max_documents: int | None = None

    def authenticate(self, request: Request) -> None:
        self.compare(request.headers.get("api-key", ""))
        if not request.headers.get("x-pinecone-api-version"):
            raise Refusal(400, "the header X-Pinecone-Api-Version is required")

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, self.fields)
        model = self.check_model(body["model"])
        documents = body["documents"]
        fields = body.get("rank_fields", ["text"])
        assert isinstance(documents, list)
        assert isinstance(fields, list)
        known = PINECONE_MODELS.get(model, PINECONE_MODELS["bge-reranker-v2-m3"])
        most = self.max_documents or known.max_documents
        if len(documents) > most:
            raise Refusal(400, f"at most {most} documents are allowed for {model}, got {len(documents)}")
        if known.one_field and len(fields) > 1:
            raise Refusal(400, f"{model} ranks by one field only")
        parameters = body.get("parameters", {})
        assert isinstance(parameters, dict)
        unknown = [name for name in parameters if name not in known.parameters]
        if unknown:
            raise Refusal(400, f"{model} has no parameter {unknown[0]!r}")
        truncate = parameters.get("truncate", known.truncate)
        if truncate not in ("END", "NONE"):
            raise Refusal(400, "truncate must be END or NONE")
        texts = ranked_texts(documents, fields)
        longest = max(pair_tokens(request.query, [text]) for text in texts)
        if truncate == "NONE" and longest > known.max_tokens:
            raise Refusal(400, f"a query and document have {longest} tokens, more than {known.max_tokens}")
        data: list[Body] = []
        for index, score in best(self.scores(request.query, texts, model=model), body.get("top_n")):
            result: Body = {"index": index, "score": score}
            if body.get("return_documents", True):
                result["document"] = documents[index]
            data.append(result)
        return json_reply({"model": model, "data": data, "usage": {"rerank_units": math.ceil(len(texts) / most)}})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        code = self.codes.get(status, "UNKNOWN" if status >= 500 else "INVALID_ARGUMENT")
        return json_reply({"error": {"code": code, "message": message}, "status": status}, status)


@dataclass
class OpenRouter(Service):
    """OpenRouter: documents always come back, as ``{"text"}``."""

    name: ClassVar[str] = "openrouter"
    path: ClassVar[str] = "/api/v1/rerank"
    prefix: ClassVar[str] = "/api"
    missing_status: ClassVar[int] = 400
    value_status: ClassVar[int] = 400
    unknown_status: ClassVar[int] = 400
    fields: ClassVar[Mapping[str, Field]] = {
        "model": required(TEXT),
        "query": required(TEXT),
        "documents": required(listed("strings or objects", lambda value: isinstance(value, (str, dict)))),
        "top_n": integer(1),
        "provider": OBJECT,
    }

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, self.fields)
        model = self.check_model(body["model"])
        texts = request.texts
        results = [
            {"document": {"text": texts[index]}, "index": index, "relevance_score": score}
            for index, score in best(self.scores(request.query, texts, model=model), body.get("top_n"))
        ]
        usage = {"search_units": math.ceil(len(texts) / 100), "total_tokens": pair_tokens(request.query, texts)}
        reply = {"id": f"gen-rerank-{request.id}", "model": model, "provider": "Test", "results": results}
        return json_reply({**reply, "usage": usage})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        return json_reply({"error": {"code": status, "message": message, "metadata": {}}}, status)
