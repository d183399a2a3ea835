"""A strict OpenAI-compatible chat server on loopback, written from the published API, independent of the package.

Example::

    from chat_server import serve_chat, refusal, status

    with serve_chat(lambda messages, body: "[2] > [1]", key="k") as server:
        server.fail_next(status(429, retry_after=1))           # the next request only; times=3 for three
        server.fail_when(lambda request: "cat" in request.body.decode(), refusal())
        model = OpenAIModel("m", base_url=server.base_url, api_key="k")
    assert server.bodies[0]["temperature"] == 0

The *brain* is given the messages and the decoded body, and says the answer: a string, or :class:`Said`
for one with probabilities of its own. The server wraps it as asked: as text, as the arguments of the
function that must be called, with ``logprobs``; it cuts it at ``max_tokens``. ``/v1/completions``
asks the brain with the prompt as the only message.

``serve_chat(brain, *, key=None, models=None, lacks=(), delay=0.0)``: ``lacks`` are features whose
parameters are refused as real servers refuse them (``WORDINGS``): "json_schema", "tools", "logprobs",
"seed", "temperature", "max_tokens", "system"; ``server.lack("seed")`` changes them.

``server.requests`` are all requests, ``server.bodies`` the decoded bodies of the POSTs, and all that is told in
``rerank_servers`` of a running server holds here too. Faults: those of ``rerank_servers`` (``status``,
``closed``, ``reset``, ``slow``, ``silent``, ``html``, ``empty``, ``truncated``, ``edited``) and

    refusal(text)        the model refuses: ``message.refusal``
    length()             the first half of the answer, at the limit of tokens
    filtered()           the provider's filter stops the answer: finish_reason "content_filter"
    filtered_prompt()    Azure's filter refuses the prompt: 400
    unsupported(feature) as if the feature were lacking, this once
    no_choices()         200 without choices
    upstream(code)       200 with an error inside, as a router sends it
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from chat_servers.service import WORDINGS, Body, Brain, Chat, Said, lacking
from rerank_servers import closed, edited, empty, html, reset, silent, slow, status, truncated
from rerank_servers.faults import Fault
from rerank_servers.listener import RerankServer
from rerank_servers.messages import Reply, Request
from rerank_servers.service import Service

__all__ = [
    "WORDINGS",
    "Chat",
    "ChatServer",
    "Said",
    "closed",
    "edited",
    "empty",
    "filtered",
    "filtered_prompt",
    "html",
    "length",
    "no_choices",
    "refusal",
    "reset",
    "serve_chat",
    "silent",
    "slow",
    "status",
    "truncated",
    "unsupported",
    "upstream",
]


def _choice(change: Callable[[Body], None], name: str) -> Fault:
    def edit(value: object) -> object:
        assert isinstance(value, dict)
        change(value["choices"][0])
        return value

    return edited(edit, name)


def refusal(text: str = "I'm sorry, I cannot assist with that request.") -> Fault:
    """The model refuses."""

    def change(choice: Body) -> None:
        choice["message"] = {"role": "assistant", "content": None, "refusal": text}
        choice["finish_reason"] = "stop"

    return _choice(change, "refusal")


def length() -> Fault:
    """The first half of the answer, as if the limit of tokens had come."""

    def change(choice: Body) -> None:
        held = choice.get("message")
        if isinstance(held, dict) and held.get("tool_calls"):
            called = held["tool_calls"][0]["function"]
            called["arguments"] = called["arguments"][: len(called["arguments"]) // 2]
        elif isinstance(held, dict):
            held["content"] = held["content"][: len(held["content"]) // 2]
        choice["finish_reason"] = "length"

    return _choice(change, "length")


def filtered() -> Fault:
    """The provider's filter stops the answer."""

    def change(choice: Body) -> None:
        choice["message"] = {"role": "assistant", "content": "", "refusal": None}
        choice["finish_reason"] = "content_filter"

    return _choice(change, "filtered")


def filtered_prompt() -> Fault:
    """Azure's filter refuses the prompt."""
    error = {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy. "
        "Please modify your prompt and retry.",
        "type": None,
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation", "content_filter_result": {"hate": {"filtered": True}}},
    }
    return replace(status(400, body=json.dumps({"error": error}).encode()), name="filtered-prompt")


def unsupported(feature: str) -> Fault:
    """The feature is refused, whether it was asked for or not."""

    def act(service: Service, request: Request, usual: Callable[[], Reply]) -> Reply:
        refused = lacking(feature)
        return service.signed(service.error(400, refused.message, request, refused), request)

    return Fault(f"unsupported-{feature}", act)


def no_choices() -> Fault:
    """A success without an answer."""

    def change(value: object) -> object:
        assert isinstance(value, dict)
        return {**value, "choices": []}

    return edited(change, "no-choices")


def upstream(code: int = 502) -> Fault:
    """A success with an error inside, as a router sends it when the provider behind it fails."""
    error = {
        "message": "Provider returned error",
        "code": code,
        "metadata": {"raw": "overloaded", "provider_name": "p"},
    }
    return edited(lambda value: {"id": "gen-1", "error": error}, f"upstream-{code}")


class ChatServer(RerankServer):
    """A chat server on a loopback port, for the length of a ``with`` block. See the module."""

    @property
    def bodies(self) -> list[Body]:
        """The decoded bodies of the POSTs, in the order in which they came."""
        return [request.json for request in self.posts if isinstance(request.json, dict)]

    def lack(self, *features: str) -> None:
        """Refuse these features from now on, and no others."""
        assert isinstance(self.service, Chat)
        self.service.lacks = features

    def fail_next(self, fault: Fault, *, times: int = 1) -> None:
        """Answer the next POSTs with a fault."""
        self.fail_when(lambda request: True, fault, times=times)


@contextmanager
def serve_chat(
    brain: Brain,
    *,
    key: str | None = None,
    models: Sequence[str] | None = None,
    lacks: Collection[str] = (),
    delay: float = 0.0,
) -> Iterator[ChatServer]:
    """Serve a chat model on loopback while the block runs.

    Args:
        brain: Says the answers.
        key: The bearer token it wants; ``None`` takes any, or none.
        models: The models it knows; ``None``: any.
        lacks: Features that it refuses.
        delay: Seconds before each answer.

    Yields:
        The running server.
    """
    with ChatServer(Chat(key=key, models=models, brain=brain, lacks=lacks), delay=delay) as server:
        yield server
