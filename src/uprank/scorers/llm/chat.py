"""What is said to a language model and what comes back, as plain values; the contract of a chat model."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias, runtime_checkable

from uprank.scorers.http.messages import Call, Lost, Reply

__all__ = ["ChatCall", "ChatModel", "ChatRequest", "Completion", "Feature", "Features", "Message", "Schema"]

Feature: TypeAlias = Literal["json_schema", "tools", "logprobs", "seed", "temperature", "max_tokens", "system"]
"""What a model may or may not take.

* ``"json_schema"``: an answer held to a JSON schema.
* ``"tools"``: a function that must be called, whose arguments are the answer.
* ``"logprobs"``: the probabilities of the first tokens.
* ``"seed"``, ``"temperature"``: these parameters.
* ``"max_tokens"``: a limit by that name; without it, by the name ``max_completion_tokens``.
* ``"system"``: a message in the system role; without it, its text begins the first user message.
"""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Args:
        role: Who says it.
        content: Plain text.
    """

    role: Literal["system", "user", "assistant"]
    content: str


@dataclass(frozen=True, slots=True)
class Schema:
    """The shape an answer must have.

    Args:
        name: Of the schema, or of the function to be called.
        description: For the model.
        schema: JSON schema of an object, in the subset that all providers take: every property
            required, ``additionalProperties`` false, no bounds on lengths or numbers.
    """

    name: str
    description: str
    schema: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One question to a model, the same for every kind of model.

    A model that lacks a :data:`Feature` leaves out ``temperature`` and ``seed``; ``schema``, ``tool``
    and ``top_logprobs`` are only set where the model is believed to have them.

    Args:
        messages: At least one; the last is the user's.
        max_tokens: For the answer.
        schema: The answer is an object of this schema.
        tool: The answer is a call of this function.
        top_logprobs: How many alternatives to give for each token; 0 asks for none.
        temperature: 0 for the most likely answer.
        seed: For a model that samples.
        text: A whole prompt with the model's own template in it, for the route that takes bare
            text; ``messages`` say the same.
    """

    messages: tuple[Message, ...]
    max_tokens: int
    schema: Schema | None = None
    tool: Schema | None = None
    top_logprobs: int = 0
    temperature: float = 0.0
    seed: int | None = None
    text: str | None = None

    @property
    def features(self) -> frozenset[Feature]:
        """What of the model this asks for."""
        wanted: dict[Feature, bool] = {
            "json_schema": self.schema is not None,
            "tools": self.tool is not None,
            "logprobs": self.top_logprobs > 0,
            "seed": self.seed is not None,
            "temperature": True,
            "max_tokens": True,
            "system": any(message.role == "system" for message in self.messages),
        }
        return frozenset(name for name, asked in wanted.items() if asked)


@dataclass(frozen=True, slots=True)
class Completion:
    """A model's answer.

    Args:
        text: What it says; of a tool call, the arguments as JSON.
        finish: Why it ended: ``"stop"`` of itself, ``"length"`` at the limit of tokens, ``"filter"``
            stopped by the provider's filter, ``"refusal"`` refused by the model.
        logprobs: For the first tokens of the answer, in order, the natural logarithm of the probability of
            each likely token; empty where there are none.
        input_tokens: As the provider counts them; ``None`` where it does not say.
        output_tokens: Likewise, tokens of reasoning included.
    """

    text: str
    finish: Literal["stop", "length", "filter", "refusal"] = "stop"
    logprobs: tuple[Mapping[str, float], ...] = ()
    input_tokens: int | None = None
    output_tokens: int | None = None


@dataclass(frozen=True)
class ChatCall(Call):
    """A request on its way.

    Args:
        url: Where to, or which model of the caller's, for errors.
        body: The messages, to measure what is sent.
        request: What is asked.
    """

    request: ChatRequest | None = field(default=None)


@runtime_checkable
class ChatModel(Protocol):
    """A language model, wherever it runs. One that is not supported can be given as an object of this kind.

    Attributes:
        name: Shown in rankings and errors, e.g. ``"llm:gpt-4.1-mini"``.
        provider: For errors, e.g. ``"openai"``.
        address: Where it is asked; those that share it share their limit of requests at once.
        features: What it is believed to take.
        context_window: Tokens of a prompt and its answer together; ``None`` where not known.
    """

    name: str
    provider: str
    address: str
    features: Features
    context_window: int | None

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        """Ask, and return what came of it.

        A success is ``Reply(200, headers, Completion)``; an HTTP error is its status, headers (names in lower
        case) and decoded body; no reply is :class:`~uprank.scorers.http.messages.Lost`. Any
        other failure is raised.
        """

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        """As :meth:`send`. Cancelling it ends the request."""

    def secrets(self) -> tuple[str, ...]:
        """What must not be shown if the provider repeats it."""

    def close(self) -> None:
        """Close what is held open."""

    async def aclose(self) -> None:
        """As :meth:`close`."""


class Features:
    """What a model takes, corrected by what it answers. Shared by all threads and tasks that ask it.

    Args:
        names: What it is believed to take, until it says otherwise.
    """

    def __init__(self, *names: Feature) -> None:
        self._lock = threading.Lock()
        self._names = frozenset(names)
        self._proven: frozenset[Feature] = frozenset()

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def __repr__(self) -> str:
        return f"Features({', '.join(map(repr, sorted(self._names)))})"

    def used(self, request: ChatRequest) -> frozenset[Feature]:
        """What a request asks for that the model is believed to take."""
        return self._names & request.features

    def unproven(self, request: ChatRequest) -> frozenset[Feature]:
        """What of :meth:`used` no answer has confirmed yet."""
        return self.used(request) - self._proven

    def confirm(self, request: ChatRequest) -> None:
        """A request with these was answered."""
        with self._lock:
            self._proven |= self.used(request)

    def restore(self, *names: Feature) -> None:
        """It was not about these after all."""
        with self._lock:
            self._names |= set(names)

    def drop(self, *names: Feature) -> None:
        """The model does not take these: never send them again."""
        with self._lock:
            self._names -= set(names)
            self._proven -= set(names)
