"""What every rerank service has in common: routes, keys, bodies, errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import ClassVar

from rerank_servers.messages import Reply, Request, decode_json, json_reply
from rerank_servers.schema import Field, Problem, problems
from rerank_servers.scoring import native, relevance

Body = dict[str, object]

MEANINGS = {
    498: "invalid or blocked token",
    499: "request cancelled",
    501: "not implemented",
    524: "a timeout occurred",
}


class Refusal(Exception):
    """A request is refused.

    Args:
        status: The status code.
        message: Why.
        code: The service's own word for the reason, where it has one.
        problems: What is wrong with the fields, if that is the reason.
        extra: Further members of the error object.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str = "",
        problems: Sequence[Problem] = (),
        extra: Mapping[str, object] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.problems = list(problems)
        self.extra = dict(extra or {})


@dataclass
class Service:
    """A rerank service. Its dataclass fields are the options of ``serve``.

    Attributes:
        key: The key it wants. None: a hosted service takes any, a self-hosted one needs none.
        models: The models it knows. None: any.
        strict: Refuse unknown fields even where the real service ignores them.
    """

    name: ClassVar[str]
    path: ClassVar[str]
    # What stands between the host and the version in this service's URLs.
    prefix: ClassVar[str] = ""
    hosted: ClassVar[bool] = True
    list_key: ClassVar[str | None] = "results"
    index_key: ClassVar[str] = "index"
    score_key: ClassVar[str] = "relevance_score"
    refuses_unknown: ClassVar[bool] = True
    # The status for a body that is no JSON, that lacks a field, with a wrong value, with an unknown field.
    malformed_status: ClassVar[int] = 400
    missing_status: ClassVar[int] = 422
    value_status: ClassVar[int] = 422
    unknown_status: ClassVar[int] = 422
    unknown_model_status: ClassVar[int] = 404
    # The header with the request id, where the body has none.
    id_header: ClassVar[str | None] = "x-request-id"

    key: str | None = None
    models: Sequence[str] | None = None
    strict: bool = False

    # What a service defines.

    def rerank(self, body: Body, request: Request) -> Reply:
        """Answer a well-formed POST."""
        raise NotImplementedError

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        """An error in the service's own shape."""
        raise NotImplementedError

    def routes(self) -> Sequence[str]:
        """The paths that rerank."""
        return (self.path,)

    def serves(self, route: str) -> bool:
        """True for a path that reranks."""
        return route in self.routes()

    def get(self, request: Request) -> Reply | None:
        """Answer a GET; None where there is nothing."""
        return None

    def parsed(self, request: Request) -> object:
        """The decoded body.

        Raises:
            Refusal: It is not JSON.
        """
        try:
            return decode_json(request.body)
        except ValueError as error:
            place = {"pos": getattr(error, "pos", 0)}
            raise Refusal(
                self.malformed_status, f"the body is not JSON: {error}", code="malformed", extra=place
            ) from error

    # What they share.

    def answer(self, request: Request) -> Reply:
        """The reply to any request."""
        try:
            reply = self._served(request)
        except Refusal as refusal:
            reply = self.error(refusal.status, refusal.message, request, refusal)
        return self.signed(reply, request)

    def signed(self, reply: Reply, request: Request) -> Reply:
        """The reply with the request id in a header, where this service puts it there."""
        if self.id_header is None:
            return reply
        return replace(reply, headers={self.id_header: request.id, **reply.headers})

    def _served(self, request: Request) -> Reply:
        if request.method == "GET":
            reply = self.get(request)
            if reply is not None:
                return reply
        if not self.serves(request.route):
            raise Refusal(404, "Not Found")
        if request.method != "POST":
            raise Refusal(405, "Method Not Allowed")
        self.authenticate(request)
        if request.headers.get("content-type", "").split(";")[0].strip() != "application/json":
            raise Refusal(415, "Content-Type must be application/json")
        body = self.parsed(request)
        if not isinstance(body, dict):
            raise Refusal(self.value_status, "the body must be a JSON object", code="invalid")
        return self.rerank(body, request)

    def authenticate(self, request: Request) -> None:
        """Compare the key.

        Raises:
            Refusal: It is missing or wrong.
        """
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        self.compare(token if scheme.lower() == "bearer" else "")

    def compare(self, token: str) -> None:
        """Compare a token with the key.

        Raises:
            Refusal: It is not the one wanted.
        """
        wrong = token != self.key if self.key is not None else self.hosted and not token
        if wrong:
            raise Refusal(401, "missing API key" if not token else "invalid API key", code="unauthorised")

    def check(self, body: Body, fields: Mapping[str, Field]) -> None:
        """Refuse a body that does not fit.

        Raises:
            Refusal: With the status that the service has for the first problem.
        """
        found = problems(body, fields, refuse_unknown=self.refuses_unknown or self.strict)
        if found:
            status = {
                "missing": self.missing_status,
                "value": self.value_status,
                "unknown": self.unknown_status,
            }[found[0].kind]
            raise Refusal(status, found[0].message, problems=found, code="invalid")

    def check_model(self, model: object) -> str:
        """The name of the model.

        Raises:
            Refusal: The service does not know it.
        """
        if self.models is not None and model not in self.models:
            raise Refusal(self.unknown_model_status, f"model {model!r} not found", code="model")
        return str(model)

    def scores(self, query: str, texts: Sequence[str], *, model: str = "", raw_scores: bool = False) -> list[float]:
        """What the service reports for texts, in their order."""
        count = len(texts)
        return [
            native(self.name, relevance(query, text), model=model, raw_scores=raw_scores, count=count) for text in texts
        ]

    def meaning(self, status: int) -> str:
        """What a status code means, in words."""
        if status in MEANINGS:
            return MEANINGS[status]
        return HTTPStatus(status).phrase


def best(scores: Sequence[float], top: object = None) -> list[tuple[int, float]]:
    """Index and score of the best ``top`` results, best first, the earlier one first on ties."""
    order = sorted(enumerate(scores), key=lambda entry: -entry[1])
    return order[:top] if isinstance(top, int) else order


def fastapi_errors(refusal: Refusal | None, message: str) -> list[Body]:
    """Problems as FastAPI reports them."""
    kinds = {"missing": "missing", "value": "value_error", "unknown": "extra_forbidden"}
    found = refusal.problems if refusal is not None else []
    if refusal is not None and refusal.code == "malformed":
        return [{"type": "json_invalid", "loc": ["body", refusal.extra["pos"]], "msg": message, "input": {}}]
    if not found:
        return [{"type": "value_error", "loc": ["body"], "msg": message, "input": None}]
    return [
        {"type": kinds[each.kind], "loc": ["body", each.field], "msg": each.message, "input": each.value}
        for each in found
    ]


__all__ = ["Body", "Refusal", "Service", "best", "fastapi_errors", "json_reply"]
