"""The strict chat server itself, asked by a client that knows none of the package."""

from __future__ import annotations

import copy

import pytest

pytest.importorskip("httpx", reason="the server is asked by it")

from chat_server import ChatServer, Said, serve_chat
from rerank_servers.client import post

SCHEMA = {
    "type": "object",
    "properties": {"a": {"type": "array", "items": {"type": "string", "enum": ["x"]}}},
    "required": ["a"],
    "additionalProperties": False,
}
FORMAT = {"type": "json_schema", "json_schema": {"name": "s", "schema": SCHEMA, "strict": True}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": SCHEMA, "strict": True}}]
NAMED = {"type": "function", "function": {"name": "f"}}


def ask(server: ChatServer, route: str = "/chat/completions", **changes: object):
    body = {"model": "m", "messages": [{"role": "user", "content": "hello there"}], **changes}
    if route == "/completions":
        del body["messages"]
    return post(server.base_url + route, json=body, headers={"Authorization": "Bearer k"})


def without(*path: str) -> dict[str, object]:
    """The answer's format, less one thing in its schema."""
    changed = copy.deepcopy(FORMAT)
    place = changed["json_schema"]["schema"]  # type: ignore[index]  # a mapping
    for name in path[:-1]:
        place = place[name]
    del place[path[-1]]
    return changed


def test_it_wraps_what_the_brain_says_as_asked() -> None:
    said: list[object] = []

    def brain(messages: list[dict[str, str]], body: dict[str, object]) -> str | Said:
        said.append(messages)
        return Said('{"a": []}', [{"{": -0.2, "[": -1.7}])

    with serve_chat(brain, key="k") as server:
        assert ask(server).json()["choices"][0]["message"]["content"] == '{"a": []}'
        choice = ask(server, tools=TOOLS, tool_choice=NAMED).json()["choices"][0]
        assert choice["message"]["tool_calls"][0]["function"] == {"name": "f", "arguments": '{"a": []}'}
        assert choice["finish_reason"] == "stop"
        assert ask(server, tools=TOOLS, tool_choice="required").json()["choices"][0]["finish_reason"] == "tool_calls"
        tops = ask(server, logprobs=True, top_logprobs=1).json()["choices"][0]["logprobs"]["content"]
        assert [(top["token"], top["logprob"]) for top in tops[0]["top_logprobs"]] == [("{", -0.2)]
        cut = ask(server, max_tokens=2).json()
        assert (cut["choices"][0]["finish_reason"], cut["usage"]["completion_tokens"]) == ("length", 2)
        plain = ask(server, "/completions", prompt="p", max_tokens=50, logprobs=2).json()["choices"][0]
        assert (plain["text"], plain["logprobs"]["top_logprobs"][0]) == ('{"a": []}', {"{": -0.2, "[": -1.7})
        assert said[-1] == [{"role": "user", "content": "p"}]
        assert len(server.bodies) == 6


@pytest.mark.parametrize(
    "changes",
    [
        {"unheard_of": 1},
        {"stream": True},
        {"messages": []},
        {"messages": [{"role": "judge", "content": "x"}]},
        {"messages": [{"role": "user", "content": None}]},
        {"messages": [{"role": "user", "content": "x", "extra": 1}]},
        {"temperature": 3},
        {"max_tokens": 0},
        {"max_tokens": 5, "max_completion_tokens": 5},
        {"seed": "1"},
        {"top_logprobs": 5},
        {"logprobs": True, "top_logprobs": 21},
        {"logprobs": 5},
        {"tool_choice": NAMED},
        {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "g"}}},
        {"tools": [{"type": "function", "function": {"name": "not a name", "parameters": SCHEMA}}]},
        {"tools": [{"type": "function", "function": {"name": "f", "parameters": {**SCHEMA, "x": 1}, "strict": True}}]},
        {"response_format": {"type": "xml"}},
        {"response_format": {"type": "json_schema"}},
        {"response_format": without("additionalProperties")},
        {"response_format": without("required")},
        {"response_format": without("type")},
        {"response_format": without("properties", "a", "items")},
    ],
    ids=str,
)
def test_it_refuses(changes: dict[str, object]) -> None:
    with serve_chat(lambda messages, body: "x", key="k") as server:
        reply = ask(server, **changes)
        assert reply.status_code == 400
        assert reply.json()["error"]["message"]
        assert ask(server, response_format=FORMAT, tools=TOOLS).status_code == 200


def test_keys_models_and_features() -> None:
    with serve_chat(lambda messages, body: "x", key="other", models=["m"], lacks=["temperature"]) as server:
        assert ask(server).status_code == 401
        server.service.key = "k"
        assert ask(server).status_code == 200
        assert ask(server, model="n").status_code == 404
        assert ask(server, temperature=0).json()["error"]["param"] == "temperature"
        assert ask(server, "/completions", prompt="p", temperature=0).status_code == 400
