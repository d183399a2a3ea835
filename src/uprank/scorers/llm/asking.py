"""One request to a chat model, until it is answered: retries, what the model does not take, what it used."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TypeAlias, TypeVar

from uprank.errors import RequestRefusedError
from uprank.scorers.http.failures import Asked, bad_reply, reply_error
from uprank.scorers.http.gate import Gate
from uprank.scorers.http.messages import Call, Lost, Reply
from uprank.scorers.http.retries import Meter, RetryPolicy, Step, attempts
from uprank.scorers.llm.budget import Spending
from uprank.scorers.llm.chat import ChatCall, ChatModel, ChatRequest, Completion, Feature, Features
from uprank.scorers.llm.unsupported import is_filtered, unsupported_feature

__all__ = ["Asker", "BudgetReached", "ChatEndpoint", "FormDropped", "Steps", "ask"]

Result = TypeVar("Result")
Steps: TypeAlias = Generator[Step, "Reply | Lost | None", Result]
_FORMS: frozenset[Feature] = frozenset({"json_schema", "tools", "logprobs"})
_PARAMETERS: frozenset[Feature] = frozenset({"seed", "temperature"})
_ABOUT_FORM = (400, 404, 405, 415, 422)
_ADVICE = "Check the key and the model's name."


class BudgetReached(Exception):  # noqa: N818 - an answer rather than an error
    """Nothing more may be asked."""


class FormDropped(Exception):  # noqa: N818 - likewise
    """The model does not take the form in which the answer was asked for; it has been remembered: ask in another.

    Args:
        guessed: What was taken for the reason without the model having said so.
    """

    def __init__(self, guessed: frozenset[Feature] = frozenset()) -> None:
        super().__init__()
        self.guessed = guessed


class ChatEndpoint:
    """A chat model as what carries requests."""

    def __init__(self, model: ChatModel) -> None:
        self._model = model

    def send(self, call: Call, timeout: float) -> Reply | Lost:
        return self._model.send(_chat(call), timeout)

    async def asend(self, call: Call, timeout: float) -> Reply | Lost:
        return await self._model.asend(_chat(call), timeout)

    def close(self) -> None:
        self._model.close()

    async def aclose(self) -> None:
        await self._model.aclose()


@dataclass(frozen=True, slots=True)
class Asker:
    """What all requests of a scorer share.

    Args:
        model: Who is asked.
        gate: Counts the requests in flight.
        policy: How often to try, and how long one attempt may take.
    """

    model: ChatModel
    gate: Gate
    policy: RetryPolicy


@dataclass(frozen=True, slots=True)
class _Dropped:
    """What the model turned out not to take; whether it said so, or that is a guess."""

    features: frozenset[Feature]
    guessed: bool = False


def ask(
    asker: Asker, request: ChatRequest, spending: Spending, expected: tuple[int, int], documents: int
) -> Steps[Completion]:
    """Ask until there is an answer.

    Args:
        asker: Who, and how.
        request: What.
        spending: Counts what is used.
        expected: Tokens that are likely to be read and written.
        documents: How many the request holds, for errors.

    Raises:
        BudgetReached: If it may not be asked.
        FormDropped: If the model does not take that form of an answer.
        ServiceError: What the last attempt's failure stands for.
    """
    if not spending.reserve(1, *expected):
        raise BudgetReached
    model, meter, used = asker.model, Meter(), (0, 0)
    sent: frozenset[Feature] = frozenset()
    counted = True
    guesses: set[Feature] = set()
    call = ChatCall(model.address, {"messages": [[one.role, one.content] for one in request.messages]}, request)
    asked = Asked(model.provider, model.name, call, documents, _ADVICE, model.secrets())

    def accept(reply: Reply) -> Completion | _Dropped:
        if not isinstance(reply.data, Completion):
            raise bad_reply(reply, asked, "it is no chat completion")
        if not request.top_logprobs or reply.data.logprobs:
            model.features.confirm(request)
        return reply.data

    def recover(reply: Reply) -> Completion | _Dropped | None:
        if is_filtered(reply):
            return Completion("", "filter")
        guessed = False
        features = unsupported_feature(reply, request, Features(*sent))
        if not features and reply.status in _ABOUT_FORM:
            features = sent - model.features.used(request)  # another call, sent at the same time, has found it out
        if not features and reply.status in (400, 422) and isinstance(reply_error(reply, asked), RequestRefusedError):
            # It does not say what it dislikes. What no answer has confirmed yet may be it.
            unproven = model.features.unproven(request)
            features, guessed = unproven & _FORMS or unproven & _PARAMETERS, True
        return _Dropped(features, guessed) if features else None

    try:
        while True:
            sent = model.features.used(request)
            outcome = yield from attempts(
                call,
                asked,
                accept,
                policy=asker.policy,
                clock=spending.clock,
                meter=meter,
                gate=asker.gate,
                recover=recover,
            )
            if isinstance(outcome, Completion):
                guesses.clear()
                read, written = outcome.input_tokens, outcome.output_tokens
                used = (expected[0] if read is None else read, expected[1] if written is None else written)
                if request.top_logprobs and not outcome.logprobs and outcome.finish == "stop":
                    model.features.drop("logprobs")  # it takes the parameter, and does nothing about it
                    raise FormDropped
                return outcome
            model.features.drop(*outcome.features)
            if outcome.features & _FORMS & request.features:
                counted = False  # nothing was answered, and nothing is paid for it
                raise FormDropped(outcome.features if outcome.guessed else frozenset())
            if outcome.guessed:
                guesses |= outcome.features
    finally:
        model.features.restore(*guesses)  # without them it failed as well
        spending.settle(expected, used, meter, counted=counted)


def _chat(call: Call) -> ChatCall:
    if not isinstance(call, ChatCall) or call.request is None:
        raise TypeError("a chat model is asked by a ChatCall")
    return call
