"""Services behind the server: what of their failures clients and the log are told, and what is kept from both."""

from __future__ import annotations

import httpx
import pytest

from refused_requests import DOCUMENT, KEY, QUERY, TroubledScorer, everything_logged, unseen
from serving import serving
from uprank import Reranker
from uprank.testing import MockTransport

BODY = {"query": QUERY, "documents": [DOCUMENT, f"{DOCUMENT} too"]}


def behind(fail: object, **options: object) -> Reranker:
    """A reranker over a hosted service, whose key is planted."""
    transport = MockTransport(fail=[fail] * 9)  # type: ignore[list-item]  # one of its failures
    options = {"max_retries": 0, "api_key": KEY, **options}
    return Reranker("jina:jina-reranker-v2-base-multilingual", transport=transport, **options)  # type: ignore[arg-type]  # as they are


def quoting(status: int, **headers: str) -> httpx.Response:
    told = f"customer {KEY} sent {DOCUMENT!r} for {QUERY!r}"
    return httpx.Response(status, json={"detail": told}, headers=headers)


@pytest.mark.parametrize(
    ("fail", "status", "code"),
    [
        (quoting(401), 502, "upstream_error"),
        (quoting(402), 502, "upstream_error"),
        (quoting(403), 502, "upstream_error"),
        (quoting(404), 502, "upstream_error"),
        (quoting(422), 502, "upstream_error"),
        (quoting(413), 422, "request_too_large"),
        (quoting(429, **{"retry-after": "7"}), 429, "rate_limited"),
        (quoting(500), 502, "upstream_error"),
        (httpx.Response(200, json={"results": [{"index": DOCUMENT, "relevance_score": QUERY}]}), 502, "upstream_error"),
        (httpx.Response(200, text=f"<html>{DOCUMENT}"), 502, "upstream_error"),
        ("timeout", 504, "deadline_exceeded"),
        ("refused", 502, "upstream_error"),
    ],
)
def test_what_a_service_behind_the_server_says_is_kept_there(fail, status, code):
    with serving({"table": behind(fail)}) as address, everything_logged() as said:
        reply = httpx.post(f"{address}/v1/rerank", json=BODY)
        metrics = httpx.get(f"{address}/metrics")
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, code), reply.text
    assert reply.headers.get("retry-after") == ("7" if status == 429 else None)
    assert "customer" not in reply.text
    assert code in str(said)
    assert "Error" in str(said)  # its kind, for who runs the server
    unseen(reply, metrics, said)


def test_who_answered_instead_of_whom_is_told_without_the_reasons_words():
    """They may be another client's: a model is left alone for a while because of its last error."""
    reranker = behind(quoting(500), fallback=["bm25"])
    with serving({"table": reranker}) as address, everything_logged() as said:
        replies = [httpx.post(f"{address}/v1/rerank", json=BODY) for _ in range(6)]
    for reply in replies:
        assert reply.status_code == 200
        (told,) = reply.json()["meta"]["warnings"]
        assert told.startswith("bm25 answered; jina:jina-reranker-v2-base-multilingual did not (")
        unseen(told)
    assert "(ServerError)" in replies[0].json()["meta"]["warnings"][0]
    assert "(CircuitOpen)" in replies[-1].json()["meta"]["warnings"][0]
    assert "is not asked for" in str(said)
    assert "uprank: None" not in str(said)
    unseen(said)


def test_if_no_model_answers_the_kinds_of_their_errors_are_told():
    for fails, status in (((quoting(500), quoting(401)), 502), ((quoting(429), quoting(429)), 429)):
        first, second = (behind(fail).scorer for fail in fails)
        with serving({"table": Reranker(first, fallback=[second])}) as address, everything_logged() as said:
            reply = httpx.post(f"{address}/v1/rerank", json=BODY)
        assert reply.status_code == status
        assert ("retry-after" in reply.headers) == (status == 429)
        assert ("AuthenticationError, ServerError" in reply.text) == (status == 502)
        unseen(reply, said)


def test_attempts_are_told_in_the_log_without_what_the_service_said():
    with (
        serving({"table": behind(quoting(503), max_retries=1, deadline=5)}) as address,
        everything_logged() as said,
    ):
        assert httpx.post(f"{address}/v1/rerank", json=BODY).status_code == 502
    assert "ServerError; trying again in" in str(said)
    unseen(said)


def test_when_the_server_has_ended_the_library_says_as_much_as_before(caplog):
    caplog.set_level("INFO", "uprank")
    with serving({"table": Reranker(TroubledScorer())}):
        pass
    behind(quoting(500), fallback=["bm25"]).rank("words", ["some words", "none"])
    assert "customer" in caplog.text
