"""What classes of LangChain and LlamaIndex have, say and raise, other than those made for OpenAI."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any
from uuid import UUID

import pytest

pytest.importorskip("langchain_core", reason="its fake chat models are asked")
pytest.importorskip("llama_index.core", reason="its mock LLMs are asked")

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.language_models import FakeListChatModel, FakeMessagesListChatModel
from langchain_core.language_models.chat_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.messages import ChatMessage as LangChainChatMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.runnables import RunnableLambda
from llama_index.core.base.llms.types import ChatMessage, LLMMetadata, TextBlock, ToolCallBlock
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms.mock import MockFunctionCallingLLM, MockLLM
from pydantic import SecretStr

from chat_cases import ANSWER, KEY, SHAPE, both, brain, completions, downgraded, of_langchain, question
from chat_server import serve_chat
from uprank.errors import ConfigurationError
from uprank.scorers.http.messages import Lost, Reply, Unreadable
from uprank.scorers.llm.chat import ChatModel, ChatRequest, Completion
from uprank.scorers.llm.models.find import as_chat_model

EVERYTHING = question(schema=SHAPE, tool=SHAPE, top_logprobs=1, seed=1)


def declared(model: ChatModel) -> set[str]:
    request = EVERYTHING.request
    assert isinstance(request, ChatRequest)
    return set(model.features.used(request))


# LangChain


async def test_a_fake_chat_model_is_asked_for_text_alone() -> None:
    model = as_chat_model(FakeListChatModel(responses=["[1] > [2]"]), {})
    assert declared(model) == {"system"}
    assert (model.name, model.provider, model.context_window) == ("llm:FakeListChatModel", "langchain", None)
    for said in await completions(model, EVERYTHING):
        assert said == Completion("[1] > [2]")


SAYINGS: list[tuple[AIMessage, Completion]] = [
    (
        AIMessage(
            "[1]",
            response_metadata={"stop_reason": "max_tokens"},
            usage_metadata={"input_tokens": 9, "output_tokens": 4, "total_tokens": 13},
        ),
        Completion("[1]", "length", (), 9, 4),
    ),
    (AIMessage("", response_metadata={"finish_reason": "SAFETY"}), Completion("", "filter")),
    (AIMessage("no", response_metadata={"stop_reason": "refusal"}), Completion("no", "refusal")),
    (AIMessage("[1]", response_metadata={"stopReason": "end_turn"}), Completion("[1]")),
    (AIMessage("[1]", response_metadata={"done_reason": "length"}), Completion("[1]", "length")),
    (
        AIMessage("[1]", response_metadata={"incomplete_details": {"reason": "max_output_tokens"}}),
        Completion("[1]", "length"),
    ),
    (
        AIMessage([{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "[2]"}]),
        Completion("[2]"),
    ),
    (AIMessage([{"type": "refusal", "refusal": "I decline."}]), Completion("I decline.", "refusal")),
    (
        AIMessage("", tool_calls=[{"name": "ranking", "args": {"ranking": ["é"]}, "id": "1"}]),
        Completion('{"ranking": ["é"]}'),
    ),
    (AIMessage("[3]", tool_calls=[{"name": "other", "args": {}, "id": "1"}]), Completion("[3]")),
    (
        AIMessage("", invalid_tool_calls=[{"name": "ranking", "args": '{"ranking": ["K', "id": "1", "error": None}]),
        Completion('{"ranking": ["K'),
    ),
]


@pytest.mark.parametrize(
    ("message", "expected"), SAYINGS, ids=[f"{n}-{case[1].finish}" for n, case in enumerate(SAYINGS)]
)
async def test_what_providers_say_through_langchain(message: AIMessage, expected: Completion) -> None:
    model = as_chat_model(FakeMessagesListChatModel(responses=[message]), {})
    assert await completions(model, EVERYTHING) == [expected, expected]


async def test_a_message_that_is_no_answer() -> None:
    model = as_chat_model(FakeMessagesListChatModel(responses=[LangChainChatMessage("x", role="judge")]), {})
    for outcome in await both(model, question()):
        assert isinstance(outcome, Reply)
        assert isinstance(outcome.data, Unreadable)


class Scripted(BaseChatModel):
    """A chat model of somebody's own, with a temperature, a key, function calls, and a mistake on demand."""

    temperature: float | None = None
    max_tokens: int | None = None
    api_key: SecretStr = SecretStr(KEY)
    takes: tuple[str, ...] = ("temperature", "max_tokens", "tools", "tool_choice")
    mistake: Any = None
    seen: list[dict[str, Any]]

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Sequence[Any], *, tool_choice: str | None = None, **kwargs: Any) -> Any:
        if "tools" not in self.takes:
            raise NotImplementedError
        return self.bind(tools=list(tools), tool_choice=tool_choice, **kwargs)

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        for name in kwargs:
            if name not in self.takes:
                raise TypeError(f"Client.chat() got an unexpected keyword argument '{name}'")
        self.seen.append(kwargs)
        if self.mistake is not None:
            raise self.mistake
        return ChatResult(generations=[ChatGeneration(message=AIMessage("[1]"))])


async def test_a_class_of_ones_own_is_asked_for_what_it_has() -> None:
    llm = Scripted(seen=[])
    model = as_chat_model(llm, {})
    assert declared(model) == {"system", "temperature", "max_tokens", "tools"}
    assert model.secrets() == (KEY,)
    await completions(model, EVERYTHING)
    for options in llm.seen:
        assert options == {
            "temperature": 0.0,
            "max_tokens": 64,
            "tool_choice": "ranking",
            "tools": [
                {
                    "type": "function",
                    "function": {
                        "name": "ranking",
                        "description": "The passages in order.",
                        "parameters": SHAPE.schema,
                    },
                }
            ],
        }


@pytest.mark.parametrize("lacking", ["temperature", "max_tokens", "tools"])
def test_what_a_class_stumbles_over_is_left_out(lacking: str) -> None:
    llm = Scripted(
        seen=[], takes=tuple(name for name in ("temperature", "max_tokens", "tools", "tool_choice") if name != lacking)
    )
    model = as_chat_model(llm, {})
    assert downgraded(model, EVERYTHING).data == Completion("[1]")
    assert lacking not in model.features
    assert declared(model) == {"system", "temperature", "max_tokens", "tools"} - {lacking}


async def test_a_mistake_in_a_class_of_ones_own_is_raised() -> None:
    mistake = ValueError("the prompt has no end")
    model = as_chat_model(Scripted(seen=[], mistake=mistake), {})
    with pytest.raises(ValueError, match="the prompt has no end") as caught:
        model.send(question(), 5.0)
    assert caught.value is mistake
    with pytest.raises(ValueError, match="the prompt has no end"):
        await model.asend(question(), 5.0)


class Throttled(Exception):
    """As botocore's ClientError."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.response = {
            "Error": {"Code": "ThrottlingException", "Message": message},
            "ResponseMetadata": {"HTTPStatusCode": 429, "HTTPHeaders": {"Retry-After": "3"}},
        }


class ReadTimeoutError(Exception):
    """As botocore's."""


class OfGoogle(Exception):
    """As google.genai's ClientError."""

    code = 400
    status = "INVALID_ARGUMENT"


@pytest.mark.parametrize(
    ("mistake", "expected"),
    [
        (
            Throttled("Too many requests"),
            Reply(
                429, {"retry-after": "3"}, {"error": {"Code": "ThrottlingException", "Message": "Too many requests"}}
            ),
        ),
        (ReadTimeoutError("late"), Lost("timeout", "no whole reply within 5 s")),
        (
            OfGoogle("400 Logprobs is not enabled"),
            Reply(400, {}, {"error": {"message": "400 Logprobs is not enabled"}}),
        ),
    ],
    ids=["botocore", "botocore-timeout", "google"],
)
async def test_what_other_clients_raise(mistake: Exception, expected: Reply | Lost) -> None:
    outcomes = await both(as_chat_model(Scripted(seen=[], mistake=mistake), {}), question(), timeout=5)
    assert outcomes == [expected, expected]


async def test_a_class_that_knows_no_timeout_is_not_waited_for() -> None:
    class Slow(Scripted):
        async def _agenerate(self, *args: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(5)

    class SlowLLM(MockLLM):
        async def achat(self, messages: Any, **kwargs: Any) -> Any:
            await asyncio.sleep(5)

    for llm in (Slow(seen=[]), SlowLLM()):
        assert await as_chat_model(llm, {}).asend(question(), 0.05) == Lost("timeout", "no whole reply within 0.05 s")


class Witness(BaseCallbackHandler):
    def __init__(self) -> None:
        self.events: list[tuple[str, UUID | None]] = []

    def on_chat_model_start(self, *args: Any, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self.events.append(("start", parent_run_id))

    def on_llm_end(self, *args: Any, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self.events.append(("end", parent_run_id))

    def on_llm_error(self, *args: Any, run_id: UUID, parent_run_id: UUID | None = None, **kwargs: Any) -> None:
        self.events.append(("error", parent_run_id))


@pytest.mark.parametrize("mistake", [None, ConnectionResetError("gone")])
async def test_langchains_callbacks_see_each_call_under_its_parent(mistake: Exception | None) -> None:
    model = as_chat_model(Scripted(seen=[], mistake=mistake), {})
    ends = "end" if mistake is None else "error"
    witness = Witness()
    parent = RunnableLambda(lambda _: model.send(question(), 5.0), afunc=lambda _: model.asend(question(), 5.0))
    parent.invoke("x", config={"callbacks": [witness]})
    await parent.ainvoke("x", config={"callbacks": [witness]})
    assert [kind for kind, _ in witness.events] == ["start", ends, "start", ends]
    assert all(parent_id is not None for _, parent_id in witness.events)


async def test_a_model_set_to_stream_does_not() -> None:
    pytest.importorskip("langchain_openai")
    from langchain_openai import ChatOpenAI

    with serve_chat(brain) as server:  # which refuses to
        llm = ChatOpenAI(model="m", base_url=server.base_url, api_key=SecretStr(KEY), max_retries=0, streaming=True)
        for said in await completions(as_chat_model(llm, {}), question(top_logprobs=1)):
            assert said.text == ANSWER
            assert said.logprobs
            assert said.output_tokens == 16


def test_a_second_loop_breaks_no_more_than_one_request() -> None:
    # ChatOpenAI keeps connections of loops that have ended; what comes of the first request on one is retried.
    pytest.importorskip("langchain_openai")
    with serve_chat(brain) as server:
        model = of_langchain(server.base_url)
        for _ in range(3):
            outcome = asyncio.run(model.asend(question(), 5.0))
            if isinstance(outcome, Lost):
                assert (outcome.why, outcome.permanent) == ("broken", False)
                outcome = asyncio.run(model.asend(question(), 5.0))
            assert isinstance(outcome, Reply)
            assert isinstance(outcome.data, Completion)


def test_the_window_and_the_gaps_of_a_profile() -> None:
    pytest.importorskip("langchain_openai")
    from langchain_openai import ChatOpenAI

    profile = {"max_input_tokens": 12_345, "tool_calling": False, "structured_output": False}
    llm = ChatOpenAI(model="m", api_key=SecretStr(KEY), profile=profile)  # type: ignore[typeddict-item]  # a part of one
    model = as_chat_model(llm, {})
    assert model.context_window == 12_345
    assert declared(model) == {"system", "temperature", "max_tokens", "seed", "logprobs"}
    assert model.name == "llm:m"


# LlamaIndex


async def test_a_mock_llm_is_asked_for_text_alone() -> None:
    model = as_chat_model(MockLLM(), {})
    assert declared(model) == {"system", "max_tokens"}
    assert (model.name, model.provider, model.context_window) == ("llm:MockLLM", "llama-index", None)
    for said in await completions(model, EVERYTHING):
        assert "You rank passages." in said.text
        assert said.finish == "stop"
        assert said.input_tokens is None


class Calling(MockFunctionCallingLLM):
    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(
            is_chat_model=True, is_function_calling_model=True, model_name="caller", context_window=8_000
        )


@pytest.mark.parametrize("arguments", [{"ranking": ["é"]}, '{"ranking": ["é"]}'])
async def test_a_function_calling_llm_is_given_the_schema_as_it_is(arguments: dict[str, Any] | str) -> None:
    tools: list[Any] = []

    def said(messages: Sequence[ChatMessage], **kwargs: Any) -> ChatMessage:
        tools.extend(kwargs["tools"])
        assert kwargs["tool_required"] is True
        call = ToolCallBlock(tool_name="ranking", tool_kwargs=arguments)
        return ChatMessage(role="assistant", blocks=[TextBlock(text="thinking aloud"), call])

    class Asking(Calling):
        def _prepare_chat_with_tools(
            self, tools: Any, chat_history: Any = None, tool_required: bool = False, **kwargs: Any
        ) -> dict[str, Any]:
            return {"messages": chat_history, "tools": tools, "tool_required": tool_required}

    model = as_chat_model(Asking(response_generator=said), {})
    assert declared(model) == {"system", "tools"}
    assert (model.name, model.context_window) == ("llm:caller", 8_000)
    for found in await completions(model, EVERYTHING):
        assert found.text == '{"ranking": ["é"]}'
    for tool in tools:
        assert tool.metadata.to_openai_tool()["function"] == {
            "name": "ranking",
            "description": "The passages in order.",
            "parameters": SHAPE.schema,
        }
        assert tool.metadata.fn_schema.model_json_schema() == SHAPE.schema


async def test_an_error_of_ones_own_llm_is_raised() -> None:
    class Failing(MockLLM):
        def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
            raise LookupError("no such prompt")

    model = as_chat_model(Failing(), {})
    with pytest.raises(LookupError, match="no such prompt"):
        model.send(question(), 5.0)
    with pytest.raises(LookupError, match="no such prompt"):
        await model.asend(question(), 5.0)


async def test_llama_indexs_instrumentation_sees_each_call() -> None:
    names: list[str] = []

    class Handler(BaseEventHandler):
        @classmethod
        def class_name(cls) -> str:
            return "Handler"

        def handle(self, event: BaseEvent, **kwargs: Any) -> None:
            names.append(type(event).__name__)

    root = get_dispatcher()
    handler = Handler()
    root.add_event_handler(handler)
    try:
        await both(as_chat_model(MockLLM(), {}), question())
    finally:
        root.event_handlers.remove(handler)
    assert names.count("LLMChatStartEvent") == names.count("LLMChatEndEvent") >= 2


def test_an_llm_of_bare_texts_is_asked_without_a_schema() -> None:
    like = pytest.importorskip("llama_index.llms.openai_like")
    with serve_chat(brain) as server:
        llm = like.OpenAILike(model="m", api_base=server.base_url, api_key=KEY, max_retries=0)
        model = as_chat_model(llm, {})
        assert "tools" not in declared(model)
        reply = downgraded(model, question(schema=SHAPE, top_logprobs=2), most=4)
        assert isinstance(reply.data, Completion)
        assert reply.data.text == ANSWER
        assert server.posts[-1].path == "/v1/completions"
        assert model.secrets() == (KEY,)


def test_an_llm_that_does_not_know_its_own_model() -> None:
    of_openai = pytest.importorskip("llama_index.llms.openai")
    with pytest.raises(ConfigurationError, match="The LLM given, a OpenAI, cannot be used: Unknown model"):
        as_chat_model(of_openai.OpenAI(model="my-own-model", api_key=KEY), {})
