"""vLLM: ``/rerank`` in three places, and ``/score``, which keeps the order of the input."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from rerank_servers.messages import Reply, Request, text_of
from rerank_servers.schema import FLAG, OBJECT, TEXT, Field, integer, not_null, one_of, required
from rerank_servers.scoring import pair_tokens
from rerank_servers.service import Body, Refusal, Service, best, json_reply


def _is_input(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, dict) and set(value) == {"content"})


INPUT = Field("a string or an object with content", _is_input)
INPUTS = Field(
    "a string, an object with content, or a list of these",
    lambda value: _is_input(value) or (isinstance(value, list) and all(map(_is_input, value))),
)
SHARED: Mapping[str, Field] = {
    "model": TEXT,
    "truncate_prompt_tokens": integer(-1),
    "truncation_side": one_of("left", "right"),
    "use_activation": FLAG,
    "priority": not_null(integer(0, 0)),
    "user": TEXT,
    "request_id": TEXT,
    "mm_processor_kwargs": OBJECT,
    "cache_salt": TEXT,
}
RERANK: Mapping[str, Field] = {
    **SHARED,
    "query": required(INPUT),
    "documents": required(INPUTS),
    "top_n": not_null(integer(0)),
    "max_tokens_per_doc": not_null(integer(0)),
    "max_tokens_per_query": not_null(integer(0)),
}
PAIRS = (("data_1", "data_2"), ("text_1", "text_2"), ("queries", "documents"), ("queries", "items"))
RERANK_ROUTES = ("/rerank", "/v1/rerank", "/v2/rerank")
SCORE_ROUTES = ("/score", "/v1/score")


def _as_list(value: object) -> list[object]:
    return value if isinstance(value, list) else [value]


@dataclass
class Vllm(Service):
    """vLLM: null ``top_n`` is refused, unknown fields are ignored, documents always come back.

    Attributes:
        old_errors: Errors as older versions write them, not wrapped in ``error``.
        max_model_len: Tokens of a query and a document; more get 400 unless ``truncate_prompt_tokens`` is sent.
            Default 8,192.
    """

    name: ClassVar[str] = "vllm"
    path: ClassVar[str] = "/v1/rerank"
    hosted: ClassVar[bool] = False
    refuses_unknown: ClassVar[bool] = False
    missing_status: ClassVar[int] = 400
    value_status: ClassVar[int] = 400
    unknown_status: ClassVar[int] = 400
    id_header: ClassVar[str | None] = None

    old_errors: bool = False
    max_model_len: int = 8192

    def routes(self) -> Sequence[str]:
        return (*RERANK_ROUTES, *SCORE_ROUTES)

    def get(self, request: Request) -> Reply | None:
        return Reply() if request.route == "/health" else None

    def rerank(self, body: Body, request: Request) -> Reply:
        if request.route in SCORE_ROUTES:
            return self._score(body, request)
        self.check(body, RERANK)
        model = self.check_model(body.get("model") or "served-model")
        query, documents = text_of(body["query"]), _as_list(body["documents"])
        if not documents:
            raise Refusal(400, "at least one document is needed")
        texts = [text_of(document) for document in documents]
        self._check_length(body, [(query, text) for text in texts])
        scores = self.scores(query, texts, model=model, raw_scores=body.get("use_activation") is False)
        results = [
            {"index": index, "document": {"text": texts[index], "multi_modal": None}, "relevance_score": score}
            for index, score in best(scores, body.get("top_n") or None)
        ]
        usage = self._usage([(query, text) for text in texts])
        return json_reply({"id": f"score-{request.id}", "model": model, "usage": usage, "results": results})

    def _score(self, body: Body, request: Request) -> Reply:
        names = next((pair for pair in PAIRS if all(name in body for name in pair)), None)
        if names is None:
            raise Refusal(400, "data_1 and data_2, or queries and documents, are required")
        self.check(body, {**SHARED, names[0]: required(INPUTS), names[1]: required(INPUTS)})
        model = self.check_model(body.get("model") or "served-model")
        left = [text_of(each) for each in _as_list(body[names[0]])]
        right = [text_of(each) for each in _as_list(body[names[1]])]
        if not left or not right:
            raise Refusal(400, "at least one text is needed on either side")
        if len(left) == 1:
            left *= len(right)
        if len(left) != len(right):
            raise Refusal(400, f"{len(left)} texts on one side, {len(right)} on the other")
        pairs = list(zip(left, right, strict=True))
        self._check_length(body, pairs)
        raw = body.get("use_activation") is False
        data = [
            {
                "index": index,
                "object": "score",
                "score": self.scores(query, [text], model=model, raw_scores=raw)[0],
            }
            for index, (query, text) in enumerate(pairs)
        ]
        reply = {"id": f"score-{request.id}", "object": "list", "created": 1_780_000_000, "model": model, "data": data}
        return json_reply({**reply, "usage": self._usage(pairs)})

    def _check_length(self, body: Body, pairs: Sequence[tuple[str, str]]) -> None:
        longest = max(pair_tokens(query, [text]) for query, text in pairs)
        if longest > self.max_model_len and body.get("truncate_prompt_tokens") is None:
            raise Refusal(
                400,
                f"This model's maximum context length is {self.max_model_len} tokens, the input has {longest}.",
                code="input_tokens",
            )

    def _usage(self, pairs: Sequence[tuple[str, str]]) -> Body:
        total = sum(pair_tokens(query, [text]) for query, text in pairs)
        return {"prompt_tokens": total, "total_tokens": total, "completion_tokens": 0}

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if status == 401:
            return json_reply({"error": "Unauthorized"}, status)
        if status == 404 and not self.serves(request.route):
            return json_reply({"detail": "Not Found"}, status)
        kinds = {400: "BadRequestError", 404: "NotFoundError", 429: "RateLimitError"}
        kind = kinds.get(status, "BadRequestError" if status < 500 else "InternalServerError")
        if self.old_errors:
            value = {"object": "error", "message": message, "type": kind, "param": None, "code": status}
            return json_reply(value, status)
        param = None
        if refusal is not None:
            param = refusal.problems[0].field if refusal.problems else refusal.code or None
        return json_reply({"error": {"message": message, "type": kind, "param": param, "code": status}}, status)


@dataclass
class VllmScore(Vllm):
    """vLLM driven through ``/v1/score``: the results are called ``data`` and keep the order of the input."""

    name: ClassVar[str] = "vllm-score"
    path: ClassVar[str] = "/v1/score"
    list_key: ClassVar[str | None] = "data"
    score_key: ClassVar[str] = "score"
