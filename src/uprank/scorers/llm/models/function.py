"""A function of the caller's as a language model."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from functools import partial
from typing import TypeAlias, TypeVar

from uprank.errors import BadReplyError
from uprank.rounds import in_thread, run_coroutine
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm.chat import ChatCall, ChatRequest, Completion, Features
from uprank.scorers.llm.models.dialect import as_dicts, asked
from uprank.scorers.llm.models.naming import label
from uprank.scorers.llm.models.outcomes import came_of

__all__ = ["ChatFunction", "FunctionModel"]

Said: TypeAlias = "str | Completion"
ChatFunction: TypeAlias = "Callable[[list[dict[str, str]]], Said] | Callable[[list[dict[str, str]]], Awaitable[Said]]"
Result = TypeVar("Result")


class FunctionModel:
    """Asks a function, sync or async.

    A sync function is called in the thread that asks, or in a thread of its own by async code; an
    async one is awaited there, and runs on a background loop for sync code. It is given the messages
    and nothing else, so no schema, tool or probability is asked of it.

    An exception with an HTTP status, and one that says by its name that a connection failed or took
    too long, is reported as such and retried; any other is raised as it is. A sync function cannot
    be stopped: in a thread of its own it is no longer waited for, elsewhere it must end by itself.

    Args:
        function: Takes fresh ``{"role": ..., "content": ...}`` mappings, returns the answer's text,
            or a :class:`~uprank.scorers.llm.chat.Completion` to say more of it.
        name: Shown in rankings and errors; by default the function's own name.
    """

    provider = "function"
    context_window: int | None = None

    def __init__(self, function: ChatFunction, name: str | None = None) -> None:
        self._function = function
        own = _name(function)
        self.name = f"llm:{name or own}"
        # A method is made anew each time it is looked up; what it belongs to stays.
        self.address = label(f"function {own}", function.__self__ if inspect.ismethod(function) else function)
        self.features = Features("system")

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        request = asked(call.request)
        try:
            result = self._called(request)
            if inspect.isawaitable(result):
                result = run_coroutine(_within(_awaited(result), timeout))
        except Exception as error:
            return self._came_of(error, request, timeout)
        return self._reply(result)

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        request = asked(call.request)
        try:
            result = await _within(self._answered(request), timeout)
        except Exception as error:
            return self._came_of(error, request, timeout)
        return self._reply(result)

    def secrets(self) -> tuple[str, ...]:
        """None are known."""
        return ()

    def close(self) -> None:
        """Nothing is open."""

    async def aclose(self) -> None:
        """Likewise."""

    async def _answered(self, request: ChatRequest) -> object:
        if _is_async(self._function):
            result = self._called(request)
        else:
            result = await in_thread(partial(self._called, request))
        return await result if inspect.isawaitable(result) else result

    def _called(self, request: ChatRequest) -> Said | Awaitable[Said]:
        try:
            return self._function(as_dicts(request.messages, system="system" in self.features))
        except StopIteration as error:  # a generator and asyncio would both take it for an end of their own
            raise RuntimeError("the function raised StopIteration") from error

    def _came_of(self, error: Exception, request: ChatRequest, timeout: float) -> Reply | Lost:
        found = came_of(error, request, self.features, timeout)
        if found is None:
            raise error
        return found

    def _reply(self, result: object) -> Reply:
        if isinstance(result, Completion):
            return Reply(200, {}, result)
        if isinstance(result, str):
            return Reply(200, {}, Completion(str(result)))
        raise BadReplyError(
            f"{self.name}: a function given as a model returns a str or a uprank.scorers.llm.Completion; it returned "
            f"{type(result).__name__}.{_advice(result)}",
            provider=self.provider,
            model=self.name,
        )


async def _within(result: Coroutine[object, object, Result], timeout: float) -> Result:
    import asyncio  # imported late: a third of the time of `import uprank`

    return await asyncio.wait_for(result, timeout)


async def _awaited(result: Awaitable[Result]) -> Result:
    """Any awaitable as a coroutine."""
    return await result


def _advice(result: object) -> str:
    """Where the text is in what clients and frameworks answer with."""
    if isinstance(result, Mapping):
        return ' Return message["content"], the text alone.' if "content" in result else ""
    if result is None:
        return " Does it end without a return?"
    for attribute, written in _TEXTS.items():
        if hasattr(result, attribute):
            return f" Return {written}, the text alone."
    return ""


# The first of these that an object has; LangChain's messages also have a text, which is a method in some versions.
_TEXTS = {
    "choices": "response.choices[0].message.content",
    "message": "response.message.content",
    "content": "message.content",
    "text": "response.text",
}


def _name(function: Callable[..., object]) -> str:
    while hasattr(function, "func"):  # a partial
        function = function.func
    own = str(getattr(function, "__qualname__", type(function).__qualname__))
    return own.rpartition("<locals>.")[2]  # where it was defined says nothing to who reads a ranking


def _is_async(function: Callable[..., object]) -> bool:
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(type(function).__call__)
