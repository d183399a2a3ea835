"""Refusals as servers word them: which feature they are about, or that they are about something else."""

from __future__ import annotations

import json
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from refusal_wordings import REFUSALS, openai, vllm
from uprank.scorers.http.messages import Reply, Unreadable
from uprank.scorers.llm.chat import ChatRequest, Feature, Features, Message, Schema
from uprank.scorers.llm.unsupported import is_filtered, unsupported_feature

ALL: tuple[Feature, ...] = get_args(Feature)
SHAPE = Schema("ranking", "d", {"type": "object", "properties": {}, "required": [], "additionalProperties": False})
EVERYTHING = ChatRequest(
    (Message("system", "rules"), Message("user", "question")), 64, schema=SHAPE, tool=SHAPE, top_logprobs=5, seed=1
)


def said_about(status: int, body: object, *believed: Feature) -> set[str]:
    return set(unsupported_feature(Reply(status, {}, body), EVERYTHING, Features(*(believed or ALL))))


@pytest.mark.parametrize(("status", "body", "expected"), [case[1:] for case in REFUSALS], ids=[c[0] for c in REFUSALS])
def test_a_refusal_names_the_feature(status: int, body: object, expected: set[str]) -> None:
    assert said_about(status, body) == expected


@pytest.mark.no_cover
@pytest.mark.parametrize(("status", "body", "expected"), [case[1:] for case in REFUSALS], ids=[c[0] for c in REFUSALS])
def test_only_what_was_used_is_dropped(status: int, body: object, expected: set[str]) -> None:
    others = tuple(name for name in ALL if name not in expected)
    assert said_about(status, body, *others) == set()
    plain = ChatRequest((Message("user", "question"),), 64)  # asks for a temperature and a limit only
    found = unsupported_feature(Reply(status, {}, body), plain, Features(*ALL))
    assert found == expected & {"temperature", "max_tokens"}


OTHERWISE: list[tuple[str, int, object]] = [
    (
        "context",
        400,
        openai(
            "This model's maximum context length is 8192 tokens. However, you requested 9000 tokens (8000 in the "
            "messages, 1000 in max_tokens). Please reduce the length of the messages.",
            "messages",
            "context_length_exceeded",
        ),
    ),
    (
        "vllm-context",
        400,
        vllm("'max_tokens' or 'max_completion_tokens' is too large: 9000. This model's maximum context length is 8192"),
    ),
    (
        "limit-too-large",
        400,
        openai("max_tokens is too large: 90000. This model supports at most 16384 completion tokens.", "max_tokens"),
    ),
    ("limit-of-zero", 400, openai("max_tokens must be at least 1, got 0.", "max_tokens", "invalid_value")),
    (
        "model",
        404,
        openai("The model `tools-model` does not exist or you do not have access to it.", None, "model_not_found"),
    ),
    ("ollama-model", 404, openai('model "llama9" not found, try pulling it first')),
    ("openrouter-any", 404, {"error": {"message": "No endpoints found that can handle the requested parameters."}}),
    ("a-message-not-its-role", 400, openai("Invalid message.", "messages[1].content")),
    ("another-parameter", 400, openai("Unsupported parameter: 'logit_bias'", "logit_bias", "unsupported_parameter")),
    (
        "names-alike",
        400,
        openai(
            "Unsupported parameter: 'toolset' and 'seed_data' are not supported", "toolset", "unsupported_parameter"
        ),
    ),
    (
        "second-sentence",
        400,
        openai("The request was refused. Billing for seed and temperature is explained in the manual."),
    ),
    (
        "optional-system",
        400,
        vllm("After the optional system message, conversation roles must alternate user/assistant/..."),
    ),
    ("status-401", 401, openai("Unsupported parameter: 'seed'", "seed", "unsupported_parameter")),
    ("status-429", 429, openai("tools are not supported at this rate")),
    ("status-200", 200, openai("tools are not supported")),
    ("page", 400, Unreadable("<html><body><h1>400 Bad Request</h1></body></html>")),
    ("nothing", 400, None),
    ("number", 400, 7),
    ("empty", 400, {}),
    ("odd", 400, {"error": {"message": ["x"], "param": 3, "metadata": {"raw": "{"}}, "detail": [1, {"loc": "x"}]}),
]


@pytest.mark.parametrize(("status", "body"), [case[1:] for case in OTHERWISE], ids=[case[0] for case in OTHERWISE])
def test_other_refusals_name_none(status: int, body: object) -> None:
    assert said_about(status, body) == set()


AZURE = {
    "error": {
        "message": "The response was filtered due to the prompt triggering Azure OpenAI's content management policy.",
        "param": "prompt",
        "code": "content_filter",
        "status": 400,
        "innererror": {"code": "ResponsibleAIPolicyViolation"},
    }
}
FILTERS: list[tuple[str, int, object]] = [
    ("azure", 400, AZURE),
    ("azure-inner", 400, {"error": {"message": "?", "innererror": {"code": "ResponsibleAIPolicyViolation"}}}),
    ("openai", 400, openai("Your request was rejected.", code="content_policy_violation")),
    (
        "openrouter",
        403,
        {"error": {"message": 'x requires moderation. Your input was flagged for "violence"', "code": 403}},
    ),
    (
        "openrouter-azure",
        400,
        {"error": {"message": "Provider returned error", "metadata": {"raw": json.dumps(AZURE)}}},
    ),
    ("deepseek", 400, openai("Content Exists Risk")),
    ("alibaba", 400, {"code": "DataInspectionFailed", "message": "Input data may contain inappropriate content."}),
    ("moonshot", 400, openai("The request was rejected because it was considered high risk", code="content_filter")),
]


@pytest.mark.parametrize(("status", "body"), [case[1:] for case in FILTERS], ids=[case[0] for case in FILTERS])
def test_a_filter_of_contents_is_told_and_is_no_feature(status: int, body: object) -> None:
    assert is_filtered(Reply(status, {}, body))
    assert said_about(status, body) == set()


@pytest.mark.no_cover
@pytest.mark.parametrize(
    ("status", "body"),
    [case[1:3] for case in REFUSALS] + [case[1:] for case in OTHERWISE],
    ids=[case[0] for case in [*REFUSALS, *OTHERWISE]],
)
def test_other_refusals_are_no_filter(status: int, body: object) -> None:
    assert not is_filtered(Reply(status, {}, body))


def test_a_success_that_speaks_of_a_filter_is_none() -> None:
    assert not is_filtered(Reply(200, {}, AZURE))


WORDS = st.sampled_from(
    [
        "error",
        "message",
        "param",
        "code",
        "detail",
        "loc",
        "metadata",
        "raw",
        "innererror",
        "seed",
        "not supported",
        "{",
    ]
)
BODIES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | WORDS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.no_cover
@settings(max_examples=150, deadline=None)
@given(body=BODIES, status=st.sampled_from([400, 404, 422, 500]))
def test_no_body_of_any_shape_is_too_much(body: object, status: int) -> None:
    assert said_about(status, body) <= set(ALL)
    is_filtered(Reply(status, {}, body))
