"""The chat service: what it answers, and what it refuses."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

from chat_servers.checks import CHAT, PLAIN, check_format, check_tools, messages_of
from rerank_servers.messages import Reply, Request
from rerank_servers.schema import problems
from rerank_servers.service import Refusal, Service, json_reply

__all__ = ["WORDINGS", "Body", "Brain", "Chat", "Said", "lacking"]

Body = dict[str, object]
Brain = Callable[[list[dict[str, str]], Body], "str | Said"]


@dataclass(frozen=True)
class Said:
    """An answer with probabilities.

    Attributes:
        text: What is said.
        logprobs: Of the first tokens, the logarithm of the probability of each likely one. Default:
            each token that is said has nearly all of the probability.
    """

    text: str
    logprobs: Sequence[Mapping[str, float]] = ()


# How each feature is refused: parameter, code, message.
WORDINGS: dict[str, tuple[str | None, str | None, str]] = {
    "json_schema": (
        None,
        None,
        "Invalid parameter: 'response_format' of type 'json_schema' is not supported with this model. Learn more about "
        "supported models at the Structured Outputs guide: https://platform.openai.com/docs/guides/structured-outputs",
    ),
    "tools": (None, None, "registry.ollama.ai/library/gemma3:1b does not support tools"),
    "logprobs": (
        "logprobs",
        "unsupported_parameter",
        "Unsupported parameter: 'logprobs' is not supported with this model.",
    ),
    "seed": (None, None, "Unrecognized request argument supplied: seed"),
    "temperature": (
        "temperature",
        "unsupported_value",
        "Unsupported value: 'temperature' does not support 0 with this model. Only the default (1) value is supported.",
    ),
    "max_tokens": (
        "max_tokens",
        "unsupported_parameter",
        "Unsupported parameter: 'max_tokens' is not supported with this model. Use 'max_completion_tokens' instead.",
    ),
    "system": (
        "messages[0].role",
        "unsupported_value",
        "Unsupported value: 'messages[0].role' does not support 'system' with this model.",
    ),
}

_TOKEN = re.compile(r"\s?\w{1,6}|\s?[^\w\s]|\s")


def tokens(text: str) -> list[str]:
    """A text in pieces that add up to it."""
    return _TOKEN.findall(text)


@dataclass
class Chat(Service):
    """The service itself; ``chat_server`` tells of its options."""

    name: ClassVar[str] = "chat"
    path: ClassVar[str] = "/v1/chat/completions"
    prefix: ClassVar[str] = "/v1"
    value_status: ClassVar[int] = 400
    missing_status: ClassVar[int] = 400
    unknown_status: ClassVar[int] = 400

    brain: Brain = field(default=lambda messages, body: "")
    lacks: Collection[str] = ()

    def routes(self) -> Sequence[str]:
        return (self.path, "/v1/completions")

    def get(self, request: Request) -> Reply | None:
        if request.route != "/v1/models":
            return None
        self.authenticate(request)
        known = [{"id": name, "object": "model", "owned_by": "tests"} for name in self.models or ("m",)]
        return json_reply({"object": "list", "data": known})

    def compare(self, token: str) -> None:
        if self.key is not None and token != self.key:
            said = f"Incorrect API key provided: {token}. You can find your API key in your account."
            raise Refusal(401, said if token else "You didn't provide an API key.", code="invalid_api_key")

    def error(self, status: int, message: str, request: Request, refusal: Refusal | None = None) -> Reply:
        about = {} if refusal is None else refusal.extra
        kind = "invalid_request_error" if status < 500 else "server_error"
        code = refusal.code if refusal is not None and refusal.code else None
        return json_reply({"error": {"message": message, "type": kind, "param": None, "code": code, **about}}, status)

    def rerank(self, body: Body, request: Request) -> Reply:
        chat = request.route == self.path
        found = problems(body, CHAT if chat else PLAIN, refuse_unknown=True)
        if found:
            first = found[0]
            raise Refusal(
                400,
                f"Unrecognized request argument supplied: {first.field}" if first.kind == "unknown" else first.message,
                extra={"param": None if first.kind == "unknown" else first.field},
            )
        if self.models is not None and body["model"] not in self.models:
            message = f"The model `{body['model']}` does not exist or you do not have access to it."
            raise Refusal(404, message, code="model_not_found")
        if body.get("stream"):
            raise Refusal(400, "this server does not stream", extra={"param": "stream"})
        for feature in self.lacks:
            if _asks(feature, body):
                raise lacking(feature)
        return self._chat(body, request) if chat else self._plain(body, request)

    def _chat(self, body: Body, request: Request) -> Reply:
        messages = messages_of(body["messages"])
        check_format(body.get("response_format"))
        called, forced = check_tools(body)
        if "max_tokens" in body and "max_completion_tokens" in body:
            raise Refusal(400, "Setting 'max_tokens' and 'max_completion_tokens' at the same time is not supported.")
        if "top_logprobs" in body and not body.get("logprobs"):
            raise Refusal(400, "'top_logprobs' needs 'logprobs' to be true.", extra={"param": "top_logprobs"})
        said = self._said(messages, body)
        limit = body.get("max_tokens") or body.get("max_completion_tokens")
        pieces, finish = _cut(said.text, limit)
        text = "".join(pieces)
        message: Body = {"role": "assistant", "content": text, "refusal": None}
        if called is not None:
            call = {"id": f"call_{request.number}", "type": "function", "function": {"name": called, "arguments": text}}
            message |= {"content": None, "tool_calls": [call]}
            finish = "tool_calls" if finish == "stop" and not forced else finish
        content = _entries(pieces, said, int(str(body.get("top_logprobs") or 0))) if body.get("logprobs") else None
        logprobs = None if content is None or called is not None else {"content": content, "refusal": None}
        choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": logprobs}
        asked = sum(len(tokens(each["content"])) for each in messages)
        return self._done("chat.completion", choice, asked, len(pieces), body, request)

    def _plain(self, body: Body, request: Request) -> Reply:
        prompt = str(body["prompt"])
        said = self._said([{"role": "user", "content": prompt}], body)
        pieces, finish = _cut(said.text, body.get("max_tokens") or 16)
        logprobs: Body | None = None
        if "logprobs" in body:
            entries = _entries(pieces, said, int(str(body["logprobs"])))
            logprobs = {
                "tokens": pieces,
                "token_logprobs": [entry["logprob"] for entry in entries],
                "top_logprobs": [{top["token"]: top["logprob"] for top in entry["top_logprobs"]} for entry in entries],  # type: ignore[attr-defined]
                "text_offset": [0] * len(pieces),
            }
        choice = {"index": 0, "text": "".join(pieces), "finish_reason": finish, "logprobs": logprobs}
        return self._done("text_completion", choice, len(tokens(prompt)), len(pieces), body, request)

    def _said(self, messages: list[dict[str, str]], body: Body) -> Said:
        said = self.brain(messages, body)
        return Said(said) if isinstance(said, str) else said

    def _done(self, kind: str, choice: Body, asked: int, said: int, body: Body, request: Request) -> Reply:
        usage = {"prompt_tokens": asked, "completion_tokens": said, "total_tokens": asked + said}
        return json_reply(
            {
                "id": f"chatcmpl-{request.number}",
                "object": kind,
                "created": 1_700_000_000,
                "model": body["model"],
                "choices": [choice],
                "usage": usage,
            }
        )


def _asks(feature: str, body: Body) -> bool:
    if feature == "system":
        found = body.get("messages")
        return isinstance(found, list) and any(
            isinstance(each, dict) and each.get("role") == "system" for each in found
        )
    names = {"json_schema": "response_format", "tools": "tools"}
    return names.get(feature, feature) in body


def lacking(feature: str) -> Refusal:
    """How a feature is refused."""
    parameter, code, message = WORDINGS[feature]
    return Refusal(400, message, code=code or "", extra={"param": parameter})


def _cut(text: str, limit: object) -> tuple[list[str], str]:
    pieces = tokens(text)
    return (pieces[:limit], "length") if isinstance(limit, int) and len(pieces) > limit else (pieces, "stop")


def _entries(pieces: Sequence[str], said: Said, most: int) -> list[Body]:
    """One entry a token: itself, and the likeliest ones."""
    found: list[Body] = []
    for number, piece in enumerate(pieces):
        own = dict(said.logprobs[number]) if number < len(said.logprobs) else {piece: -0.01, f"{piece}~": -4.6}
        tops = sorted(own.items(), key=lambda pair: -pair[1])[:most]
        found.append({**_entry(piece, own.get(piece, -9999.0)), "top_logprobs": [_entry(*pair) for pair in tops]})
    return found


def _entry(token: str, logprob: float) -> Body:
    return {"token": token, "logprob": logprob, "bytes": list(token.encode())}
