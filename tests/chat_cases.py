"""Questions to chat models, and the models that are asked: the SDK, LangChain, LlamaIndex."""

from __future__ import annotations

import json
from collections.abc import Callable

from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm.chat import ChatCall, ChatModel, ChatRequest, Completion, Message, Schema
from uprank.scorers.llm.models.find import as_chat_model
from uprank.scorers.llm.unsupported import unsupported_feature

KEY = "sk-proj-7f3a91c04be2"
SHAPE = Schema(
    "ranking",
    "The passages in order.",
    {
        "type": "object",
        "properties": {"ranking": {"type": "array", "items": {"type": "string", "enum": ["K3", "Q7"]}}},
        "required": ["ranking"],
        "additionalProperties": False,
    },
)
ANSWER = '{"ranking": ["Q7", "K3"]}'
MESSAGES = (Message("system", "You rank passages."), Message("user", "Which is better, K3 or Q7?"))


def question(
    *,
    messages: tuple[Message, ...] = MESSAGES,
    max_tokens: int = 64,
    schema: Schema | None = None,
    tool: Schema | None = None,
    top_logprobs: int = 0,
    seed: int | None = None,
    text: str | None = None,
) -> ChatCall:
    """A question, all of whose features are asked for one by one."""
    request = ChatRequest(messages, max_tokens, schema, tool, top_logprobs, 0.0, seed, text)
    return ChatCall("here", None, request)


def brain(messages: list[dict[str, str]], body: dict[str, object]) -> str:
    return ANSWER


def of_openai(base_url: str, key: str = KEY) -> ChatModel:
    return as_chat_model("m", {"base_url": base_url, "api_key": key})


def of_langchain(base_url: str, key: str = KEY) -> ChatModel:
    from langchain_openai import ChatOpenAI

    return as_chat_model(ChatOpenAI(model="m", base_url=base_url, api_key=key, max_retries=0), {})


def of_llama_index(base_url: str, key: str = KEY) -> ChatModel:
    from llama_index.llms.openai_like import OpenAILike

    llm = OpenAILike(
        model="m",
        api_base=base_url,
        api_key=key,
        max_retries=0,
        is_chat_model=True,
        is_function_calling_model=True,
        context_window=32_000,
    )
    return as_chat_model(llm, {})


MODELS: dict[str, Callable[..., ChatModel]] = {
    "openai": of_openai,
    "langchain": of_langchain,
    "llama-index": of_llama_index,
}


async def both(model: ChatModel, call: ChatCall, timeout: float = 10.0) -> list[Reply | Lost]:
    """What comes of a call made from a plain thread, and of one made on the event loop."""
    return [model.send(call, timeout), await model.asend(call, timeout)]


async def completions(model: ChatModel, call: ChatCall) -> list[Completion]:
    """Both completions; anything else fails the test."""
    found = []
    for outcome in await both(model, call):
        assert isinstance(outcome, Reply), outcome
        assert outcome.status == 200
        assert isinstance(outcome.data, Completion), outcome.data
        found.append(outcome.data)
    return found


def downgraded(model: ChatModel, call: ChatCall, most: int = 3) -> Reply:
    """Ask, and ask again without what the model says it does not take."""
    for _ in range(most):
        outcome = model.send(call, 10.0)
        assert isinstance(outcome, Reply), outcome
        assert call.request is not None
        lacking = unsupported_feature(outcome, call.request, model.features)
        if not lacking:
            return outcome
        model.features.drop(*lacking)
    raise AssertionError("refused again and again")


def order(completion: Completion) -> list[str]:
    return list(json.loads(completion.text)["ranking"])
