"""How OpenAI's API wants to be asked and how it answers; most other servers speak it too.

Requests become the arguments of ``chat.completions.create`` or ``completions.create``, and decoded
replies become a :class:`~uprank.scorers.llm.chat.Completion`.
https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, TypeAlias

from uprank.scorers.http.messages import Reply, Unreadable, decode
from uprank.scorers.llm.chat import ChatRequest, Completion, Features, Message, Schema

__all__ = [
    "as_dicts",
    "asked",
    "chat_arguments",
    "described",
    "finish_in",
    "function",
    "logprobs_in",
    "read",
    "reply_of",
    "response_format",
    "text_arguments",
    "whole_number",
]

Finish: TypeAlias = Literal["stop", "length", "filter", "refusal"]

_MOST_LOGPROBS = 20  # OpenAI's limit, and vLLM's unless it is told otherwise
_FINISH_NAMES = ("finish_reason", "stop_reason", "stopReason", "finishReason", "done_reason")
_TOKENS = 8  # whose probabilities are read: an answer's label is among its first tokens

# What providers say of why an answer ended; what is not listed is an end like any other.
_FINISHES: dict[str, Finish] = {
    **dict.fromkeys(
        ("length", "max_tokens", "max_output_tokens", "model_length", "model_context_window_exceeded"), "length"
    ),
    **dict.fromkeys(
        (
            "content_filter",
            "content_filtered",
            "guardrail_intervened",
            "safety",
            "recitation",
            "blocklist",
            "prohibited_content",
            "spii",
            "error_toxic",
        ),
        "filter",
    ),
    "refusal": "refusal",
}


def asked(request: ChatRequest | None) -> ChatRequest:
    """The request of a call, which has one."""
    if request is None:
        raise TypeError("a call of a chat model carries a ChatRequest")
    return request


def as_dicts(messages: Sequence[Message], *, system: bool) -> list[dict[str, str]]:
    """Messages as fresh mappings.

    Args:
        messages: In their order.
        system: Whether the system role is taken; if not, its text begins the first user message.
    """
    if system:
        return [{"role": message.role, "content": message.content} for message in messages]
    rules = [message.content for message in messages if message.role == "system"]
    others = [{"role": message.role, "content": message.content} for message in messages if message.role != "system"]
    first = next((message for message in others if message["role"] == "user"), None)
    if rules and first is None:
        return [{"role": "user", "content": "\n\n".join(rules)}, *others]
    if first is not None:
        first["content"] = "\n\n".join([*rules, first["content"]])
    return others


def chat_arguments(request: ChatRequest, features: Features) -> dict[str, object]:
    """What ``chat.completions.create`` is given, all but the model and the messages."""
    used = features.used(request)
    limit = "max_tokens" if "max_tokens" in used else "max_completion_tokens"
    arguments: dict[str, object] = {limit: request.max_tokens}
    if "temperature" in used:
        arguments["temperature"] = request.temperature
    if "seed" in used:
        arguments["seed"] = request.seed
    if "logprobs" in used:
        arguments |= {"logprobs": True, "top_logprobs": min(request.top_logprobs, _MOST_LOGPROBS)}
    if "json_schema" in used and request.schema is not None:
        arguments["response_format"] = response_format(request.schema)
    if "tools" in used and request.tool is not None:
        arguments["tools"] = [function(request.tool)]
        arguments["tool_choice"] = {"type": "function", "function": {"name": request.tool.name}}
    return arguments


def text_arguments(request: ChatRequest, features: Features) -> dict[str, object]:
    """What ``completions.create`` is given, all but the model; the answer's shape cannot be asked for there."""
    used = features.used(request)
    arguments: dict[str, object] = {"prompt": request.text, "max_tokens": request.max_tokens}
    if "temperature" in used:
        arguments["temperature"] = request.temperature
    if "seed" in used:
        arguments["seed"] = request.seed
    if "logprobs" in used:
        arguments["logprobs"] = min(request.top_logprobs, _MOST_LOGPROBS)
    return arguments


def response_format(schema: Schema) -> dict[str, object]:
    """An answer held to a schema."""
    return {"type": "json_schema", "json_schema": {**described(schema), "schema": dict(schema.schema), "strict": True}}


def function(schema: Schema) -> dict[str, object]:
    """A function whose arguments are held to a schema."""
    return {"type": "function", "function": {**described(schema), "parameters": dict(schema.schema), "strict": True}}


def described(schema: Schema) -> dict[str, object]:
    """A schema's name and description."""
    return {"name": schema.name, "description": schema.description}


def reply_of(status: int, headers: Mapping[str, str], content: bytes, request: ChatRequest) -> Reply:
    """One HTTP reply, with the completion it carries if it is one.

    A router may answer 200 before the provider behind it fails; what it then says is the status.
    """
    data = decode(content)
    if not 200 <= status < 300:
        return Reply(status, headers, data)
    completion = read(data, request)
    if completion is not None:
        return Reply(200, headers, completion)
    if isinstance(data, (Mapping, Unreadable)):
        return Reply(_status_within(data) or status, headers, data)
    return Reply(status, headers, Unreadable(content[:2000].decode("utf-8", "replace")))


def read(data: object, request: ChatRequest) -> Completion | None:
    """The completion in a decoded body; ``None`` where there is none.

    Args:
        data: Of a chat, or of a bare text.
        request: What was asked: which function's arguments are the answer.
    """
    choices = data.get("choices") if isinstance(data, Mapping) else None
    choice = choices[0] if isinstance(choices, list) and choices else None
    if not isinstance(data, Mapping) or not isinstance(choice, Mapping) or choice.get("error"):
        return None
    message = choice.get("message")
    finish = finish_of(choice.get("finish_reason"))
    if isinstance(message, Mapping):
        text = _said(message, request)
        refusal = message.get("refusal")
        if isinstance(refusal, str) and refusal and finish in ("stop", "refusal"):
            text, finish = text or refusal, "refusal"
    elif isinstance(choice.get("text"), str):
        text = choice["text"]
    else:
        return None
    usage = data.get("usage")
    counts: Mapping[str, object] = usage if isinstance(usage, Mapping) else {}
    return Completion(
        text,
        finish,
        logprobs_in(choice.get("logprobs")) if request.top_logprobs else (),
        whole_number(counts.get("prompt_tokens")),
        whole_number(counts.get("completion_tokens")),
    )


def _said(message: Mapping[str, object], request: ChatRequest) -> str:
    """The arguments of the function that was to be called, else the text."""
    calls = message.get("tool_calls")
    for call in calls if isinstance(calls, list) and request.tool is not None else ():
        called = call.get("function") if isinstance(call, Mapping) else None
        if isinstance(called, Mapping) and request.tool is not None and called.get("name") == request.tool.name:
            arguments = called.get("arguments")
            return arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    content = message.get("content")
    if isinstance(content, list):  # in parts, some of which are thoughts
        parts = [part.get("text") for part in content if isinstance(part, Mapping) and part.get("type") == "text"]
        return "".join(part for part in parts if isinstance(part, str))
    return content if isinstance(content, str) else ""


def finish_in(about: Mapping[str, object]) -> Finish:
    """Why an answer ended, from what a provider says about it, under whichever name."""
    cut = about.get("incomplete_details")  # of OpenAI's Responses API
    if isinstance(cut, Mapping):
        return finish_of(cut.get("reason"))
    return finish_of(next((about[name] for name in _FINISH_NAMES if about.get(name)), None))


def finish_of(word: object) -> Finish:
    """Why an answer ended, from what the provider calls it."""
    return _FINISHES.get(word.lower(), "stop") if isinstance(word, str) else "stop"


def logprobs_in(found: object) -> tuple[Mapping[str, float], ...]:
    """For each of the first tokens, the logarithms of the probabilities of the likely ones."""
    if not isinstance(found, Mapping):
        return ()
    content, tops = found.get("content"), found.get("top_logprobs")
    if isinstance(content, list):  # of a chat: one object a token
        return tuple(_token(entry) for entry in content[:_TOKENS])
    if isinstance(tops, list):  # of a bare text: parallel lists
        return tuple(_finite(top.items()) if isinstance(top, Mapping) else {} for top in tops[:_TOKENS])
    return ()


def _token(entry: object) -> Mapping[str, float]:
    if not isinstance(entry, Mapping):
        return {}
    tops = entry.get("top_logprobs")
    each = [top for top in [*(tops if isinstance(tops, list) else []), entry] if isinstance(top, Mapping)]
    return _finite((top.get("token"), top.get("logprob")) for top in each)


def _finite(pairs: Iterable[tuple[object, object]]) -> Mapping[str, float]:
    """The first value of each token; what is no number is left out, as JSON has none for a probability of 0."""
    found: dict[str, float] = {}
    for token, value in pairs:
        if isinstance(token, str) and isinstance(value, (int, float)) and math.isfinite(value):
            found.setdefault(token, float(value))
    return found


def whole_number(value: object) -> int | None:
    """A count, where there is one."""
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _status_within(data: object) -> int | None:
    """The status that the body of a success says the provider behind it answered."""
    if not isinstance(data, Mapping):
        return None
    choices = data.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    for place in (data, first):
        error = place.get("error") if isinstance(place, Mapping) else None
        code = error.get("code") if isinstance(error, Mapping) else None
        if isinstance(code, int) and 400 <= code <= 599:
            return code
    return None
