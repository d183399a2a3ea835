"""NVIDIA's text reranking microservice, self-hosted and hosted."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from rerank_servers.messages import Reply, Request
from rerank_servers.schema import TEXT, Field, holds, listed, not_null, one_of, required
from rerank_servers.scoring import pair_tokens
from rerank_servers.service import Body, Refusal, Service, best, json_reply


def _has_content(value: object, *keys: str) -> bool:
    return holds(value, *keys) and isinstance(value, dict) and all(value.values())


FIELDS: Mapping[str, Field] = {
    "model": required(TEXT),
    "query": required(Field("an object with a text", lambda value: _has_content(value, "text"))),
    "passages": required(listed("objects with a text or an image", lambda value: _has_content(value, "text", "image"))),
    "truncate": not_null(one_of("NONE", "END")),
}
HOSTED = "/v1/retrieval/"
END = "/reranking"


@dataclass
class Nvidia(Service):
    """NVIDIA: texts are objects, results are called ``rankings``, scores are logits, and there is no top_n.

    Both ``/v1/ranking`` and the hosted path are served; in the latter the model's dots are underscores. A key is
    wanted on the hosted path, and on the other where one is set.

    Attributes:
        max_passages: Passages in a request; more get 422. Default 512.
        max_tokens: Tokens of a query and a passage; more get 400 unless ``truncate`` is "END", as it is by default on
            the hosted path only. Default 8,192.
    """

    name: ClassVar[str] = "nvidia"
    path: ClassVar[str] = "/v1/ranking"
    list_key: ClassVar[str | None] = "rankings"
    score_key: ClassVar[str] = "logit"

    max_passages: int = 512
    max_tokens: int = 8192

    def serves(self, route: str) -> bool:
        return route == self.path or self._hosted(route)

    def _hosted(self, route: str) -> bool:
        return route.startswith(HOSTED) and route.endswith(END) and len(route) > len(HOSTED) + len(END)

    def get(self, request: Request) -> Reply | None:
        return (
            json_reply({"object": "health.response", "message": "ready"})
            if request.route == "/v1/health/ready"
            else None
        )

    def authenticate(self, request: Request) -> None:
        if self.key is not None or self._hosted(request.route):
            super().authenticate(request)

    def rerank(self, body: Body, request: Request) -> Reply:
        self.check(body, FIELDS)
        model = self.check_model(body["model"])
        if self._hosted(request.route):
            named = request.route[len(HOSTED) : -len(END)]
            if named != model.replace(".", "_"):
                raise Refusal(404, f"no function serves {named!r} with the model {model!r}")
        texts = request.texts
        if len(texts) > self.max_passages:
            raise Refusal(422, f"at most {self.max_passages} passages are allowed, got {len(texts)}")
        longest = max(pair_tokens(request.query, [text]) for text in texts)
        truncate = body.get("truncate", "END" if self._hosted(request.route) else "NONE")
        if longest > self.max_tokens and truncate == "NONE":
            raise Refusal(400, f"a query and passage have {longest} tokens, more than {self.max_tokens}")
        rankings = [
            {"index": index, "logit": score} for index, score in best(self.scores(request.query, texts, model=model))
        ]
        total = pair_tokens(request.query, texts)
        return json_reply({"rankings": rankings, "usage": {"prompt_tokens": total, "total_tokens": total}})

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        if self._hosted(request.route):
            title = self.meaning(status)
            return json_reply({"type": "about:blank", "status": status, "title": title, "detail": message}, status)
        kind = "invalid_request_error" if status < 500 else "internal_server_error"
        return json_reply({"object": "error", "message": message, "detail": {}, "type": kind}, status)
