"""A LangChain chat model as a language model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable

from uprank.scorers.http.messages import Lost, Reply, Unreadable
from uprank.scorers.llm.chat import ChatCall, ChatRequest, Completion, Feature
from uprank.scorers.llm.models.dialect import (
    as_dicts,
    asked,
    chat_arguments,
    finish_in,
    function,
    logprobs_in,
    whole_number,
)
from uprank.scorers.llm.models.framework import FrameworkModel

__all__ = ["LangChainModel"]

# A class that has a field of this name takes it call by call as well.
_FIELDS: dict[str, Feature] = {
    "temperature": "temperature",
    "seed": "seed",
    "max_tokens": "max_tokens",
    "top_logprobs": "logprobs",
}


class LangChainModel(FrameworkModel):
    """Asks a LangChain chat model, with its callbacks, tracing and cache.

    Whatever its class has is used: function calls everywhere, and of ``langchain_openai`` and classes
    made from it schemas and probabilities too. What it then refuses is not asked for again.

    Its own retries come on top of ours; turn them off where it is made, e.g. ``ChatOpenAI(...,
    max_retries=0)``. Of classes other than ``langchain_openai``'s, a synchronous call is bounded by
    their own timeout alone.

    Args:
        llm: E.g. ``ChatOpenAI("gpt-4.1-mini")``. It is left as it is, and for its owner to close.
    """

    provider = "langchain"

    def __init__(self, llm: BaseChatModel) -> None:
        self._llm = llm
        self._openai = any(base.__module__.startswith("langchain_openai.") for base in type(llm).__mro__)
        profile: Mapping[str, object] = getattr(llm, "profile", None) or {}  # not in every version
        found: set[Feature] = {"system", *(_FIELDS[name] for name in type(llm).model_fields if name in _FIELDS)}
        if type(llm).bind_tools is not BaseChatModel.bind_tools and profile.get("tool_calling") is not False:
            found.add("tools")
        if self._openai and profile.get("structured_output") is not False:
            found.add("json_schema")
        named = (getattr(llm, name, None) for name in ("model_name", "model", "model_id"))
        model = next((name for name in named if isinstance(name, str) and name), "")
        window = whole_number(profile.get("max_input_tokens"))
        super().__init__(llm, model, found, window, ("langchain_core", "langchain_openai"))

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        request = asked(call.request)
        try:
            model, options = self._prepared(request, timeout)
            said = model.invoke(as_dicts(request.messages, system="system" in self.features), **options)
        except Exception as error:
            return self._came_of(error, request, timeout)
        return _reply(said, request)

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        request = asked(call.request)
        try:
            model, options = self._prepared(request, timeout)
            messages = as_dicts(request.messages, system="system" in self.features)
            said = await asyncio.wait_for(model.ainvoke(messages, **options), timeout)
        except Exception as error:
            return self._came_of(error, request, timeout)
        return _reply(said, request)

    # Any: each option has a type of its own
    def _prepared(self, request: ChatRequest, timeout: float) -> tuple[Runnable[Any, BaseMessage], dict[str, Any]]:
        """What is to be invoked, and how."""
        options: dict[str, Any] = chat_arguments(request, self.features)
        tools = options.pop("tools", None)
        options.pop("tool_choice", None)
        if self._openai:
            options |= {"stream": False, "timeout": timeout}  # a tracer may ask for streaming
        else:  # whose classes give it names of their own
            options.pop("max_completion_tokens", None)
        if tools is None or request.tool is None:
            return self._llm, options
        tool: dict[str, Any] = function(request.tool)
        if not self._openai:  # others may not know what strict means
            tool["function"].pop("strict")
        try:
            return self._llm.bind_tools([tool], tool_choice=request.tool.name), options
        except NotImplementedError as error:
            raise NotImplementedError(str(error) or "tools are not supported") from error


def _reply(said: object, request: ChatRequest) -> Reply:
    if not isinstance(said, AIMessage):
        return Reply(200, {}, Unreadable(f"a {type(said).__name__} instead of an AIMessage"))
    about: Mapping[str, object] = said.response_metadata
    finish = finish_in(about)
    refusal = _refusal(said)
    text = _arguments(said, request) or str(said.text)
    if refusal and finish in ("stop", "refusal"):
        text, finish = text or refusal, "refusal"
    usage = said.usage_metadata
    return Reply(
        200,
        {},
        Completion(
            text,
            finish,
            logprobs_in(about.get("logprobs")) if request.top_logprobs else (),
            whole_number(usage["input_tokens"]) if usage else None,
            whole_number(usage["output_tokens"]) if usage else None,
        ),
    )


def _arguments(said: AIMessage, request: ChatRequest) -> str | None:
    """The arguments of the function that was to be called, also where they are no JSON as yet."""
    wanted = None if request.tool is None else request.tool.name
    for call in said.tool_calls:
        if call["name"] == wanted:
            return json.dumps(call["args"], ensure_ascii=False)
    return next((call["args"] for call in said.invalid_tool_calls if call["name"] == wanted), None)


def _refusal(said: AIMessage) -> str | None:
    found = said.additional_kwargs.get("refusal")
    for part in said.content if isinstance(said.content, list) else ():
        if isinstance(part, dict) and part.get("type") == "refusal":
            found = part.get("refusal")
    return found if isinstance(found, str) and found else None
