"""What is given as a language model: its place in errors and limits, its options, and what a function returns."""

from __future__ import annotations

import asyncio
import functools
import inspect
import threading
from collections.abc import Callable
from types import SimpleNamespace

import pytest

from chat_cases import KEY, question
from uprank import ConfigurationError, Reranker
from uprank.errors import BadReplyError
from uprank.scorers import LLMScorer
from uprank.scorers.http.messages import Reply
from uprank.scorers.llm.models.find import OF_A_NAMED_MODEL, as_chat_model
from uprank.scorers.llm.models.function import FunctionModel
from uprank.scorers.llm.models.naming import label, urls_of
from uprank.testing import MockChatModel


def judge(messages: list[dict[str, str]]) -> str:
    return "1"


class Judge:
    __hash__ = None  # type: ignore[assignment]  # as pydantic's objects

    def __call__(self, messages: list[dict[str, str]]) -> str:
        return "1"

    def ask(self, messages: list[dict[str, str]]) -> str:
        return "1"


# Functions in flight


async def test_sync_functions_are_called_as_many_at_once_as_allowed() -> None:
    most = 40  # more than asyncio's pool has threads on any machine
    together = threading.Barrier(most, timeout=10)

    def function(messages: list[dict[str, str]]) -> str:
        together.wait()  # for all the others
        return "1"

    scorer = LLMScorer(
        function, method="pointwise", isolate=True, max_concurrency=most, max_retries=0, timeout=10, strict=True
    )
    ranking = await Reranker(scorer).arank("q", [f"text {number}" for number in range(most)])
    assert len(ranking) == most
    assert not ranking.degraded


async def test_the_timeout_counts_the_call_alone() -> None:
    busy = threading.Event()
    held = [asyncio.ensure_future(asyncio.to_thread(busy.wait, 10)) for _ in range(40)]  # all of asyncio's pool
    try:
        outcomes = await asyncio.gather(*(FunctionModel(judge).asend(question(), 2.0) for _ in range(3)))
        assert all(isinstance(outcome, Reply) for outcome in outcomes)
    finally:
        busy.set()
        await asyncio.gather(*held)


async def test_a_function_that_returns_an_awaitable_has_one_timeout_for_both() -> None:
    async def later() -> str:
        await asyncio.sleep(5)
        return "1"

    outcome = await FunctionModel(lambda messages: later()).asend(question(), 0.05)
    assert not isinstance(outcome, Reply)
    assert outcome.why == "timeout"


# Addresses


def test_functions_of_one_name_have_places_of_their_own_that_can_be_read() -> None:
    def made() -> Callable[[list[dict[str, str]]], str]:
        def told_apart(messages: list[dict[str, str]]) -> str:
            return "1"

        return told_apart

    first, second = made(), made()
    models = [FunctionModel(first), FunctionModel(second), FunctionModel(first)]
    addresses = [model.address for model in models]
    assert addresses == ["function told_apart", "function told_apart (2)", "function told_apart"]
    assert [model.name for model in models] == ["llm:told_apart"] * 3


def test_a_method_belongs_to_its_object() -> None:
    one, other = Judge(), Judge()
    assert FunctionModel(one.ask).address == FunctionModel(one.ask).address
    assert FunctionModel(one.ask).address != FunctionModel(other.ask).address
    assert FunctionModel(one).address == FunctionModel(one).address != FunctionModel(other).address
    assert FunctionModel(one.ask).address.startswith("function Judge.ask")
    part = functools.partial(judge)
    assert FunctionModel(part).address == FunctionModel(part).address != FunctionModel(functools.partial(judge)).address


def test_a_label_is_never_given_twice() -> None:
    labels = set()
    for _ in range(50):  # whose ids are the same again and again
        labels.add(label("passing", Judge()))
    assert len(labels) == 50
    assert label("fixed", 10**9) != label("fixed", 10**9)  # which cannot be watched


@pytest.mark.parametrize(
    ("field", "value", "found"),
    [
        ("openai_api_base", "https://eu.example.org/v1/", "https://eu.example.org/v1"),
        ("api_base", "http://user:pass-7f3a@localhost:8000/v1?key=7f3a#x", "http://localhost:8000/v1"),
        ("base_url", "http://[::1]:8000", "http://[::1]:8000"),
        ("azure_endpoint", "https://x.azure.com", "https://x.azure.com"),
        ("base_url", "http://[::1", None),
        ("base_url", "", None),
        ("base_url", None, None),
        ("api_base", "a local folder", None),
        ("openai_proxy", "http://proxy:1", None),
        ("curl", "http://x", None),
    ],
)
def test_where_an_object_asks(field: str, value: object, found: str | None) -> None:
    assert urls_of(SimpleNamespace(**{field: value})) == (() if found is None else (found,))


def gates(*models: object) -> list[object]:
    return [LLMScorer(model)._gate for model in models]


def test_chat_models_of_langchain_at_two_places_share_no_limit() -> None:
    openai = pytest.importorskip("langchain_openai")

    def at(base: str) -> object:
        return openai.ChatOpenAI(model="m", base_url=base, api_key=KEY)

    one, same, other = gates(at("http://localhost:1/v1"), at("http://localhost:1/v1"), at("http://localhost:2/v1"))
    assert one is same
    assert one is not other
    secret = as_chat_model(at("http://me:pw-7f3a@localhost:1/v1?key=7f3a"), {})
    assert secret.address == "ChatOpenAI m http://localhost:1/v1"


def test_llms_of_llama_index_at_two_places_share_no_limit() -> None:
    like = pytest.importorskip("llama_index.llms.openai_like")

    def at(base: str) -> object:
        return like.OpenAILike(model="m", api_base=base, api_key=KEY)

    one, same, other = gates(at("http://localhost:1/v1"), at("http://localhost:1/v1"), at("http://localhost:2/v1"))
    assert one is same
    assert one is not other


def test_models_that_tell_nothing_of_themselves_are_told_apart() -> None:
    fakes = pytest.importorskip("langchain_core.language_models")
    models = [as_chat_model(fakes.FakeListChatModel(responses=["x"]), {}) for _ in range(2)]
    assert models[0].address != models[1].address
    assert all(model.address.startswith("FakeListChatModel") and "0x" not in model.address for model in models)


# Options


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"windw": 5}, "no option 'windw'. Did you mean 'window'? It takes: method, "),
        ({"window_size": 5}, "no option 'window_size'. Did you mean 'window'?"),
        ({"nam": "x"}, "no option 'nam'. Did you mean 'name'?"),
        ({"no_such_option": 1}, "no option 'no_such_option'. It takes: "),
        ({"top_n": 3}, "no option 'top_n': it belongs to the Reranker around it, Reranker(LLMScorer(...), top_n=...)"),
        ({"threshold": 0.1}, "'threshold': it belongs to the Reranker"),
        ({"instruction": "x"}, "'instruction': it belongs to the Reranker"),
        ({"on_error": "raise"}, "'on_error': it belongs to the Reranker"),
        ({"top_k": 3}, "no option 'top_k'. Did you mean 'top_n' of the Reranker?"),
        ({"treshold": 3}, "Did you mean 'threshold' of the Reranker?"),
        ({"deadline": 3}, "'deadline': it is a part of the budget, budget=Budget(deadline=...)"),
        ({"max_call": 3}, "Did you mean 'max_calls' of budget=Budget(...)?"),
        ({"api_base": "http://x"}, "api_base cannot be set here: the model given, a function, has its own settings"),
    ],
)
def test_an_option_that_a_function_cannot_have(options: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        LLMScorer(judge, **options)
    assert told in str(caught.value)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"windw": 3}, "llm:m has no option 'windw'. Did you mean 'window'?"),
        ({"api_base": "http://x"}, "'api_base'. Did you mean 'base_url'?"),
        ({"url": "http://x"}, "'url'. Did you mean 'base_url'?"),
        ({"deadline": 3}, "budget=Budget(deadline=...)"),
        ({"api_ky": KEY}, "'api_ky'. Did you mean 'api_key'?"),
        ({"top_p": 1}, "Request fields that are not listed go into extra_body={...}."),
    ],
)
def test_an_option_that_a_name_cannot_have(options: dict[str, object], told: str) -> None:
    pytest.importorskip("openai")
    with pytest.raises(ConfigurationError) as caught:
        Reranker("llm:m", **options)
    assert told in str(caught.value)
    assert KEY not in str(caught.value)


def test_the_options_of_named_models_are_known_without_the_sdk() -> None:
    pytest.importorskip("openai")
    from uprank.scorers.llm.models.openai import OpenAIModel

    assert {*inspect.signature(OpenAIModel).parameters} - {"model"} == OF_A_NAMED_MODEL


@pytest.mark.parametrize("name", ["llm:gpt-4.1-mini", "llm:llm:gpt-4.1-mini", " llm: gpt-4.1-mini"])
def test_the_scheme_may_stand_before_a_name(name: str) -> None:
    pytest.importorskip("openai")
    scorer = LLMScorer(name, api_key=KEY)
    assert scorer.name == "llm:gpt-4.1-mini"
    assert scorer._model._model == "gpt-4.1-mini"  # type: ignore[attr-defined]  # what is sent
    with pytest.raises(ConfigurationError, match="needs the name of a model"):
        LLMScorer("llm:", api_key=KEY)


# Given to a reranker


def test_a_reranker_takes_a_chat_model_as_it_is() -> None:
    model = MockChatModel(lambda query, text: len(text) / 4)
    reranker = Reranker(model, method="pointwise", top_n=2)
    assert isinstance(reranker.scorer, LLMScorer)
    ranking = reranker.rank("q", ["a", "bbb", "bb"])
    assert [hit.index for hit in ranking] == [1, 2]
    assert ranking.score_kind == "probability"


def test_a_reranker_takes_what_frameworks_have() -> None:
    fakes = pytest.importorskip("langchain_core.language_models")
    mock = pytest.importorskip("llama_index.core.llms.mock")
    chat = fakes.FakeListChatModel(responses=["[2] > [1]"])
    reranker = Reranker(chat, top_n=1, window=5, answers="text")
    assert isinstance(reranker.scorer, LLMScorer)
    assert reranker.top_n == 1
    assert isinstance(Reranker(mock.MockLLM(), method="setwise").scorer, LLMScorer)
    with pytest.raises(ConfigurationError, match=r"no option 'windw'\. Did you mean 'window'"):
        Reranker(chat, windw=3)


def test_a_reranker_says_what_is_amiss_with_near_misses() -> None:
    fakes = pytest.importorskip("langchain_core.language_models")
    with pytest.raises(ConfigurationError, match="which completes texts; give a LangChain chat model"):
        Reranker(fakes.FakeListLLM(responses=["x"]))
    with pytest.raises(ConfigurationError, match="give the chat model itself, without bind"):
        Reranker(fakes.FakeListChatModel(responses=["x"]).bind(stop=["."]))
    openai = pytest.importorskip("openai")
    with pytest.raises(ConfigurationError, match="llm is a client, AsyncOpenAI: give the model's name"):
        Reranker(openai.AsyncOpenAI(api_key=KEY))


# What a function returns


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (SimpleNamespace(content="[1]"), "Return message.content, the text alone."),
        ({"role": "assistant", "content": "[1]"}, 'Return message["content"], the text alone.'),
        (SimpleNamespace(choices=[]), "Return response.choices[0].message.content, the text alone."),
        (SimpleNamespace(text="[1]"), "Return response.text, the text alone."),
        (None, "Does it end without a return?"),
    ],
)
def test_a_function_that_returns_a_reply_is_told_where_its_text_is(answer: object, advice: str) -> None:
    with pytest.raises(BadReplyError) as caught:
        FunctionModel(lambda messages: answer).send(question(), 5.0)  # type: ignore[arg-type, return-value]  # the point
    assert advice in str(caught.value)
    assert "uprank.scorers.llm.Completion" in str(caught.value)


def test_a_function_that_returns_what_frameworks_answer() -> None:
    messages = pytest.importorskip("langchain_core.messages")
    types = pytest.importorskip("llama_index.core.base.llms.types")
    said = types.ChatResponse(message=types.ChatMessage(role="assistant", content="[1]"))
    cases = {
        "message.content": messages.AIMessage("[1]"),
        "response.message.content": said,
        "response.text": types.CompletionResponse(text="[1]"),
    }
    for written, answer in cases.items():
        with pytest.raises(BadReplyError, match=rf"returned {type(answer).__name__}\. Return {written},"):
            FunctionModel(lambda _, answer=answer: answer).send(question(), 5.0)
