"""What a refusing reply is about: a feature that the model lacks, or its provider's filter of contents.

Servers that speak one dialect word their refusals in many ways. The few that say which parameter
they mean are believed; of the others, a sentence counts that names a feature and says that it is
not to be had. Sources: the error messages of OpenAI, Azure, Gemini, DeepSeek, Groq, Mistral,
OpenRouter, vLLM, llama.cpp, Ollama and LM Studio, as their users report them.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping

from uprank.scorers.http.failures import message_of
from uprank.scorers.http.messages import Reply, Unreadable
from uprank.scorers.llm.chat import ChatRequest, Feature, Features

__all__ = ["is_filtered", "unsupported_feature"]

# 404 is OpenRouter's where no provider of a model has the feature, 500 is llama.cpp's.
_REFUSALS = frozenset({400, 404, 405, 415, 422, 500, 501})

# How the parameters of a feature are called, and how sentences speak of it.
_PARAMETERS: dict[Feature, str] = {
    "json_schema": r"response_format|json_schema|structured_outputs?|guided_json|text\.format",
    "tools": r"tools?|tool_choice|functions?|function_call|parallel_tool_calls",
    "logprobs": r"(top_)?logprobs",
    "seed": r"seed|random_seed",
    "temperature": r"temperature",
    "max_tokens": r"max_tokens",
    "system": r"messages\W+0\W+role|system|role",
}
_WORDS: dict[Feature, str] = {
    "json_schema": r"response[_ ]formats?|json[_ ]schemas?|structured[_ ]outputs?|json[_ ]mode|guided[_ ]json|grammar",
    "tools": r"tools?|tool[_ ](choice|use|calls?|calling)|function[_ ]call(s|ing)?|functions",
    "logprobs": r"(top[_ ])?log[_ ]?probs|log[_ ]?probabilities",
    "seed": r"seed",
    "temperature": r"temperature",
    "max_tokens": r"max_tokens",
    "system": r"(?<!optional )system['\"`]? (role|message|prompt|instruction)s?|['\"`]system['\"`]"
    r"|developer instructions?|(?<!system message, )conversation roles must alternate",
}
_LACKS = (
    r"un(supported|available|known|recogni[sz]ed|expected)"
    r"|(not|n't|never)( \w+)? (support\w*|available|accept\w*|permitted|enabled|implemented)"
    r"|cannot find field|extra_forbidden|extra inputs|not allowed|endpoints? found that support"
)
_BADLY = (
    r"requires?\b.{0,60} --|(must|should) (be|alternate)|invalid (schema|type|value|parameter|tool_choice)"
    r"|greater than max allowed|enabled only for|failed to (parse|compile|convert)"
)
_LIMIT_LACKS = re.compile(
    rf"{_LACKS}|use ['\"`]?max_completion_tokens", re.IGNORECASE
)  # other limits are only too large
_ANY_LACKS = re.compile(rf"{_LACKS}|{_BADLY}", re.IGNORECASE)
_SENTENCE = re.compile(r"(?<=[.;!?])\s+")
_PLACES = re.compile(r"['\"]loc['\"]:\s*[(\[]\s*['\"]body['\"],\s*['\"](\w+)")  # of a list of problems, as text
_LONGEST = 2000  # characters; what follows may be a repetition of the request

# Refusals that name parameters, and are about something else.
_TOO_LONG = re.compile(
    r"context[_ ](length|window|size)|too (long|large)|maximum (allowed )?(number of )?tokens|reduce the length",
    re.IGNORECASE,
)
_FILTER_CODES = re.compile(
    r"content_?filter|content_policy|responsible_?ai|moderation|data_?inspection_?failed|sensitive_content",
    re.IGNORECASE,
)
_FILTER_WORDS = re.compile(
    r"content management policy|content[_ ]filter|content exists risk|flagged (for|by|as)|inappropriate content"
    r"|usage polic(y|ies)|considered high risk|requires moderation",
    re.IGNORECASE,
)


def unsupported_feature(reply: Reply, request: ChatRequest, features: Features) -> frozenset[Feature]:
    """Which features a refusal says the model does not take.

    Args:
        reply: What came back.
        request: What was asked.
        features: What the model was believed to take when the request was sent. Others may have
            dropped some of them meanwhile; of those nothing is said.

    Returns:
        Some of what the request used; nothing where the refusal is about something else, such as a
        prompt that is too long, a model that is not known, or a filter of contents.
    """
    if reply.status not in _REFUSALS or is_filtered(reply):
        return frozenset()
    used, found = features.used(request), set[Feature]()
    for error in _errors(reply.data):
        text = _text(error)
        if _TOO_LONG.search(text) or "context_length" in _word(error, "code"):
            return frozenset()
        listed = [*_places(error), *_PLACES.findall(text)]  # whose texts may repeat what was sent
        found |= _by_place([_word(error, "param"), *listed], error, text, used) or (
            set() if listed else _by_text(text, used)
        )
    return frozenset(found)


def is_filtered(reply: Reply) -> bool:
    """Whether a provider's filter of contents refused the prompt."""
    if reply.status < 400:
        return False
    for error in _errors(reply.data):
        inner = error.get("innererror")
        codes = [_word(error, "code"), _word(error, "type"), _word(inner, "code") if isinstance(inner, Mapping) else ""]
        if any(_FILTER_CODES.search(code) for code in codes) or _FILTER_WORDS.search(_text(error)):
            return True
    return False


def _by_place(places: Iterable[str], error: Mapping[str, object], text: str, used: frozenset[Feature]) -> set[Feature]:
    """By the parameters that the error says it is about."""
    said = _word(error, "code").startswith("unsupported") or _LIMIT_LACKS.search(text)
    found: set[Feature] = set()
    for place in places:
        for feature in used:
            named = re.match(rf"(body\.)?({_PARAMETERS[feature]})(?![a-z_])", place, re.IGNORECASE)
            if named and (said or feature != "max_tokens"):
                found.add(feature)
    return found


def _by_text(text: str, used: frozenset[Feature]) -> set[Feature]:
    """By the sentences that name a feature and say that it is not to be had."""
    found: set[Feature] = set()
    for sentence in _SENTENCE.split(text):
        for feature in used:
            lacks = _LIMIT_LACKS if feature == "max_tokens" else _ANY_LACKS
            if re.search(rf"(?<![a-z_])({_WORDS[feature]})(?![a-z_])", sentence, re.IGNORECASE) and (
                lacks.search(sentence) or (feature == "max_tokens" and lacks.search(text))
            ):
                found.add(feature)
    return found


def _errors(data: object) -> Iterator[Mapping[str, object]]:
    """The error objects of a body: its own, those in a list (Gemini), and one passed on by a router (OpenRouter)."""
    if isinstance(data, (str, Unreadable)):
        yield {"message": message_of(data)}
    elif isinstance(data, list):
        for item in data[:3]:
            yield from _errors(item)
    elif isinstance(data, Mapping):
        inner = data.get("error")
        error: Mapping[str, object] = inner if isinstance(inner, Mapping) else data
        metadata = error.get("metadata")
        raw = metadata.get("raw") if isinstance(metadata, Mapping) else None
        if isinstance(raw, str) and raw:
            try:
                yield from _errors(json.loads(raw))
            except (ValueError, RecursionError):
                yield {"message": raw}
        yield error


def _text(error: Mapping[str, object]) -> str:
    return message_of(error)[:_LONGEST]


def _places(error: Mapping[str, object]) -> Iterator[str]:
    """Where the problems of a list are, as FastAPI gives them."""
    problems = error.get("detail") or error.get("message") or error.get("errors")
    if isinstance(problems, Mapping):  # Mistral's API wraps the list once more
        problems = problems.get("detail")
    for problem in problems if isinstance(problems, list) else ():
        place = problem.get("loc") if isinstance(problem, Mapping) else None
        if isinstance(place, list):
            yield ".".join(str(part) for part in place if part != "body")


def _word(error: Mapping[str, object], key: str) -> str:
    value = error.get(key)
    return value if isinstance(value, str) else ""
