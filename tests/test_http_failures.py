"""What each service's error becomes: its type, its message, its request id, and whether another attempt may help."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rerank_servers import serve, status
from rerank_servers.client import QUERY, TEXTS
from uprank import Reranker
from uprank.errors import (
    ConnectionFailedError,
    DeadlineExceededError,
    RateLimitError,
    RequestTooLargeError,
    ServerError,
    ServiceError,
)
from uprank.scorers.http.failures import Asked, bad_reply, is_retryable, lost_error, message_of, reply_error, splittable
from uprank.scorers.http.messages import Call, Lost, Reply, decode

KEY = "sk-planted-5f2c9a"
SENT = Call("http://127.0.0.1:9/v1/rerank", {"query": "q", "documents": ["a", "b", "é"]})
ASKED = Asked("jina", "jina:m", SENT, 3, "Pass api_key=.", (KEY,))


def reply(code: int, body: object, headers: Mapping[str, str] | None = None) -> Reply:
    """A reply as it comes off the wire: text and bytes as they are, anything else as JSON."""
    content = body if isinstance(body, bytes) else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    return Reply(code, headers or {}, decode(content))


@dataclass(frozen=True)
class Case:
    """An error as a service documents it, and what becomes of it.

    Attributes:
        status: The status code.
        body: JSON, or a text that is sent as it is.
        becomes: The name of the error's class.
        says: What its message holds.
        request_id: The service's number for the request.
        headers: Of the reply.
        splittable: Whether fewer documents at once may do.
    """

    status: int
    body: object
    becomes: str
    says: str
    request_id: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    splittable: bool = False


RECORDED = json.loads((Path(__file__).parent / "recorded" / "errors.json").read_text())
CASES = {name: Case(**recorded) for name, recorded in RECORDED.items()}
RETRYABLE = {202, 408, 409, 425, 429, 500, 502, 503, 504, 524}


@pytest.mark.parametrize("name", CASES)
def test_each_documented_error_becomes_its_type_and_keeps_its_message_and_id(name: str) -> None:
    case = CASES[name]
    error = reply_error(reply(case.status, case.body, case.headers), ASKED)
    assert type(error).__name__ == case.becomes
    assert case.says in str(error)
    assert str(error).startswith(f"jina:m (http://127.0.0.1:9/v1/rerank): HTTP {case.status}, ")
    assert (error.provider, error.model, error.status, error.request_id) == (
        "jina",
        "jina:m",
        case.status,
        case.request_id,
    )
    assert case.request_id is None or f"[request id {case.request_id}]" in str(error)
    assert splittable(error) is case.splittable
    assert KEY not in str(error)  # FastAPI repeats the input


@pytest.mark.parametrize("name", CASES)
def test_an_error_survives_pickling_whole(name: str) -> None:
    error = reply_error(reply(CASES[name].status, CASES[name].body), ASKED, retry_after=2.0)
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), str(again), vars(again)) == (type(error), str(error), vars(error))


@pytest.mark.parametrize("code", [*range(400, 432), 451, 498, 499, *range(500, 512), 520, 524, 529, 202, 301, 304])
def test_only_statuses_that_may_pass_are_tried_again(code: int) -> None:
    assert is_retryable(reply(code, {"message": "no"})) is (code in RETRYABLE)


@pytest.mark.parametrize("name", ["llama-cpp-old"])
def test_an_input_that_is_too_large_is_not_tried_again_whatever_the_status(name: str) -> None:
    assert not is_retryable(reply(CASES[name].status, CASES[name].body))


@pytest.mark.parametrize(
    "said",
    [
        "context deadline exceeded",
        "rpc error: code = DeadlineExceeded",
        "DEADLINE_EXCEEDED",
        "Timeout exceeded while awaiting headers",
        "Time limit exceeded",
        "max retries exceeded",
        "rate limit exceeded",
        "quota exceeded",
    ],
)
def test_what_is_exceeded_need_not_be_a_size(said: str) -> None:
    """A server that timed out may answer the next time; it has not said that the request is too large."""
    failed = reply(500, {"error": {"message": said}})
    assert is_retryable(failed)
    assert type(reply_error(failed, ASKED)) is ServerError


@pytest.mark.parametrize("code", [401, 402, 403, 429, 500, 503])
def test_a_long_message_is_cut(code: int) -> None:
    for body in (
        "x" * 100_000,
        {"message": "y" * 100_000},
        [["z" * 100_000]],
        {"detail": [{"msg": "m" * 100_000}] * 9},
    ):
        text = str(reply_error(reply(code, body), ASKED))
        assert 500 < len(text) < 1000


def test_a_long_message_is_cut_where_it_is_kept_too() -> None:
    error = reply_error(reply(413, {"message": "y" * 100_000}), ASKED)
    assert isinstance(error, RequestTooLargeError)
    assert len(error.allowed or "") == 500


@pytest.mark.parametrize(
    "body",
    [
        {"message": f"the key {KEY} is wrong"},
        {"detail": {"message": f"Bearer {KEY}"}},
        f"<html><body>{KEY}</body></html>",
        {"message": "x" * 490 + KEY},
        {"id": KEY, "message": "no"},
        {"unknown": {"headers": {"authorization": f"Bearer {KEY}"}}},
    ],
    ids=["message", "nested", "html", "where-it-is-cut", "id", "unknown-shape"],
)
@pytest.mark.parametrize("code", [401, 404, 413, 429, 500])
def test_a_key_that_the_service_repeats_is_not_shown(code: int, body: object) -> None:
    error = reply_error(reply(code, body), ASKED)
    shown = f"{error} {error!r} {vars(error)}"
    assert KEY not in shown
    assert KEY[:8] not in shown


def test_a_key_in_a_success_that_cannot_be_used_is_not_shown() -> None:
    error = bad_reply(reply(200, {"id": KEY, "oops": 1}), ASKED, f"the body is no JSON: '{KEY}'")
    assert KEY not in f"{error} {vars(error)}"
    assert "**********" in str(error)


def test_html_becomes_its_text() -> None:
    page = CASES["cloudflare-524"].body
    assert isinstance(page, str)
    assert "<script>" in page
    assert message_of(decode(page.encode())) == "api.jina.ai | 524: A timeout occurred A timeout occurred Ray ID: 8f1"


def test_bytes_that_are_no_text_are_shown_as_far_as_they_are() -> None:
    assert "\ufffd\ufffd no" in str(reply_error(reply(500, b"\xff\xfe no"), ASKED))


def test_a_rate_limit_says_how_long_to_wait() -> None:
    asked = reply_error(reply(429, {"message": "slow down"}), ASKED, retry_after=1.5, tried="after 3 retries")
    assert isinstance(asked, RateLimitError)
    assert asked.retry_after == 1.5
    assert "after 3 retries" in str(asked)
    assert "It asks to wait 1.5 s." in str(asked)
    silent = reply_error(reply(429, {"message": "slow down"}), ASKED)
    assert isinstance(silent, RateLimitError)
    assert silent.retry_after is None
    assert "asks to wait" not in str(silent)


def test_too_large_says_what_was_sent_and_what_is_allowed() -> None:
    error = reply_error(reply(*_of("tei-batch")), ASKED)
    assert isinstance(error, RequestTooLargeError)
    assert error.sent == "3 documents, 40 bytes"
    assert error.allowed == "batch size 64 > maximum allowed batch size 32"
    assert "Sent were 3 documents, 40 bytes." in str(error)


def _of(name: str) -> tuple[int, object]:
    return CASES[name].status, CASES[name].body


def test_a_wrong_key_says_what_to_do() -> None:
    assert str(reply_error(reply(401, b""), ASKED)).endswith("Pass api_key=.")


@pytest.mark.parametrize(
    ("headers", "number"),
    [
        ({"x-request-id": "a", "cf-ray": "b"}, "a"),
        ({"request-id": "c"}, "c"),
        ({"x-debug-trace-id": "d"}, "d"),
        ({"x-request-id": ""}, None),
        ({}, None),
    ],
)
def test_the_request_id_may_come_in_a_header(headers: dict[str, str], number: str | None) -> None:
    assert reply_error(reply(500, {"id": 7, "message": "no"}, headers), ASKED).request_id == number


@pytest.mark.parametrize(
    ("lost", "kind", "says"),
    [
        (
            Lost("connect", "ConnectError: refused"),
            ConnectionFailedError,
            "no connection: ConnectError: refused. Is the",
        ),
        (Lost("broken", "ReadError"), ConnectionFailedError, "the connection broke: ReadError."),
        (
            Lost("timeout", "no whole reply within 1 s"),
            DeadlineExceededError,
            "no reply in time: no whole reply within 1 s",
        ),
        (Lost("queue", "all places were taken"), DeadlineExceededError, "no place in time: all places were taken."),
        (Lost("turn", "none left"), DeadlineExceededError, "no turn in time: none left. Raise deadline or requests"),
        (Lost("connect", "certificate verify failed"), ConnectionFailedError, "pass verify="),
    ],
    ids=lambda value: value.why if isinstance(value, Lost) else "",
)
def test_a_lost_reply_says_how_it_was_lost(lost: Lost, kind: type[ServiceError], says: str) -> None:
    error = lost_error(lost, ASKED, tried="after 1 retry")
    assert type(error) is kind
    assert says in str(error).replace(" after 1 retry", "")
    assert " after 1 retry: " in str(error)
    assert (error.provider, error.model, error.status) == ("jina", "jina:m", None)


def test_a_timeout_is_a_timeout_error_and_too_large_is_splittable_only_by_its_own_word() -> None:
    assert isinstance(lost_error(Lost("timeout", "x"), ASKED), TimeoutError)
    assert not splittable(ServerError("batch of documents"))
    assert not splittable(RequestTooLargeError("batch of documents"))  # nobody said so


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=12)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["message", "detail", "error", "errors", "code", "id", "loc", "msg", "field", "x"]), inner
        ),
    ),
    max_leaves=12,
)


@pytest.mark.no_cover
@given(body=st.one_of(JSON, st.binary(max_size=40)), code=st.integers(201, 599))
def test_any_body_becomes_an_error_with_a_message(body: object, code: int) -> None:
    error = reply_error(reply(code, body), ASKED)
    assert isinstance(error, ServiceError)
    assert f"HTTP {code}, " in str(error)
    assert len(str(error)) < 3000
    assert isinstance(is_retryable(reply(code, body)), bool)


@pytest.mark.parametrize("depth", [900, 970, 980, 985, 990, 995, 998])
def test_a_deeply_nested_error_is_still_one(depth: int) -> None:
    nest = b"[" * depth + b"]" * depth
    for body in (nest, b'{"x":' + nest + b"}", b'{"detail":[' + nest + b"]}", b'{"message":"no","x":' + nest + b"}"):
        assert isinstance(reply_error(reply(500, body), ASKED), ServerError)


# Over a socket


async def test_llama_cpps_500_for_a_text_that_is_too_long_is_sent_once() -> None:
    """Neither tried again nor halved: fewer documents do not make the long one shorter."""
    texts = [*TEXTS, "long " * 100]
    with serve("llama-cpp", old=True, n_ctx=60) as server:
        reranker = Reranker("llama-cpp", base_url=server.base_url)
        with pytest.raises(RequestTooLargeError, match="physical batch size") as plain:
            reranker.rank(QUERY, texts)
        with pytest.raises(RequestTooLargeError) as awaited:
            await reranker.arank(QUERY, texts)
        await reranker.aclose()
        assert len(server.posts) == 2
    assert str(plain.value) == str(awaited.value)
    assert plain.value.status == 500


async def test_a_query_longer_than_infinity_takes_is_sent_once() -> None:
    with serve("infinity") as server:
        reranker = Reranker("infinity:m", base_url=server.base_url)
        with pytest.raises(RequestTooLargeError, match=r"body\.query") as plain:
            reranker.rank("q" * 122_881, TEXTS)
        with pytest.raises(RequestTooLargeError) as awaited:
            await reranker.arank("q" * 122_881, TEXTS)
        await reranker.aclose()
        assert len(server.posts) == 2
    assert str(plain.value) == str(awaited.value)


def test_a_gateways_page_is_read_as_text_and_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uprank.scorers.http.retries._FIRST_WAIT", 0.01)
    with serve("jina", key="k") as server:
        server.fail(0, status(524))
        with Reranker("jina:m", base_url=server.base_url, api_key="k", max_retries=1) as reranker:
            assert reranker.rank(QUERY, TEXTS).usage.retries == 1
            server.fail_always(status(524))
            with pytest.raises(ServerError, match="HTTP 524, the service failed after 1 retry: 524 524 gateway"):
                reranker.rank(QUERY, TEXTS)
        assert len(server.posts) == 4
