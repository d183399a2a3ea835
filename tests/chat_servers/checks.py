"""What requests to a chat server must be like: fields, messages, formats, tools, and schemas in strict mode."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from rerank_servers.schema import FLAG, OBJECT, TEXT, Field, integer, listed, one_of, required
from rerank_servers.service import Refusal

__all__ = ["CHAT", "PLAIN", "check_format", "check_tools", "messages_of"]

Body = dict[str, object]

NUMBER = Field("a number", lambda value: isinstance(value, (int, float)) and not isinstance(value, bool))
TEMPERATURE = replace(
    NUMBER, what="a number from 0 to 2", allows=lambda value: NUMBER.allows(value) and 0 <= value <= 2
)  # type: ignore[operator]
COMMON: dict[str, Field] = {
    "model": required(TEXT),
    "max_tokens": integer(1),
    "temperature": TEMPERATURE,
    "top_p": NUMBER,
    "seed": integer(-(2**63), 2**63),
    "stream": FLAG,
    "n": integer(1, 1),
    "stop": listed("strings", lambda value: isinstance(value, str)),
    "user": TEXT,
}
CHAT: dict[str, Field] = {
    **COMMON,
    "messages": required(listed("messages", lambda value: isinstance(value, dict))),
    "max_completion_tokens": integer(1),
    "response_format": OBJECT,
    "tools": listed("tools", lambda value: isinstance(value, dict)),
    "tool_choice": Field("a string or an object", lambda value: isinstance(value, (str, dict))),
    "parallel_tool_calls": FLAG,
    "logprobs": FLAG,
    "top_logprobs": integer(0, 20),
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high"),
}
PLAIN: dict[str, Field] = {**COMMON, "prompt": required(TEXT), "logprobs": integer(0, 20), "echo": FLAG}
ROLES = ("system", "developer", "user", "assistant", "tool")


def messages_of(value: object) -> list[dict[str, str]]:
    """Role and text of each message.

    Raises:
        Refusal: One of them is not well-formed.
    """
    assert isinstance(value, list)
    found: list[dict[str, str]] = []
    for number, each in enumerate(value):
        content = each.get("content")
        if isinstance(content, list) and all(isinstance(part, dict) and part.get("type") == "text" for part in content):
            content = "".join(str(part.get("text")) for part in content)
        if each.get("role") not in ROLES or not isinstance(content, str) or set(each) - {"role", "content", "name"}:
            raise Refusal(400, f"Invalid message at messages[{number}].", extra={"param": f"messages[{number}]"})
        found.append({"role": each["role"], "content": content})
    return found


def check_format(value: object) -> None:
    if value is None:
        return
    assert isinstance(value, dict)
    kind = value.get("type")
    if kind not in ("text", "json_object", "json_schema") or set(value) - {"type", "json_schema"}:
        raise Refusal(400, f"Invalid value: '{kind}'.", extra={"param": "response_format.type"})
    if kind == "json_schema":
        held = value.get("json_schema")
        if not isinstance(held, dict) or set(held) - {"name", "description", "schema", "strict"} or "name" not in held:
            raise Refusal(400, "Missing or unknown fields.", extra={"param": "response_format.json_schema"})
        _check_named(held, f"response_format '{held['name']}'", "response_format", held.get("schema"))


def check_tools(body: Body) -> tuple[str | None, bool]:
    """The name of the function that must be called, and whether it was named.

    Raises:
        Refusal: A tool is not well-formed, or the choice is none of them.
    """
    tools, choice = body.get("tools"), body.get("tool_choice")
    if tools is None:
        if choice is not None:
            raise Refusal(
                400, "'tool_choice' is only allowed when 'tools' are specified.", extra={"param": "tool_choice"}
            )
        return None, False
    assert isinstance(tools, list)
    names = []
    for number, tool in enumerate(tools):
        held = tool.get("function")
        if tool.get("type") != "function" or not isinstance(held, dict) or "name" not in held:
            raise Refusal(400, "Missing or unknown fields.", extra={"param": f"tools[{number}]"})
        if set(held) - {"name", "description", "parameters", "strict"}:
            raise Refusal(400, "Unknown fields.", extra={"param": f"tools[{number}].function"})
        _check_named(held, f"function '{held['name']}'", f"tools[{number}].function.parameters", held.get("parameters"))
        names.append(held["name"])
    if choice in (None, "auto", "none"):
        return (names[0] if choice != "none" else None), False
    if choice == "required":
        return names[0], False
    named = choice.get("function", {}).get("name") if isinstance(choice, dict) else None
    if named not in names:
        raise Refusal(400, f"Tool choice {named!r} not found in 'tools' parameter.", extra={"param": "tool_choice"})
    return str(named), True


def _check_named(held: Mapping[str, object], what: str, parameter: str, schema: object) -> None:
    name = held["name"]
    if not isinstance(name, str) or not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name):
        raise Refusal(400, f"Invalid name for {what}.", extra={"param": f"{parameter}.name"})
    problem = _schema_problem(schema, ()) if held.get("strict") else None
    if problem is not None:
        raise Refusal(400, f"Invalid schema for {what}: {problem}", extra={"param": parameter})


_KEYWORDS = {"type", "properties", "required", "additionalProperties", "items", "enum", "description", "title", "anyOf"}
_KEYWORDS |= {"$ref", "$defs", "const"}


def _schema_problem(schema: object, place: tuple[str, ...]) -> str | None:
    """What of a schema is outside the subset of strict mode; ``None`` where nothing is."""
    if not isinstance(schema, dict):
        return f"In context={place}, a schema must be an object."
    unknown = set(schema) - _KEYWORDS
    if unknown:
        return f"In context={place}, '{min(unknown)}' is not permitted."
    if not place and schema.get("type") != "object":
        return "schema must be a JSON Schema of 'type: \"object\"'."
    if schema.get("type") == "object":
        properties = schema.get("properties", {})
        if schema.get("additionalProperties") is not False:
            return f"In context={place}, 'additionalProperties' is required to be supplied and to be false."
        if set(schema.get("required", ())) != set(properties):
            return f"In context={place}, 'required' must be an array including every key in properties."
        for name, each in properties.items():
            found = _schema_problem(each, (*place, "properties", name))
            if found:
                return found
    if schema.get("type") == "array":
        return _schema_problem(schema.get("items"), (*place, "items"))
    return None
