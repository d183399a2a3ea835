"""The OpenAI SDK over our connections: addresses, keys, ready clients, bare prompts, loops and threads."""

from __future__ import annotations

import asyncio
import pickle
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

pytest.importorskip("openai", reason="the official SDK is what is tested here")

import openai

from chat_cases import ANSWER, KEY, SHAPE, both, brain, completions, question
from chat_server import Chat, ChatServer, edited, serve_chat, silent, status, upstream
from uprank.errors import ConfigurationError
from uprank.scorers.http.messages import Lost, Reply, Unreadable
from uprank.scorers.llm.chat import ChatModel, Completion
from uprank.scorers.llm.models.openai import OpenAIModel
from uprank.secrets import Secret


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (
        "OPENAI_API_KEY",
        "OPENAI_BASE_URL",
        "OPENAI_ORG_ID",
        "OPENAI_PROJECT_ID",
        "HTTP_PROXY",
        "HTTPS_PROXY",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def server() -> Iterator[ChatServer]:
    with serve_chat(brain, key=KEY) as running:
        yield running


def test_it_keeps_the_contract(server: ChatServer) -> None:
    model = OpenAIModel("gpt-x", base_url=server.base_url, api_key=KEY, context_window=1000)
    assert isinstance(model, ChatModel)
    assert (model.name, model.provider, model.address) == ("llm:gpt-x", "openai", server.base_url)
    assert model.context_window == 1000
    everything = question(schema=SHAPE, tool=SHAPE, top_logprobs=1, seed=1).request
    assert everything is not None
    assert model.features.used(everything) == everything.features


# Addresses


@pytest.mark.parametrize("given", ["", "/", "/v1", "/v1/", "/v1/chat/completions", "/v1/completions"])
async def test_an_address_is_meant_as_people_write_it(server: ChatServer, given: str) -> None:
    model = OpenAIModel("m", base_url=server.url + given, api_key=KEY)
    await completions(model, question())
    await completions(model, question(text="Q: K3 or Q7? A:"))
    assert [request.path for request in server.posts] == ["/v1/chat/completions"] * 2 + ["/v1/completions"] * 2


@pytest.mark.parametrize(
    "base", ["https://openrouter.ai/api/v1", "https://generativelanguage.googleapis.com/v1beta/openai/"]
)
def test_a_path_of_its_own_is_kept(base: str) -> None:
    assert OpenAIModel("m", base_url=base, api_key=KEY).address == base.rstrip("/")


async def test_the_environments_address(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    await completions(OpenAIModel("m", api_key=KEY), question())
    assert len(server.posts) == 2
    assert OpenAIModel("m", api_key=KEY, base_url="https://example.org/v1").address == "https://example.org/v1"


# Keys


async def test_the_environments_key_is_looked_up_for_each_request(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-old-1111")
    model = OpenAIModel("m", base_url=server.base_url)
    for outcome in await both(model, question()):
        assert isinstance(outcome, Reply)
        assert outcome.status == 401
    monkeypatch.setenv("OPENAI_API_KEY", f" {KEY}\n")
    await completions(model, question())
    assert model.secrets() == (KEY,)


async def test_a_server_of_ones_own_needs_no_key() -> None:
    with serve_chat(brain) as server:
        model = OpenAIModel("m", base_url=server.base_url)
        await completions(model, question())
        assert model.secrets() == ()


def test_openai_needs_one() -> None:
    with pytest.raises(ConfigurationError, match=r"llm:m needs a key.*api_key=.*OPENAI_API_KEY"):
        OpenAIModel("m")


async def test_a_secret_string_and_a_header_of_ones_own(server: ChatServer) -> None:
    await completions(OpenAIModel("m", base_url=server.base_url, api_key=Secret(KEY)), question())
    headers = {"authorization": f"Bearer {KEY}", "X-Team": "search"}
    model = OpenAIModel("m", base_url=server.base_url, headers=headers)
    await completions(model, question())
    assert KEY in model.secrets()
    assert [request.headers["authorization"] for request in server.posts] == [f"Bearer {KEY}"] * 4  # and no second
    assert [request.headers.get("x-team") for request in server.posts] == [None, None, "search", "search"]
    with pytest.raises(ConfigurationError, match="Authorization already"):
        OpenAIModel("m", headers=headers, api_key=KEY)


async def test_organization_and_project(server: ChatServer) -> None:
    model = OpenAIModel("m", base_url=server.base_url, api_key=KEY, organization="org-1", project="proj-2")
    await completions(model, question())
    for request in server.posts:
        assert request.headers["openai-organization"] == "org-1"
        assert request.headers["openai-project"] == "proj-2"


def test_a_pickle_holds_no_key(server: ChatServer) -> None:
    model = OpenAIModel("m", base_url=server.base_url, api_key=KEY, extra_body={"top_p": 0.5}, context_window=9)
    data = pickle.dumps(model)
    assert KEY.encode() not in data
    again = pickle.loads(data)  # noqa: S301 - our own
    assert (again.name, again.address, again.context_window) == ("llm:m", server.base_url, 9)
    again.send(question(), 5.0)
    assert server.bodies[0]["top_p"] == 0.5


# What is sent, what is read


async def test_a_whole_prompt_goes_to_the_other_route(server: ChatServer) -> None:
    model = OpenAIModel("m", base_url=server.base_url, api_key=KEY)
    model.features.drop("max_tokens")  # the limit has one name there
    for said in await completions(model, question(text="K3 or Q7?", top_logprobs=3, schema=SHAPE, tool=SHAPE, seed=2)):
        assert said.text == ANSWER
        assert dict(said.logprobs[0]) == {"{": -0.01, "{~": -4.6}
        assert len(said.logprobs) == 8
        assert said.output_tokens == 16
    for body in server.bodies:
        assert body == {
            "model": "m",
            "prompt": "K3 or Q7?",
            "max_tokens": 64,
            "temperature": 0,
            "seed": 2,
            "logprobs": 3,
        }


async def test_further_fields(server: ChatServer) -> None:
    model = OpenAIModel("m", base_url=server.base_url, api_key=KEY, extra_body={"reasoning_effort": "minimal"})
    await completions(model, question())
    assert [body["reasoning_effort"] for body in server.bodies] == ["minimal", "minimal"]


@pytest.mark.parametrize("extra", [{"stream": True}, {"messages": []}, {"model": "x"}, {"x": {1, 2}}, [1]])
def test_further_fields_that_cannot_be(extra: object) -> None:
    with pytest.raises(ConfigurationError, match="extra_body"):
        OpenAIModel("m", api_key=KEY, extra_body=extra)  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("code", [429, 502])
async def test_a_failure_behind_a_router_keeps_its_status(server: ChatServer, code: int) -> None:
    server.fail_always(upstream(code))
    for outcome in await both(OpenAIModel("m", base_url=server.base_url, api_key=KEY), question()):
        assert isinstance(outcome, Reply)
        assert outcome.status == code


async def test_a_success_that_is_no_object_is_shown_as_it_is(server: ChatServer) -> None:
    server.fail_always(edited(lambda value: ["not", "an", "object"]))
    for outcome in await both(OpenAIModel("m", base_url=server.base_url, api_key=KEY), question()):
        assert isinstance(outcome, Reply)
        assert (outcome.status, outcome.data) == (200, Unreadable('["not", "an", "object"]'))


async def read_of(server: ChatServer, model: ChatModel, **choice: object) -> list[Completion]:
    def change(value: object) -> object:
        assert isinstance(value, dict)
        value["choices"][0] |= choice
        return value

    server.heal()
    server.fail_always(edited(change))
    return await completions(model, question(tool=SHAPE, top_logprobs=2))


async def test_what_servers_answer_besides(server: ChatServer) -> None:
    model = OpenAIModel("m", base_url=server.base_url, api_key=KEY)
    called = {"type": "function", "function": {"name": "ranking", "arguments": {"ranking": ["é"]}}}
    other = {"type": "function", "function": {"name": "other", "arguments": "{}"}}
    parts = [
        {"type": "thinking", "thinking": "hm"},
        {"type": "text", "text": "[1] "},
        {"type": "text", "text": "> [2]"},
    ]
    for message, text in (
        ({"content": None}, ""),
        ({"content": parts}, "[1] > [2]"),
        ({"content": "text", "tool_calls": [other, called]}, '{"ranking": ["é"]}'),
        ({"content": "text", "tool_calls": [other]}, "text"),
        ({"content": "text", "tool_calls": None, "refusal": ""}, "text"),
    ):
        for said in await read_of(server, model, message=message):
            assert said.text == text
            assert said.finish == "stop"
    for said in await read_of(server, model, message={"content": "[1]", "refusal": "no"}, finish_reason="length"):
        assert (said.text, said.finish) == ("[1]", "length")
    odd = [{"token": "A", "logprob": -0.1, "top_logprobs": [{"token": "B", "logprob": None}, 3]}, None, {"token": "C"}]
    for said in await read_of(server, model, logprobs={"content": odd}, finish_reason=None):
        assert said.logprobs == ({"A": -0.1}, {}, {})
        assert said.finish == "stop"
    for logprobs in (None, [], {"content": None}, "x"):
        for said in await read_of(server, model, logprobs=logprobs):
            assert said.logprobs == ()


# Ready clients


async def test_ready_clients_keep_their_key_and_address_and_lose_their_retries(server: ChatServer) -> None:
    clients = {"api_key": KEY, "base_url": server.base_url}
    model = OpenAIModel("m", client=openai.OpenAI(**clients), async_client=openai.AsyncOpenAI(**clients))  # type: ignore[arg-type]  # by name
    assert KEY in model.secrets()
    assert model.address == server.base_url
    await completions(model, question())
    server.fail_always(status(503))
    for outcome in await both(model, question()):
        assert isinstance(outcome, Reply)
        assert outcome.status == 503
    assert len(server.posts) == 4
    server.heal()
    server.fail_always(silent(3))
    for outcome in await both(model, question(), timeout=0.15):
        assert outcome == Lost("timeout", "no whole reply within 0.15 s")
    with pytest.raises(TypeError, match="not pickled"):
        pickle.dumps(model)


async def test_one_ready_client_serves_both_ways_in_threads(server: ChatServer) -> None:
    model = OpenAIModel("m", client=openai.OpenAI(api_key=KEY, base_url=server.base_url))
    await completions(model, question())
    server.fail_always(silent(1))
    assert await model.asend(question(), 0.15) == Lost("timeout", "no whole reply within 0.15 s")


async def test_an_async_client_alone(server: ChatServer) -> None:
    client = openai.AsyncOpenAI(api_key=KEY, base_url=server.base_url)
    for model in (OpenAIModel("m", async_client=client), OpenAIModel("m", client=client)):
        assert isinstance((await model.asend(question(), 5.0)).data, Completion)  # type: ignore[union-attr]  # a reply
        with pytest.raises(ConfigurationError, match=r"only an async client.*pass client="):
            model.send(question(), 5.0)


async def test_azure(server: ChatServer) -> None:
    client = openai.AzureOpenAI(api_key=KEY, azure_endpoint=server.url, api_version="2024-10-21")
    outcome = OpenAIModel("gpt", client=client).send(question(), 5.0)
    assert isinstance(outcome, Reply)
    assert outcome.status == 404  # which this server has not, but it was asked for as Azure wants it
    assert server.posts[0].path == "/openai/deployments/gpt/chat/completions?api-version=2024-10-21"
    assert server.posts[0].headers["api-key"] == KEY


@pytest.mark.parametrize(
    "option", [{"api_key": "k"}, {"base_url": "http://x"}, {"headers": {"a": "b"}}, {"project": "p"}]
)
def test_a_ready_client_has_its_own_settings(option: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=f"its own {next(iter(option))}"):
        OpenAIModel("m", client=openai.OpenAI(api_key=KEY), **option)  # type: ignore[arg-type]  # by name


@pytest.mark.parametrize(
    "option",
    [
        {"client": object()},
        {"async_client": object()},
        {"base_url": "localhost:8000"},
        {"headers": {"a": "b\n"}, "proxy": "x"},
        {"proxy": "not-a-proxy"},
        {"verify": "/nowhere.pem"},
        {"transport": object()},
        {"context_window": -1},
        {"api_key": 7},
        {"api_key": "clé"},
    ],
)
def test_what_cannot_be(option: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError):
        OpenAIModel("m", **{"api_key": KEY, **option})  # type: ignore[arg-type]  # that is the point


@pytest.mark.parametrize("name", ["  ", None, 3])
def test_it_needs_a_name(name: object) -> None:
    with pytest.raises(ConfigurationError, match="the name of a model"):
        OpenAIModel(name, api_key=KEY)  # type: ignore[arg-type]  # that is the point


# Connections


def test_connections_are_kept_by_threads_and_by_each_loop(server: ChatServer) -> None:
    model = OpenAIModel("m", base_url=server.base_url, api_key=KEY)
    for _ in range(3):
        model.send(question(), 5.0)
    assert server.connections == 1

    async def thrice() -> None:
        for _ in range(3):
            outcome = await model.asend(question(), 5.0)
            assert isinstance(outcome, Reply)
            assert outcome.status == 200

    for _ in range(2):  # a loop that has ended takes its connection with it
        asyncio.run(thrice())
    assert server.connections == 3
    assert len(model._async) <= 2
    model.close()
    model.send(question(), 5.0)
    assert server.connections == 4
    assert len(model._sync) == 1


@pytest.mark.no_cover
def test_many_threads_share_one_client(server: ChatServer) -> None:
    model = OpenAIModel("m", base_url=server.base_url, api_key=KEY)
    found: list[object] = []

    def ask() -> None:
        found.append(getattr(model.send(question(), 10.0), "status", None))

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(15)
    assert found == [200] * 12
    assert len(model._sync) == 1


async def test_closing_closes_the_connections(server: ChatServer) -> None:
    model = OpenAIModel("m", base_url=server.base_url, api_key=KEY)
    await completions(model, question())
    assert server.open_connections == 2
    await model.aclose()
    for _ in range(200):
        if not server.open_connections:
            break
        await asyncio.sleep(0.01)
    assert server.open_connections == 0


def test_a_transport_of_ones_own_and_no_redirects() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return httpx.Response(307, headers={"location": "https://elsewhere.example/v1"})

    model = OpenAIModel("m", api_key=KEY, transport=httpx.MockTransport(answer))
    outcome = model.send(question(), 5.0)
    assert isinstance(outcome, Reply)
    assert (outcome.status, outcome.headers["location"]) == (307, "https://elsewhere.example/v1")
    assert [str(request.url) for request in seen] == ["https://api.openai.com/v1/chat/completions"]


def test_an_exception_that_is_no_outcome_is_raised() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise ZeroDivisionError("a mistake in the transport")

    model = OpenAIModel("m", api_key=KEY, transport=httpx.MockTransport(answer))
    with pytest.raises(ZeroDivisionError, match="a mistake"):
        model.send(question(), 5.0)


def test_certificates_are_checked() -> None:
    folder = Path(__file__).parent / "certificates"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "localhost.pem", folder / "localhost.key")
    with ChatServer(Chat(brain=brain), tls=context) as server:
        base = server.base_url
        outcome = OpenAIModel("m", base_url=base).send(question(), 5.0)
        assert isinstance(outcome, Lost)
        assert (outcome.why, outcome.permanent) == ("connect", True)
        trusted = OpenAIModel(
            "m", base_url=base.replace("127.0.0.1", "localhost"), verify=str(folder / "localhost.pem")
        )
        assert isinstance(trusted.send(question(), 5.0).data, Completion)  # type: ignore[union-attr]  # a reply
