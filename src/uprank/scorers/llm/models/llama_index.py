"""A LlamaIndex LLM as a language model."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, ToolCallBlock
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.constants import DEFAULT_CONTEXT_WINDOW
from llama_index.core.llms import LLM
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.tools import FunctionTool, ToolMetadata

from uprank.errors import ConfigurationError
from uprank.scorers.http.messages import Lost, Reply, Unreadable
from uprank.scorers.llm.chat import ChatCall, ChatRequest, Completion, Feature, Schema
from uprank.scorers.llm.models.dialect import as_dicts, asked, chat_arguments, finish_in, read, whole_number
from uprank.scorers.llm.models.framework import FrameworkModel

__all__ = ["LlamaIndexModel"]

_FIELDS: tuple[Feature, ...] = ("temperature", "seed", "max_tokens")


class LlamaIndexModel(FrameworkModel):
    """Asks a LlamaIndex LLM, with its callbacks and instrumentation.

    Whatever its class has is used: function calls of every LLM that declares them, and of ``OpenAI``,
    ``OpenAILike`` and classes made from them schemas and probabilities too. What it then refuses is
    not asked for again. Options set on the LLM itself win over those of a call.

    Its own retries come on top of ours; turn them off where it is made, e.g. ``OpenAI(...,
    max_retries=0)``. Of classes other than ``OpenAI``'s, a synchronous call is bounded by their own
    timeout alone.

    Args:
        llm: E.g. ``OpenAI("gpt-4.1-mini")``. It is left as it is, and for its owner to close.

    Raises:
        ConfigurationError: If the LLM cannot say what it is.
    """

    provider = "llama-index"

    def __init__(self, llm: LLM) -> None:
        self._llm = llm
        try:
            about = llm.metadata
        except Exception as error:  # e.g. a model's name that the class does not know
            raise ConfigurationError(f"The LLM given, a {type(llm).__name__}, cannot be used: {error}") from error
        self._openai = any(
            base.__name__ == "OpenAI" and base.__module__.startswith("llama_index.llms.openai.")
            for base in type(llm).__mro__
        )
        found: set[Feature] = {"system", *(name for name in _FIELDS if name in type(llm).model_fields)}
        if self._openai:
            found |= {"json_schema", "logprobs", "seed"}
        if isinstance(llm, FunctionCallingLLM) and about.is_function_calling_model:
            found.add("tools")
        model = "" if about.model_name == "unknown" else about.model_name
        # The default is no measure of the model, but what stands there where nobody has set one.
        window = None if about.context_window == DEFAULT_CONTEXT_WINDOW else about.context_window
        super().__init__(llm, model, found, window, ("llama_index.llms",))

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        request = asked(call.request)
        try:
            messages, options = self._prepared(request, timeout)
            if isinstance(self._llm, FunctionCallingLLM) and "tool_required" in options:
                said = self._llm.chat_with_tools(chat_history=messages, **options)
            else:
                said = self._llm.chat(messages, **options)
        except Exception as error:
            return self._came_of(error, request, timeout)
        return _reply(said, request)

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        request = asked(call.request)
        try:
            messages, options = self._prepared(request, timeout)
            if isinstance(self._llm, FunctionCallingLLM) and "tool_required" in options:
                saying = self._llm.achat_with_tools(chat_history=messages, **options)
            else:
                saying = self._llm.achat(messages, **options)
            said = await asyncio.wait_for(saying, timeout)
        except Exception as error:
            return self._came_of(error, request, timeout)
        return _reply(said, request)

    # Any: each option has a type of its own
    def _prepared(self, request: ChatRequest, timeout: float) -> tuple[list[ChatMessage], dict[str, Any]]:
        given = as_dicts(request.messages, system="system" in self.features)
        messages = [ChatMessage(role=each["role"], content=each["content"]) for each in given]
        options: dict[str, Any] = chat_arguments(request, self.features)
        if self._openai:  # which hands these on as they are
            return messages, {**options, "timeout": timeout}
        options.pop("max_completion_tokens", None)
        options.pop("tool_choice", None)
        if options.pop("tools", None) is not None and request.tool is not None:
            options |= {"tools": [_tool(request.tool)], "tool_required": True}
        return messages, options


def _tool(schema: Schema) -> FunctionTool:
    """A tool of just this schema: the classes of the framework would write one of their own."""

    class Metadata(ToolMetadata):
        def get_parameters_dict(self) -> dict[str, Any]:
            return dict(schema.schema)

    class Arguments(BaseModel):
        @classmethod
        def model_json_schema(cls, *_: Any, **__: Any) -> dict[str, Any]:
            return dict(schema.schema)

    def called(**_: Any) -> None: ...

    return FunctionTool(fn=called, metadata=Metadata(schema.description, schema.name, Arguments))


def _reply(said: ChatResponse, request: ChatRequest) -> Reply:
    raw = said.raw.model_dump() if isinstance(said.raw, BaseModel) else said.raw
    if isinstance(raw, Mapping) and "choices" in raw:
        completion = read(raw, request)
        return Reply(200, {}, completion or Unreadable(str(raw)[:2000]))
    about: Mapping[str, object] = raw if isinstance(raw, Mapping) else {}
    wanted = None if request.tool is None else request.tool.name
    calls = [
        block.tool_kwargs
        for block in said.message.blocks
        if isinstance(block, ToolCallBlock) and block.tool_name == wanted
    ]
    text = said.message.content or ""
    if calls:
        text = calls[0] if isinstance(calls[0], str) else json.dumps(calls[0], ensure_ascii=False)
    usage = said.additional_kwargs
    return Reply(
        200,
        {},
        Completion(
            text,
            finish_in(about),
            tuple({each.token: each.logprob for each in tops} for tops in said.logprobs or ()),
            whole_number(usage.get("prompt_tokens")),
            whole_number(usage.get("completion_tokens")),
        ),
    )
