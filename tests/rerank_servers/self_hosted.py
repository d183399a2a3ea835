"""Infinity, Xinference and LocalAI."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from rerank_servers.messages import Reply, Request
from rerank_servers.schema import FLAG, TEXT, TEXTS, TEXTS_OR_NONE, Field, Problem, integer, not_null, required
from rerank_servers.scoring import pair_tokens
from rerank_servers.service import Body, Refusal, Service, best, fastapi_errors, json_reply


@dataclass
class Infinity(Service):
    """Infinity: strings are stripped before anything else, echoed documents are plain strings.

    With a single one of ``models`` it answers to any name, with several to theirs only.

    Attributes:
        max_documents: Documents in a request; more get 422. Default 2,048.
        url_prefix: What it was started with, such as "/v1". Default: none.
    """

    name: ClassVar[str] = "infinity"
    path: ClassVar[str] = "/rerank"
    hosted: ClassVar[bool] = False
    refuses_unknown: ClassVar[bool] = False
    malformed_status: ClassVar[int] = 422
    unknown_model_status: ClassVar[int] = 400
    id_header: ClassVar[str | None] = None
    fields: ClassVar[Mapping[str, Field]] = {
        "query": required(
            Field(
                "a string of at most 122880 characters", lambda value: isinstance(value, str) and len(value) <= 122880
            )
        ),
        "documents": required(TEXTS),
        "return_documents": not_null(FLAG),
        "raw_scores": not_null(FLAG),
        "model": not_null(TEXT),
        "top_n": integer(1),
    }

    max_documents: int = 2048
    url_prefix: str = ""

    def routes(self) -> Sequence[str]:
        return (self.url_prefix + self.path,)

    def get(self, request: Request) -> Reply | None:
        return json_reply({"unix": 1_780_000_000.0}) if request.route == "/health" else None

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, self.fields)
        query, texts = request.query.strip(), [text.strip() for text in request.texts]
        if len(texts) > self.max_documents:
            most = f"List should have at most {self.max_documents} items after validation, not {len(texts)}"
            raise Refusal(422, most, problems=[Problem("value", "documents", most, body["documents"])])
        alone = self.models is not None and len(self.models) == 1
        model = (
            self.models[0] if alone and self.models else self.check_model(body.get("model", "default/not-specified"))
        )
        raw = body.get("raw_scores") is True
        echoed = body.get("return_documents") is True
        results = [
            {"relevance_score": score, "index": index, "document": texts[index] if echoed else None}
            for index, score in best(self.scores(query, texts, model=model, raw_scores=raw), body.get("top_n"))
        ]
        total = pair_tokens(query, texts)
        reply = {"object": "rerank", "results": results, "model": model, "id": f"infinity-{request.id}"}
        usage = {"prompt_tokens": total, "total_tokens": total}
        return json_reply({**reply, "usage": usage, "created": 1_780_000_000})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if status == 422:
            return json_reply({"detail": fastapi_errors(refusal, message)}, status)
        if status == 401:
            return json_reply({"detail": "Unauthorized"}, status, {"WWW-Authenticate": "Bearer"})
        if status in (404, 405):
            return json_reply({"detail": message}, status)
        return json_reply({"error": {"message": message, "type": None, "param": None, "code": status}}, status)


@dataclass
class Xinference(Service):
    """Xinference: nearly every error is a 500; the engine decides what an echoed document looks like.

    Attributes:
        engine: "transformers" echoes ``{"text"}`` and refuses ``max_chunks_per_doc``, "llama.cpp" echoes strings.
    """

    name: ClassVar[str] = "xinference"
    path: ClassVar[str] = "/v1/rerank"
    hosted: ClassVar[bool] = False
    refuses_unknown: ClassVar[bool] = False
    id_header: ClassVar[str | None] = None
    malformed_status: ClassVar[int] = 400
    missing_status: ClassVar[int] = 500
    value_status: ClassVar[int] = 500
    unknown_model_status: ClassVar[int] = 400
    fields: ClassVar[Mapping[str, Field]] = {
        "model": required(TEXT),
        "query": required(TEXT),
        "documents": required(TEXTS),
        "top_n": integer(1),
        "return_documents": FLAG,
        "return_len": FLAG,
        "max_chunks_per_doc": integer(1),
        "kwargs": TEXT,
    }

    engine: Literal["transformers", "llama.cpp"] = "transformers"

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, self.fields)
        model = self.check_model(body["model"])
        if self.engine == "transformers" and body.get("max_chunks_per_doc") is not None:
            raise Refusal(500, "rerank hasn't support `max_chunks_per_doc` parameter")
        if isinstance(body.get("kwargs"), str):
            try:
                json.loads(str(body["kwargs"]))
            except ValueError as error:
                raise Refusal(500, f"kwargs is not JSON: {error}") from error
        texts = request.texts
        results: list[Body] = []
        for index, score in best(self.scores(request.query, texts, model=model), body.get("top_n")):
            echo: object = None
            if body.get("return_documents"):
                echo = {"text": texts[index]} if self.engine == "transformers" else texts[index]
            results.append({"index": index, "relevance_score": score, "document": echo})
        total = pair_tokens(request.query, texts)
        counted = {"input_tokens": total, "output_tokens": total} if body.get("return_len") else None
        meta = {"api_version": None, "billed_units": None, "tokens": counted, "warnings": None}
        return json_reply({"id": request.id, "results": results, "meta": meta})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        return json_reply({"detail": message}, status)


@dataclass
class LocalAi(Service):
    """LocalAI: Jina's shape, documents always come back, a ``top_n`` below 1 is refused with a bare JSON string."""

    name: ClassVar[str] = "localai"
    path: ClassVar[str] = "/v1/rerank"
    hosted: ClassVar[bool] = False
    refuses_unknown: ClassVar[bool] = False
    id_header: ClassVar[str | None] = None
    missing_status: ClassVar[int] = 400
    value_status: ClassVar[int] = 400
    unknown_status: ClassVar[int] = 400
    fields: ClassVar[Mapping[str, Field]] = {
        "model": required(Field("a non-empty string", lambda value: isinstance(value, str) and value != "")),
        "query": required(TEXT),
        "documents": required(TEXTS_OR_NONE),
        "top_n": Field("an integer", lambda value: isinstance(value, int) and not isinstance(value, bool)),
        "backend": TEXT,
    }

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, self.fields)
        model = self.check_model(body["model"])
        top = body.get("top_n")
        if isinstance(top, int) and top < 1:
            return json_reply("top_n - should be greater than or equal to 1", 422)
        query, texts = request.query, request.texts
        if not query or not texts:
            raise Refusal(500, "rpc error: code = InvalidArgument desc = query and documents must not be empty")
        results = [
            {"index": index, "document": {"text": texts[index]}, "relevance_score": score}
            for index, score in best(self.scores(query, texts, model=model), top)
        ]
        total = pair_tokens(query, texts)
        usage = {"total_tokens": total, "prompt_tokens": total}
        return json_reply({"model": model, "usage": usage, "results": results})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if status == 401:
            message = "an authentication key is required"
        return json_reply({"error": {"code": status, "message": message, "type": ""}}, status)
