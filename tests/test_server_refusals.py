"""How errors become refusals, how a body's mistakes are told, and how limits are counted."""

from __future__ import annotations

import math
from typing import Literal

import httpx
import pytest
from pydantic import BaseModel, Field, ValidationError

from refused_requests import DOCUMENT, QUERY, everything_logged, unseen
from serving import serving
from table_scorer import TableScorer
from uprank import Document, Reranker
from uprank.errors import (
    AllModelsFailedError,
    CanaryError,
    ConfigurationError,
    ContentRefusedError,
    DeadlineExceededError,
    InvalidScoresError,
    MissingDependencyError,
    ModelLoadError,
    OverloadedError,
    QueryTooLongError,
    QueryTooLongForAllError,
    RateLimitError,
    RequestTooLargeError,
    ScorerError,
)
from uprank.scorers.evidence import Attempt
from uprank.server import Limits
from uprank.server.dialects.mistakes import mistakes_in
from uprank.server.dialects.rerank import RerankBody
from uprank.server.failures import trace_of
from uprank.server.limits import check_limits
from uprank.server.questions import Question
from uprank.server.refusals import Refusal, refusal_of
from uprank.tokens import estimate_tokens

QUOTED = f"{QUERY} and {DOCUMENT}"


def none_answered(*kinds: str, cause: Exception | None = None) -> AllModelsFailedError:
    error = AllModelsFailedError(QUOTED, tuple(Attempt("m", QUOTED, kind, 0.1) for kind in kinds))
    error.__cause__ = cause
    return error


ERRORS: dict[str, tuple[Exception, int, str, int | None]] = {
    "overloaded": (OverloadedError(QUOTED), 429, "overloaded", 1),
    "rate": (RateLimitError(QUOTED, retry_after=2.2), 429, "rate_limited", 3),
    "rate without a hint": (RateLimitError(QUOTED), 429, "rate_limited", 1),
    "deadline": (DeadlineExceededError(QUOTED), 504, "deadline_exceeded", None),
    "too large": (RequestTooLargeError(QUOTED, sent="7 documents"), 422, "request_too_large", None),
    "refused": (ContentRefusedError(QUOTED), 422, "content_refused", None),
    "canary": (CanaryError(QUOTED), 502, "upstream_error", None),
    "loading": (ModelLoadError("no such file weights.bin"), 503, "model_unavailable", 5),
    "settings": (ConfigurationError("device='cuda' is not there"), 500, "misconfigured", None),
    "package": (MissingDependencyError("It", "local", ("torch",)), 500, "misconfigured", None),
    "scores": (InvalidScoresError(QUOTED), 500, "internal_error", None),
    "scorer": (ScorerError(QUOTED), 500, "internal_error", None),
    "all busy": (none_answered("RateLimitError", "OverloadedError"), 429, "rate_limited", 1),
    "all late": (none_answered("DeadlineExceededError"), 504, "deadline_exceeded", None),
    "all": (none_answered("RateLimitError", "ServerError"), 502, "upstream_error", None),
    "query": (QueryTooLongError("The query has 90 tokens."), 422, "query_too_long", None),
    "query for all": (QueryTooLongForAllError("None takes 90 tokens."), 422, "query_too_long", None),
}


@pytest.fixture(scope="module")
def client():
    fails = {query: error for query, (error, *_) in ERRORS.items()}
    reranker = Reranker(TableScorer("table", {"a": 0.5}, fails=fails))
    with serving({"table": reranker}) as address, httpx.Client(base_url=address) as client:
        yield client


@pytest.mark.parametrize("query", ERRORS)
def test_each_error_of_a_reranker_has_its_status_and_its_words_stay_here(client, query):
    error, status, code, retry_after = ERRORS[query]
    with everything_logged() as log:
        reply = client.post("/rerank", json={"query": query, "documents": ["a"]})
    assert (reply.status_code, reply.json()["error"]["type"]) == (status, code)
    assert reply.headers.get("retry-after") == (None if retry_after is None else str(retry_after))
    assert type(error).__name__ in str(log)
    unseen(reply.json()["message"], log)
    if code in ("misconfigured", "model_unavailable"):  # for whoever runs the server, and for nobody else
        assert str(error) in str(log)
        assert str(error) not in reply.text


def test_the_longest_wait_of_several_models_is_the_last_ones():
    refusal = refusal_of(none_answered("RateLimitError", cause=RateLimitError("", retry_after=41)))
    assert (refusal.status, refusal.retry_after) == (429, 41)


def test_a_timeout_that_is_not_uprank_s_own_is_one():
    assert refusal_of(TimeoutError(QUOTED)).status == 504


@pytest.mark.parametrize(
    ("given", "told"),
    [(None, None), (0, 1), (-3, 1), (0.2, 1), (1.0, 1), (1.01, 2), (math.inf, 86_400), (math.nan, 1)],
)
def test_what_retry_after_says_is_a_whole_number_that_clients_take(given, told):
    assert Refusal(429, "overloaded", "", retry_after=given).retry_after == told


def test_a_trace_tells_the_causes_and_ends_though_they_go_in_a_circle():
    def fail() -> None:
        raise KeyError(QUOTED)

    def fail_thereby() -> None:
        try:
            fail()
        except KeyError as error:
            raise ValueError(QUOTED) from error

    with pytest.raises(ValueError, match=DOCUMENT) as caught:
        fail_thereby()
    told = trace_of(caught.value)
    assert caught.value.__cause__ is not None
    caught.value.__cause__.__cause__ = caught.value
    again = trace_of(caught.value)
    assert told.index("in fail") < told.index("KeyError\nwhich led to\n") < told.index("ValueError")
    assert again.count("which led to") == 1
    unseen(told)


class Inner(BaseModel):
    name: str
    size: int = 1


class Outer(BaseModel):
    text: str
    count: int | None = Field(default=None, ge=1)
    items: list[str | dict[str, object]] = []
    inner: Inner | None = None
    either: Inner | list[float] | None = None
    mode: Literal["fast", "exact"] = "fast"
    flags: dict[str, bool] = {}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({}, "text is missing."),
        ({"text": 1}, "text must be a string."),
        ({"text": "", "items": ["a", 3, None]}, "items[1] must be a string or an object; items[2] must be a string or"),
        ({"text": "", "items": {}}, "items must be a list."),
        ({"text": "", "count": "many"}, "count must be a whole number."),
        ({"text": "", "count": 1.5}, "count must be a whole number."),
        ({"text": "", "count": 0}, "count: it must be 1 or more."),
        ({"text": "", "inner": {"size": []}}, "inner.size must be a whole number; inner.name is missing."),
        ({"text": "", "inner": 3}, "inner must be an object."),
        ({"text": "", "either": "planted"}, "either must be an object or a list."),
        ({"text": "", "either": ["planted"]}, "either must be an object; either[0] must be a number."),
        ({"text": "", "mode": "planted"}, "mode: it must be 'fast' or 'exact'."),
        ({"text": "", "flags": {"Planted document!": 3}}, "flags must be true or false."),
        ({"text": "", "flags": {"planted" * 20: 3}}, "flags must be true or false."),
    ],
)
def test_a_bodys_mistakes_are_told_by_place_and_kind(given, told):
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate(given)
    found = mistakes_in(caught.value)
    assert found.startswith(f"The request cannot be used. {told}")
    unseen(found)


def test_a_negative_number_of_results_is_refused_as_what_it_is_while_0_means_all():
    body = {"query": "q", "documents": ["a"]}
    assert RerankBody.model_validate({**body, "top_n": 0}).top_n is None
    with pytest.raises(ValidationError) as caught:
        RerankBody.model_validate({**body, "top_n": -1})
    assert mistakes_in(caught.value) == "The request cannot be used. top_n: it must be 0 or more."


def test_of_many_mistakes_the_first_are_told_and_the_rest_are_counted():
    with pytest.raises(ValidationError) as caught:
        Outer.model_validate({"text": "", "items": [1] * 1_000})
    told = mistakes_in(caught.value)
    assert told.count("must be") == 5
    assert told.endswith("; and 995 more.")


def question(*documents: object, query: str = "q") -> Question:
    return Question([query], [documents])  # type: ignore[list-item]  # as tests give them


@pytest.mark.parametrize("wrap", [str, lambda text: {"text": text, "more": 1}, Document])
def test_a_document_is_measured_by_its_text_in_each_of_its_forms(wrap):
    limits = Limits(document_chars=5)
    check_limits(question(wrap("12345")), limits)
    with pytest.raises(Refusal, match=r"documents\[1\] has 6 characters; 5 are allowed"):
        check_limits(question(wrap("1"), wrap("123456")), limits)


def test_documents_of_several_queries_are_counted_together_and_numbered_on():
    several = Question(["q", "q"], [["a", "b"], ["c", "long"]])
    check_limits(several, Limits(documents=4))
    with pytest.raises(Refusal, match="4 documents are more than the 3"):
        check_limits(several, Limits(documents=3))
    with pytest.raises(Refusal, match=r"documents\[3\]"):
        check_limits(several, Limits(document_chars=3))


def test_tokens_are_those_of_each_document_and_of_the_query_and_the_instruction_with_each():
    texts = ["one two three", "four"]
    asked = Question(["five six"], [texts], instruction="seven")
    tokens = sum(map(estimate_tokens, texts)) + 2 * (estimate_tokens("five six") + estimate_tokens("seven"))
    check_limits(asked, Limits(batch_tokens=tokens))
    with pytest.raises(Refusal, match=f"more than the {tokens - 1} tokens"):
        check_limits(asked, Limits(batch_tokens=tokens - 1))


@pytest.mark.parametrize(
    "piece", [" ", "\n", "\t ", "a ", "abcde ", "ABCDE ", "\n ", "x\t", "é", "語", "🙂", " .", "9", "\x1f", "\ufeff"]
)
@pytest.mark.parametrize("limit", [1, 7, 100])
def test_a_long_text_has_too_many_tokens_in_the_part_of_it_that_is_counted(piece, limit):
    """Counting takes time, in which nobody else is answered: of a text much longer than allowed, a part is read."""
    with pytest.raises(Refusal, match="tokens"):
        check_limits(question(piece * 40 * (limit + 1)), Limits(batch_tokens=limit))
