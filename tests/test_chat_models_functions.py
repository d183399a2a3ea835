"""Functions as language models, and what else may be given as one."""

from __future__ import annotations

import asyncio
import functools
import subprocess
import sys
import threading
import time
from collections.abc import Callable

import pytest

from chat_cases import KEY, MESSAGES, SHAPE, both, completions, question
from uprank.errors import BadReplyError, ConfigurationError, ScorerError
from uprank.scorers.http.messages import Lost, Reply, Unreadable
from uprank.scorers.llm.chat import ChatCall, ChatModel, Completion, Features, Message
from uprank.scorers.llm.models.find import as_chat_model
from uprank.scorers.llm.models.function import FunctionModel

GIVEN = [{"role": "system", "content": "You rank passages."}, {"role": "user", "content": "Which is better, K3 or Q7?"}]


def plain(messages: list[dict[str, str]]) -> str:
    return f"{len(messages)}: {messages[-1]['content']}"


async def awaited(messages: list[dict[str, str]]) -> str:
    await asyncio.sleep(0)
    return plain(messages)


def returns_an_awaitable(messages: list[dict[str, str]]) -> object:
    return awaited(messages)


class Callable_:
    def __call__(self, messages: list[dict[str, str]]) -> str:
        return plain(messages)


class AsyncCallable:
    async def __call__(self, messages: list[dict[str, str]]) -> str:
        return plain(messages)

    async def method(self, messages: list[dict[str, str]]) -> str:
        return plain(messages)


def with_prefix(prefix: str, messages: list[dict[str, str]]) -> str:
    return prefix + plain(messages)


FUNCTIONS: dict[str, Callable[..., object]] = {
    "sync": plain,
    "async": awaited,
    "sync-that-returns-an-awaitable": returns_an_awaitable,
    "object": Callable_(),
    "async-object": AsyncCallable(),
    "async-method": AsyncCallable().method,
    "partial": functools.partial(with_prefix, ""),
    "async-partial": functools.partial(awaited),
    "lambda": lambda messages: plain(messages),
}


@pytest.mark.parametrize("function", FUNCTIONS.values(), ids=FUNCTIONS)
async def test_any_function_both_ways(function: Callable[..., object]) -> None:
    model = as_chat_model(function, {})
    assert isinstance(model, ChatModel)
    for said in await completions(model, question(schema=SHAPE, tool=SHAPE, top_logprobs=3, seed=1)):
        assert said == Completion("2: Which is better, K3 or Q7?")


async def test_where_it_runs() -> None:
    places: list[str] = []

    def sync(messages: list[dict[str, str]]) -> str:
        places.append(threading.current_thread().name)
        return ""

    async def native(messages: list[dict[str, str]]) -> str:
        return sync(messages)

    here = threading.current_thread().name
    await both(FunctionModel(sync), question())
    await both(FunctionModel(native), question())
    assert places[0] == here
    assert places[1] != here  # the loop is not held up
    assert places[2] == "uprank-async"  # a loop of its own, since one runs here
    assert places[3] == here


async def test_each_call_is_given_messages_of_its_own() -> None:
    seen: list[object] = []

    def function(messages: list[dict[str, str]]) -> str:
        seen.append([dict(message) for message in messages])
        messages[0]["content"] = "changed"
        messages.clear()
        return "x"

    await both(FunctionModel(function), question())
    assert seen == [GIVEN, GIVEN]
    assert MESSAGES[0].content == "You rank passages."


async def test_a_completion_says_more() -> None:
    told = Completion("[1]", "length", ({"A": -0.1},), 10, 2)
    assert await completions(FunctionModel(lambda messages: told), question()) == [told, told]


@pytest.mark.parametrize("answer", [None, 3, ["[1]"], b"[1]", {"content": "[1]"}])
async def test_anything_else_is_no_answer(answer: object) -> None:
    def function(messages: list[dict[str, str]]) -> object:
        return answer

    model = FunctionModel(function)  # type: ignore[arg-type]  # that is the point
    for ask in (lambda: model.send(question(), 5.0), lambda: asyncio.run(model.asend(question(), 5.0))):
        with pytest.raises(
            BadReplyError,
            match=rf"returns a str or a uprank\.scorers\.llm\.Completion; it returned {type(answer).__name__}\.",
        ) as caught:
            await asyncio.to_thread(ask)
        assert isinstance(caught.value, ScorerError)
        assert caught.value.model == model.name


class Refused(Exception):
    def __init__(self) -> None:
        self.status_code = 429
        self.headers = {"Retry-After": "9"}
        self.body = {"error": {"message": "slow down"}}


FAILURES: list[tuple[Exception, Reply | Lost | None]] = [
    (Refused(), Reply(429, {"retry-after": "9"}, {"error": {"message": "slow down"}})),
    (TimeoutError("too slow"), Lost("timeout", "no whole reply within 5 s")),
    (ConnectionRefusedError("nobody"), Lost("connect", "ConnectionRefusedError: nobody")),
    (ConnectionResetError("gone"), Lost("broken", "ConnectionResetError: gone")),
    (BrokenPipeError("gone"), Lost("broken", "BrokenPipeError: gone")),
    (ValueError("temperature must not be negative"), None),
    (KeyError("x"), None),
    (OSError("disk full"), None),
    (ScorerError("mine"), None),
]


@pytest.mark.parametrize(("error", "expected"), FAILURES, ids=[type(case[0]).__name__ for case in FAILURES])
@pytest.mark.parametrize("native", [False, True])
async def test_what_it_raises(error: Exception, expected: Reply | Lost | None, native: bool) -> None:
    def function(messages: list[dict[str, str]]) -> str:
        raise error

    async def async_function(messages: list[dict[str, str]]) -> str:
        raise error

    model = FunctionModel(async_function if native else function)
    if expected is not None:
        assert await both(model, question(), timeout=5) == [expected, expected]
        return
    with pytest.raises(type(error)) as caught:
        model.send(question(), 5.0)
    assert caught.value is error
    with pytest.raises(type(error)) as caught:
        await model.asend(question(), 5.0)
    assert caught.value is error


async def test_stop_iteration_ends_nothing_else() -> None:
    empty = iter([])
    model = FunctionModel(lambda messages: next(empty))
    with pytest.raises(RuntimeError, match="StopIteration"):
        model.send(question(), 5.0)
    with pytest.raises(RuntimeError, match="StopIteration"):
        await model.asend(question(), 5.0)


async def test_time_runs_out() -> None:
    release = threading.Event()

    def sync(messages: list[dict[str, str]]) -> str:
        release.wait(5)
        return "late"

    async def native(messages: list[dict[str, str]]) -> str:
        await asyncio.sleep(5)
        return "late"

    began = time.monotonic()
    assert await FunctionModel(sync).asend(question(), 0.05) == Lost("timeout", "no whole reply within 0.05 s")
    release.set()
    expected = [Lost("timeout", "no whole reply within 0.05 s")] * 2
    assert await both(FunctionModel(native), question(), timeout=0.05) == expected
    assert time.monotonic() - began < 4


async def test_cancelling_reaches_an_async_function() -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    async def function(messages: list[dict[str, str]]) -> str:
        begun.set()
        try:
            await asyncio.sleep(5)
        finally:
            ended.set()
        return ""

    asking = asyncio.ensure_future(FunctionModel(function).asend(question(), 5.0))
    await asyncio.wait_for(begun.wait(), 5)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert ended.is_set()


async def test_rules_without_a_question_are_one() -> None:
    model = FunctionModel(plain)
    model.features.drop("system")
    for said in await completions(model, question(messages=(Message("system", "A."), Message("system", "B.")))):
        assert said.text == "1: A.\n\nB."
    for said in await completions(model, question(messages=(Message("user", "C."),))):
        assert said.text == "1: C."


def test_a_call_without_a_question_is_a_mistake() -> None:
    with pytest.raises(TypeError, match="carries a ChatRequest"):
        FunctionModel(plain).send(ChatCall("here"), 5.0)


class OfHTTP(Exception):
    """As httpx.HTTPStatusError."""

    def __init__(self, message: str, response: object) -> None:
        super().__init__(message)
        self.response = response


def test_a_reply_that_was_never_read_has_its_status() -> None:
    httpx = pytest.importorskip("httpx")

    def raising(response: object) -> FunctionModel:
        def function(messages: list[dict[str, str]]) -> str:
            raise OfHTTP("it failed", response)

        return FunctionModel(function)

    unread = httpx.Response(503, headers={"Retry-After": "2"}, stream=httpx.SyncByteStream())
    told = {"error": {"message": "it failed"}}
    assert raising(unread).send(question(), 5.0) == Reply(503, {"retry-after": "2"}, told)
    page = httpx.Response(502, headers={"X": "y"}, content=b"<h1>Bad gateway</h1>")
    outcome = raising(page).send(question(), 5.0)
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.data) == (502, Unreadable("<h1>Bad gateway</h1>"))
    with pytest.raises(OfHTTP):  # no failure of the service's
        raising(httpx.Response(302)).send(question(), 5.0)


def test_names() -> None:
    assert FunctionModel(plain).name == "llm:plain"
    assert FunctionModel(functools.partial(functools.partial(with_prefix, ""))).name == "llm:with_prefix"
    assert FunctionModel(Callable_()).name == "llm:Callable_"
    assert as_chat_model(plain, {"name": "mine"}).name == "llm:mine"
    two = [FunctionModel(lambda messages: "a"), FunctionModel(lambda messages: "b")]
    assert two[0].address != two[1].address  # nor do they share their places
    assert FunctionModel(plain).address == FunctionModel(plain).address
    assert FunctionModel(plain).secrets() == ()
    assert repr(FunctionModel(plain).features) == repr(Features("system"))


# What else may be given


class Own:
    name = "llm:own"
    provider = "own"
    address = "here"
    features = Features()
    context_window = None

    def send(self, call: object, timeout: float) -> Reply:
        return Reply(200, {}, Completion("x"))

    async def asend(self, call: object, timeout: float) -> Reply:
        return Reply(200, {}, Completion("x"))

    def secrets(self) -> tuple[str, ...]:
        return ()

    def close(self) -> None: ...

    async def aclose(self) -> None: ...


def test_a_model_of_the_kind_is_taken_as_it_is() -> None:
    own = Own()
    assert as_chat_model(own, {}) is own
    with pytest.raises(ConfigurationError, match="api_key cannot be set here: the model given, a Own"):
        as_chat_model(own, {"api_key": "k"})


@pytest.mark.parametrize("given", [None, 3, b"gpt", ["gpt"], {"model": "gpt"}, object()])
def test_what_is_no_model(given: object) -> None:
    with pytest.raises(ConfigurationError, match=f"llm cannot be a {type(given).__name__}. It takes a model's name"):
        as_chat_model(given, {})


@pytest.mark.parametrize("given", [Own, Callable_, dict])
def test_a_class_is_no_model(given: type) -> None:
    with pytest.raises(ConfigurationError, match=f"llm is the class {given.__name__}; make a model of it first"):
        as_chat_model(given, {})


def test_options_of_functions() -> None:
    with pytest.raises(ConfigurationError, match="api_key, base_url cannot be set here"):
        as_chat_model(plain, {"base_url": "http://x", "api_key": "k", "name": "n"})
    with pytest.raises(ConfigurationError, match="name must be a string"):
        as_chat_model(plain, {"name": 3})


def test_a_name_is_a_model_behind_an_address() -> None:
    pytest.importorskip("openai")
    model = as_chat_model("gpt-4.1-mini", {"api_key": KEY, "context_window": 100})
    assert (model.name, model.provider, model.context_window) == ("llm:gpt-4.1-mini", "openai", 100)
    with pytest.raises(ConfigurationError, match=r"no option 'base_ur'. Did you mean 'base_url'\? .*extra_body"):
        as_chat_model("gpt", {"base_ur": "http://x", "api_key": KEY})


def test_clients_and_near_misses_are_told_what_to_give() -> None:
    openai = pytest.importorskip("openai")
    with pytest.raises(ConfigurationError, match="llm is a client, OpenAI: give the model's name, and the client by"):
        as_chat_model(openai.OpenAI(api_key=KEY), {})
    fakes = pytest.importorskip("langchain_core.language_models")
    with pytest.raises(ConfigurationError, match="FakeListLLM, which completes texts; give a LangChain chat model"):
        as_chat_model(fakes.FakeListLLM(responses=["x"]), {})
    bound = fakes.FakeListChatModel(responses=["x"]).bind(stop=["."])
    with pytest.raises(ConfigurationError, match=r"a chain of LangChain; give the chat model itself, without bind\(\)"):
        as_chat_model(bound, {})


def test_a_function_needs_no_package() -> None:
    code = (
        "import sys; from uprank.scorers.llm.models.find import as_chat_model; from uprank.scorers.llm.chat import *\n"
        "model = as_chat_model(lambda messages: 'yes', {})\n"
        "call = ChatCall('x', None, ChatRequest((Message('user', 'q'),), 5))\n"
        "assert model.send(call, 5.0).data.text == 'yes'\n"
        "heavy = {'openai', 'httpx', 'anyio', 'pydantic', 'langchain_core', 'llama_index', 'asyncio'}\n"
        "loaded = heavy & set(sys.modules)\n"
        "assert not loaded, loaded"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
