"""What meets users every day: gateways with headers, certificates, proxies, free tiers, servers in trouble."""

from __future__ import annotations

import json
import logging
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cohere
import pytest

from rerank_servers import edited, refused_port, serve, status
from uprank import Reranker, ScorerError
from uprank.errors import (
    BadReplyError,
    ConfigurationError,
    ConnectionFailedError,
    DeadlineExceededError,
    RequestRefusedError,
    RequestTooLargeError,
    ServerError,
)
from uprank.scorers import CohereScorer
from uprank.scorers.http.providers import PROVIDERS, Provider
from uprank.testing import MockTransport

TEXTS = ["Whales swim.", "Paris is the capital of France."]
CERTIFICATE = Path(__file__).parent / "certificates" / "localhost.pem"


@pytest.fixture
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.01)
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_MINUTE", 0.01)


# Keys and gateways


def test_a_header_of_the_callers_own_wins_over_the_environments_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "from-the-environment")
    with serve("vllm") as server:
        headers = {"authorization": "Basic abc"}
        with Reranker("vllm:m", base_url=server.base_url, headers=headers) as reranker:
            reranker.rank("q", TEXTS)
        assert server.requests[0].headers["authorization"] == "Basic abc"
    with pytest.raises(ConfigurationError, match="give one"):
        Reranker("vllm:m", headers=headers, api_key="key-1234")
    with pytest.raises(ConfigurationError, match="dialect="):
        Reranker("cohere:m", headers=headers, base_url="http://localhost:1")


def test_where_no_key_was_sent_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("JINA_API_KEY", raising=False)
    with serve("jina", key="right") as server:
        with pytest.raises(ScorerError, match=r"HTTP 401, no key was sent: .*JINA_API_KEY"):
            Reranker("jina:m", base_url=server.base_url).rank("q", TEXTS)
        with pytest.raises(ScorerError, match="HTTP 401, the key was refused"):
            Reranker("jina:m", base_url=server.base_url, api_key="wrong").rank("q", TEXTS)


# Certificates and addresses


@pytest.mark.parametrize("scheme", ["jina:m", "cohere:m"])
async def test_a_server_with_a_certificate_of_its_own(scheme: str) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(CERTIFICATE, CERTIFICATE.with_suffix(".key"))
    own = ssl.create_default_context(cafile=str(CERTIFICATE))
    with serve(scheme.partition(":")[0], key="key-1234", tls=context) as server:
        options = {"base_url": server.base_url.replace("http://", "https://"), "api_key": "key-1234"}
        for verify in (str(CERTIFICATE), CERTIFICATE, own, False):
            async with Reranker(scheme, verify=verify, **options) as reranker:
                assert [hit.index for hit in reranker.rank("capital of France?", TEXTS)] == [1, 0]
                assert [hit.index for hit in await reranker.arank("capital of France?", TEXTS)] == [1, 0]
        with pytest.raises(ConnectionFailedError, match="pass verify=, a file of certificates"):
            Reranker(scheme, **options).rank("q", TEXTS)


def test_a_file_that_holds_no_certificate_is_refused_when_the_reranker_is_made() -> None:
    with pytest.raises(ConfigurationError, match="is no file of certificates"):
        Reranker("tei", verify=str(CERTIFICATE.with_suffix(".key")))


@pytest.mark.parametrize("scheme", ["jina:m", "cohere:m"])
async def test_a_proxy_of_the_environment_is_used(scheme: str, monkeypatch: pytest.MonkeyPatch) -> None:
    with serve(scheme.partition(":")[0], key="key-1234") as server:  # it answers what is meant for others, too
        monkeypatch.setenv("HTTP_PROXY", server.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        async with Reranker(scheme, base_url="http://rerank.example", api_key="key-1234") as reranker:
            assert reranker.rank("capital of France?", TEXTS)[0].index == 1
            assert (await reranker.arank("capital of France?", TEXTS))[0].index == 1
        assert len(server.posts) == 2
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{refused_port()}")
        with pytest.raises(ConnectionFailedError, match="the proxy, if proxy= or the environment names one"):
            Reranker(scheme, base_url="http://rerank.example", max_retries=0, api_key="key-1234").rank("q", TEXTS)


def test_the_full_address_of_a_route_is_used_as_it_is() -> None:
    service = MockTransport()
    Reranker("http:m", base_url="http://h/api/rerank/", transport=service).rank("q", TEXTS)
    assert service.requests[0].url == "http://h/api/rerank/"
    assert service.requests[0].headers["user-agent"].startswith("uprank/")


def test_a_redirect_is_named_in_full() -> None:
    with serve("vllm") as server:
        server.fail_always(status(301, headers={"location": "/elsewhere"}))
        with pytest.raises(RequestRefusedError, match=f"it redirects to {server.url}/elsewhere"):
            Reranker("vllm:m", base_url=server.base_url).rank("q", TEXTS)


# Servers in trouble

PASSING = [
    "Too many open files",
    "sorry, too many clients already",
    "max number of threads reached",
    "upstream timed out: exceeded 30 s",
    "KV cache exceeded",
    "Exceeded maximum number of retries while processing batch",
]


@pytest.mark.parametrize("said", PASSING)
def test_a_500_that_may_pass_is_tried_again_and_never_split(said: str, short_waits: None) -> None:
    with serve("vllm") as server:
        server.fail_always(status(500, message=said))
        with pytest.raises(ServerError, match="after 2 retries"):
            Reranker("vllm:m", base_url=server.base_url, max_retries=2).rank("q", [f"text {n}" for n in range(64)])
        assert [len(request.texts) for request in server.posts] == [64] * 3


def test_a_500_for_a_text_that_is_too_long_is_not_tried_again() -> None:
    with serve("llama-cpp") as server:
        said = "input (1234 tokens) is too large to process. increase the physical batch size"
        server.fail_always(status(500, message=said))
        with pytest.raises(RequestTooLargeError):
            Reranker("llama-cpp", base_url=server.base_url).rank("q", TEXTS)
        assert len(server.posts) == 1


def test_a_model_that_cannot_be_loaded_is_not_asked_again() -> None:
    with serve("sie") as server:
        body = {"detail": {"code": "MODEL_LOAD_FAILED", "message": "no such weights"}}
        server.fail_always(status(502, body=json.dumps(body).encode()))
        with pytest.raises(ServerError, match="no such weights"):
            Reranker("sie:m", base_url=server.base_url).rank("q", TEXTS)
        assert len(server.posts) == 1


def test_an_error_with_the_status_of_a_success_is_told() -> None:
    with serve("openrouter", key="key-1234") as server:
        server.fail_always(
            edited(lambda reply: {"error": {"message": "Rate limit exceeded: free models", "code": 429}})
        )
        with pytest.raises(BadReplyError, match="it says: Rate limit exceeded: free models"):
            Reranker("openrouter:m", base_url=server.base_url, api_key="key-1234").rank("q", TEXTS)


def test_retries_are_logged(short_waits: None, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="uprank"):
        Reranker("tei:m", transport=MockTransport(fail=["refused", 503]), max_retries=2).rank("q", TEXTS)
    told = [record.getMessage() for record in caplog.records if "trying again in" in record.getMessage()]
    assert len(told) == 2
    assert "no connection" in told[0]
    assert "HTTP 503" in told[1]


@contextmanager
def stalling(after: float) -> Iterator[str]:
    """A server that sends its headers late, one byte of the body, and nothing more."""
    stop = threading.Event()

    def answer(connection: socket.socket) -> None:
        with connection:
            connection.recv(65536)
            stop.wait(after)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
            stop.wait(5)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve_some() -> None:
            while not stop.is_set():
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=answer, args=(connection,), daemon=True).start()

        threading.Thread(target=serve_some, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            stop.set()


@pytest.mark.no_cover
@pytest.mark.parametrize("asynchronous", [False, True])
async def test_a_reply_that_stalls_after_late_headers_ends_with_the_timeout(asynchronous: bool) -> None:
    with stalling(after=0.4) as url:
        reranker = Reranker("vllm:m", base_url=url, timeout=0.5, max_retries=0)
        began = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            await reranker.arank("q", TEXTS) if asynchronous else reranker.rank("q", TEXTS)
        assert time.monotonic() - began < 0.75  # half as much again as the timeout, on a busy machine
        await reranker.aclose()


def test_a_free_tier_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """Voyage's allows three requests a minute and says nothing of when to come back. Here its minute is a second."""
    monkeypatch.setattr("uprank.scorers.http.scorer._PER_MINUTE", 0.5)
    with serve("voyage", key="key-1234", free_requests=3, window=1.0) as server:
        reranker = Reranker("voyage:rerank-2.5", base_url=server.base_url, api_key="key-1234", max_retries=8)
        rankings = [reranker.rank(f"query {number}", TEXTS) for number in range(5)]
        reranker.close()
    assert sum(ranking.usage.retries for ranking in rankings) >= 1
    assert all(len(ranking) == 2 for ranking in rankings)


# What is counted, and what is known


def test_what_a_check_used_is_counted_too() -> None:
    with serve("jina", key="key-1234") as server:
        options = {"base_url": server.base_url, "api_key": "key-1234", "price": {"tokens": 2}}
        checked = Reranker("jina:m", check=True, **options).rank("q", TEXTS).usage
        plain = Reranker("jina:m", **options).rank("q", TEXTS).usage
    assert checked.tokens > plain.tokens > 0
    assert (checked.cost, plain.cost) == (2 * checked.tokens, 2 * plain.tokens)


@pytest.mark.parametrize(
    "name",
    [
        "http:jina-reranker-v3",
        "sie:jinaai/jina-reranker-v3",
        "openrouter:jina/jina-reranker-v3.5",
        "xinference:jina-reranker-v3",
    ],
)
def test_a_listwise_model_is_one_whoever_serves_it(name: str) -> None:
    options = {
        "api_key": "key-1234",
        "base_url": "http://localhost:1/v1/rerank",
        "transport": MockTransport(fail=[413]),
    }
    reranker = Reranker(name, **options)
    assert (reranker.scorer.listwise, reranker.scorer.score_kind) == (True, "cosine")
    with pytest.raises(RequestTooLargeError):
        reranker.rank("q", ["a", "b", "c"])


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"key_variables": "ACME_API_KEY"}, "key_variables must be a tuple"),
        ({"max_documents": 0}, "max_documents must be at least 1"),
        ({"score_kind": "prob"}, "score_kind must be one of"),
        ({"path": "v1/rerank"}, "path must be empty or begin with a slash"),
    ],
)
def test_a_row_of_the_callers_own_is_checked(changes: dict[str, object], says: str) -> None:
    row = {"scheme": "acme", "title": "Acme", "dialect": "jina", "base_url": None, "path": "/v1/rerank"}
    assert Provider(**row).score_kind == "rank"  # what is not known is not assumed
    with pytest.raises(ConfigurationError, match=says):
        Provider(**{**row, **changes})
    assert all(provider.scheme == scheme for scheme, provider in PROVIDERS.items())


def test_a_name_with_space_around_it_is_the_name() -> None:
    service = MockTransport()
    ranking = Reranker("jina: m ", api_key="key-1234", transport=service).rank("q", TEXTS)
    assert service.requests[0].body["model"] == "m"
    assert ranking.model == "jina: m "


# Mistakes with a client of one's own are told as such, not as a reply of the service.


class WithoutOptions:
    def rerank(self, *, model: str, query: str, documents: list[str]) -> object:
        raise AssertionError("never called like that")


async def test_a_client_that_cannot_be_called_is_no_bad_reply() -> None:
    with pytest.raises(ScorerError, match="request_options") as caught:
        Reranker(CohereScorer("m", client=WithoutOptions())).rank("q", TEXTS)
    assert not isinstance(caught.value, BadReplyError)
    with pytest.raises(ConfigurationError, match="async_client must be an AsyncClientV2"):
        CohereScorer("m", async_client=cohere.ClientV2("key-1234"))
    with pytest.raises(ConfigurationError, match="has a method rerank; got a str"):
        CohereScorer("m", client="key-1234")


@pytest.mark.parametrize(
    "options",
    [{"price": 0.002}, {"headers": [("a", "b")]}, {"transport": object()}, {"verify": 5}, {"verify": None}],
)
def test_options_of_the_wrong_kind_are_refused_when_the_reranker_is_made(options: dict[str, object]) -> None:
    for name in ("tei:m", "cohere:m"):
        with pytest.raises(ConfigurationError, match=next(iter(options))):
            Reranker(name, **{"api_key": "key-1234", **options})


@pytest.mark.parametrize("failure", ["nope", 200, 99])
def test_a_mock_transport_refuses_failures_that_are_none(failure: object) -> None:
    with pytest.raises(ValueError, match="fail takes"):
        MockTransport(fail=[failure])
