"""One question to the OpenAI SDK, a LangChain chat model and a LlamaIndex LLM, from sync and from async code."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
import traceback
from collections.abc import Iterator

import pytest

pytest.importorskip("openai", reason="the official SDK is what is tested here")
pytest.importorskip("langchain_openai", reason="a real chat model of LangChain is asked")
pytest.importorskip("llama_index.llms.openai_like", reason="a real LLM of LlamaIndex is asked")

from chat_cases import ANSWER, KEY, MODELS, SHAPE, both, brain, completions, downgraded, order, question
from chat_server import (
    ChatServer,
    Said,
    closed,
    empty,
    filtered,
    filtered_prompt,
    html,
    length,
    no_choices,
    refusal,
    serve_chat,
    silent,
    status,
    unsupported,
)
from rerank_servers import Fault, refused_port
from uprank.errors import ServiceError
from uprank.scorers.http.failures import Asked, reply_error
from uprank.scorers.http.messages import Lost, Reply, Unreadable
from uprank.scorers.http.retries import wait_hint
from uprank.scorers.llm.chat import ChatModel, ChatRequest, Completion, Feature, Features, Message
from uprank.scorers.llm.unsupported import is_filtered, unsupported_feature

# One loop for all: the clients of both frameworks keep connections, which belong to the loop they were made on.
pytestmark = pytest.mark.asyncio(loop_scope="module")

EVERYTHING = question(schema=SHAPE, tool=SHAPE, top_logprobs=1, seed=1).request or ChatRequest((), 1)
FEATURES: tuple[Feature, ...] = ("json_schema", "tools", "logprobs", "seed", "temperature", "system")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("OPENAI_API_KEY", "OPENAI_BASE_URL", "OPENAI_API_BASE", "OPENAI_ORG_ID"):
        monkeypatch.delenv(variable, raising=False)


@pytest.fixture(scope="module")
def shared() -> Iterator[ChatServer]:
    with serve_chat(brain, key=KEY) as running:
        yield running


@pytest.fixture
def server(shared: ChatServer) -> Iterator[ChatServer]:
    shared.requests.clear()
    shared.delay = 0.0
    yield shared
    shared.heal()
    shared.lack()


@pytest.fixture(scope="module", params=MODELS)
def kept(request: pytest.FixtureRequest, shared: ChatServer) -> ChatModel:
    """Made once: reading the certificates of the system takes longer than a request."""
    return MODELS[request.param](shared.base_url)


@pytest.fixture
def model(kept: ChatModel, server: ChatServer) -> ChatModel:
    """With all features, whatever an earlier test found out."""
    kept.features = Features(*EVERYTHING.features)
    return kept


async def test_every_feature_is_tried(kept: ChatModel, shared: ChatServer) -> None:
    fresh = next(make(shared.base_url) for name, make in MODELS.items() if name == kept.provider)
    assert fresh.features.used(EVERYTHING) == EVERYTHING.features
    assert (fresh.name, fresh.provider) == ("llm:m", kept.provider)


# Answers


async def test_text(model: ChatModel, server: ChatServer) -> None:
    for said in await completions(model, question(seed=7)):
        assert said.text == ANSWER
        assert said.finish == "stop"
        assert said.logprobs == ()
        assert said.input_tokens == 13
        assert said.output_tokens == 16
    for body in server.bodies:
        assert [message["role"] for message in body["messages"]] == ["system", "user"]  # type: ignore[attr-defined]  # a list
        assert body["temperature"] == 0
        assert body["seed"] == 7
        assert body.get("max_tokens", body.get("max_completion_tokens")) == 64
        assert not body.get("stream")
        assert not {"response_format", "tools", "logprobs", "top_logprobs"} & set(body)


async def test_an_answer_held_to_a_schema(model: ChatModel, server: ChatServer) -> None:
    for said in await completions(model, question(schema=SHAPE)):
        assert order(said) == ["Q7", "K3"]
    for body in server.bodies:
        assert body["response_format"] == {
            "type": "json_schema",
            "json_schema": {
                "name": "ranking",
                "description": "The passages in order.",
                "strict": True,
                "schema": SHAPE.schema,
            },
        }


async def test_a_function_that_must_be_called(model: ChatModel, server: ChatServer) -> None:
    for said in await completions(model, question(tool=SHAPE)):
        assert order(said) == ["Q7", "K3"]
        assert said.finish == "stop"
    for body in server.bodies:
        assert body["tool_choice"] == {"type": "function", "function": {"name": "ranking"}}
        (tool,) = body["tools"]  # type: ignore[misc]  # a list
        assert tool["function"]["parameters"] == SHAPE.schema
        assert tool["function"]["strict"] is True


async def test_probabilities_of_the_first_tokens(server: ChatServer, model: ChatModel) -> None:
    for said in await completions(model, question(top_logprobs=50)):
        assert len(said.logprobs) == 8
        assert dict(said.logprobs[0]) == {"{": -0.01, "{~": -4.6}
    assert [body["top_logprobs"] for body in server.bodies] == [20, 20]


@pytest.mark.parametrize("name", MODELS)
async def test_probabilities_are_those_of_the_model(name: str) -> None:
    likely = {" B": -0.5, "A": -1.25, "C": -9999.0}
    with serve_chat(lambda messages, body: Said("A", [likely])) as server:
        for said in await completions(MODELS[name](server.base_url), question(top_logprobs=3)):
            assert said.logprobs == (likely,)


async def test_an_answer_cut_at_the_limit(model: ChatModel, server: ChatServer) -> None:
    for said in await completions(model, question(max_tokens=4)):
        assert said.finish == "length"
        assert ANSWER.startswith(said.text)
        assert 0 < len(said.text) < len(ANSWER)


async def test_a_cut_answer_of_a_schema_keeps_what_there_is(model: ChatModel, server: ChatServer) -> None:
    # The SDK's own helper for schemas, which LangChain uses, raises over such an answer.
    for said in await completions(model, question(max_tokens=4, schema=SHAPE)):
        assert said.finish == "length"
        assert ANSWER.startswith(said.text)
        assert said.text
        assert said.output_tokens == 4


async def test_a_cut_function_call_is_no_answer_made_whole(model: ChatModel, server: ChatServer) -> None:
    server.fail_always(length())
    for said in await completions(model, question(tool=SHAPE)):
        assert said.finish == "length"
        assert said.text == ANSWER[: len(ANSWER) // 2]


@pytest.mark.parametrize("shape", ["text", "schema", "tool"])
async def test_a_refusal(model: ChatModel, server: ChatServer, shape: str) -> None:
    server.fail_always(refusal("I must decline."))
    asked = question(**({} if shape == "text" else {shape: SHAPE}))  # type: ignore[arg-type]  # by name
    for said in await completions(model, asked):
        assert said.finish == "refusal"
        assert said.text == "I must decline."


@pytest.mark.parametrize("shape", ["text", "schema"])
async def test_an_answer_stopped_by_the_filter(model: ChatModel, server: ChatServer, shape: str) -> None:
    server.fail_always(filtered())
    for said in await completions(model, question(schema=SHAPE if shape == "schema" else None)):
        assert said.finish == "filter"
        assert said.text == ""


async def test_without_a_system_role_its_text_begins_the_users(model: ChatModel, server: ChatServer) -> None:
    model.features.drop("system")
    messages = (
        Message("system", "Rules."),
        Message("user", "One."),
        Message("assistant", "Yes?"),
        Message("user", "B"),
    )
    await completions(model, question(messages=messages))
    for body in server.bodies:
        assert [(each["role"], each["content"]) for each in body["messages"]] == [  # type: ignore[attr-defined]  # a list
            ("user", "Rules.\n\nOne."),
            ("assistant", "Yes?"),
            ("user", "B"),
        ]


# Refusals and failures


ADVICE = pytest.mark.filterwarnings("ignore:This model does not support OpenAI's structured output")  # LangChain's


@ADVICE
@pytest.mark.parametrize("feature", FEATURES)
async def test_what_a_model_lacks_is_left_out(model: ChatModel, server: ChatServer, feature: Feature) -> None:
    server.lack(feature)
    call = question(
        seed=1,
        top_logprobs=2 if feature == "logprobs" else 0,
        schema=SHAPE if feature == "json_schema" else None,
        tool=SHAPE if feature == "tools" else None,
    )
    assert call.request is not None
    if model.provider == "llama-index" and feature == "temperature":  # its class sends one of its own
        outcome = model.send(call, 10.0)
        assert isinstance(outcome, Reply)
        assert unsupported_feature(outcome, call.request, model.features) == {"temperature"}
        return
    found = downgraded(model, call).data
    assert isinstance(found, Completion)
    assert found.text == ANSWER
    assert model.features.used(EVERYTHING) == EVERYTHING.features - {feature}
    assert len(server.posts) == 2
    await completions(model, call)
    assert len(server.posts) == 4


async def test_the_limit_goes_by_its_other_name(model: ChatModel, server: ChatServer) -> None:
    if model.provider == "langchain":  # whose class has one name for all models
        model.features.drop("max_tokens")
    server.lack("max_tokens")
    assert isinstance(downgraded(model, question()).data, Completion)
    await completions(model, question())
    assert [body.get("max_completion_tokens") for body in server.bodies][-3:] == [64, 64, 64]


@ADVICE
@pytest.mark.parametrize("feature", FEATURES)
async def test_a_refusal_arrives_whole(model: ChatModel, server: ChatServer, feature: Feature) -> None:
    server.fail_always(unsupported(feature))
    call = question(seed=1, top_logprobs=1, schema=SHAPE if feature == "json_schema" else None, tool=SHAPE)
    assert call.request is not None
    for outcome in await both(model, call):
        assert isinstance(outcome, Reply)
        assert outcome.status == 400
        assert unsupported_feature(outcome, call.request, model.features) == {feature}


async def test_a_filter_of_prompts(model: ChatModel, server: ChatServer) -> None:
    server.fail_always(filtered_prompt())
    for outcome in await both(model, question()):
        assert isinstance(outcome, Reply)
        assert outcome.status == 400
        assert is_filtered(outcome)


@pytest.mark.parametrize("code", [401, 403, 404, 413, 422, 500, 503])
async def test_a_status_is_reported_as_it_is(model: ChatModel, server: ChatServer, code: int) -> None:
    server.fail_always(status(code, message="the server's own words", headers={"X-Trace": "r-1"}))
    for outcome in await both(model, question()):
        assert isinstance(outcome, Reply)
        assert outcome.status == code
        assert outcome.headers["x-trace"] == "r-1"
        assert outcome.data["error"]["message"] == "the server's own words"  # type: ignore[index]  # a mapping
    assert len(server.posts) == 2  # nobody's retries but ours


async def test_the_wait_that_a_429_asks_for_survives(model: ChatModel, server: ChatServer) -> None:
    server.fail_always(status(429, retry_after=17))
    for outcome in await both(model, question()):
        assert isinstance(outcome, Reply)
        assert outcome.status == 429
        assert wait_hint(outcome.headers) == 17
    assert len(server.posts) == 2


@pytest.mark.parametrize("name", MODELS)
async def test_a_wrong_key(name: str, server: ChatServer) -> None:
    model = MODELS[name](server.base_url, "sk-wrong-81d2e6")
    for outcome in await both(model, question()):
        assert isinstance(outcome, Reply)
        assert outcome.status == 401
        assert "sk-wrong-81d2e6" in model.secrets()  # which this server repeats, so that it can be taken out
        asked = Asked("x", model.name, question(), 2, "", secrets=model.secrets())
        assert "81d2e6" not in str(reply_error(outcome, asked))


@pytest.mark.parametrize("fault", [html(), no_choices(), empty()], ids=str)
async def test_a_success_that_is_no_completion(model: ChatModel, server: ChatServer, fault: Fault) -> None:
    server.fail_always(fault)
    for outcome in await both(model, question()):
        assert isinstance(outcome, Reply)
        assert outcome.status == 200
        assert not isinstance(outcome.data, Completion)
        assert isinstance(outcome.data, (dict, Unreadable))


async def test_a_connection_that_breaks(model: ChatModel, server: ChatServer) -> None:
    server.fail_always(closed())
    for outcome in await both(model, question()):
        assert isinstance(outcome, Lost)
        assert outcome.why == "broken"
        assert not outcome.permanent


@pytest.mark.parametrize("name", MODELS)
async def test_nobody_there(name: str) -> None:
    for outcome in await both(MODELS[name](f"http://127.0.0.1:{refused_port()}/v1"), question()):
        assert isinstance(outcome, Lost)
        assert outcome.why == "connect"


async def test_no_answer_in_time(model: ChatModel, server: ChatServer) -> None:
    server.fail_always(silent(5))
    for outcome in await both(model, question(), timeout=0.1):
        assert isinstance(outcome, Lost)
        assert outcome.why == "timeout"
        assert "0.1 s" in outcome.detail


@pytest.mark.parametrize("name", MODELS)
async def test_cancelling_ends_the_request(name: str) -> None:
    with serve_chat(brain) as server:
        server.fail_always(silent(5))
        asking = asyncio.ensure_future(MODELS[name](server.base_url).asend(question(), 10.0))
        began = time.monotonic()
        while server.at_once == 0 and time.monotonic() - began < 5:
            await asyncio.sleep(0.01)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        while server.open_connections and time.monotonic() - began < 4:  # the server sees it hang up
            await asyncio.sleep(0.01)
        assert server.open_connections == 0
        assert len(server.posts) == 1
        assert asyncio.all_tasks() == {asyncio.current_task()}


# Secrets


async def test_the_key_is_in_nothing_that_is_shown(model: ChatModel, server: ChatServer) -> None:
    assert KEY in model.secrets()
    shown = [repr(model), model.name, model.address, repr(model.features)]
    for fault in (status(429), status(500), html(), closed()):
        server.heal()
        server.fail_always(fault)
        shown += [repr(outcome) for outcome in await both(model, question())]
    assert all(request.headers["authorization"] == f"Bearer {KEY}" for request in server.posts)
    assert not [text for text in shown if KEY in text]


async def test_the_key_is_in_no_log(model: ChatModel, server: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail_next(status(500), times=2)
    for _ in range(2):
        await both(model, question())
    assert "chat/completions" in caplog.text
    assert KEY not in caplog.text


@pytest.mark.parametrize("fault", [status(503), closed()], ids=str)
async def test_no_exception_is_kept(model: ChatModel, server: ChatServer, fault: Fault) -> None:
    # What an exception of a client holds, its request and with it the key, would live as long as the outcome.
    server.fail_always(fault)
    outcomes = await both(model, question())
    gc.collect()
    held = [found for outcome in outcomes for found in gc.get_referents(outcome) if isinstance(found, BaseException)]
    assert held == []


async def test_an_error_made_of_a_refusal_shows_no_key(server: ChatServer, model: ChatModel) -> None:
    server.fail_always(status(400, message=f"bad key {KEY}"))
    outcome = model.send(question(), 10.0)
    assert isinstance(outcome, Reply)
    try:
        raise reply_error(outcome, Asked("x", model.name, question(), 2, "", secrets=model.secrets()))
    except ServiceError as error:
        shown = "".join(traceback.TracebackException.from_exception(error).format())
    assert KEY not in shown
    assert "bad key" in shown
