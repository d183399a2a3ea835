"""The mock chat model: it reads our real prompts, answers in the form asked for, and refuses what is not ours."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Sequence

import pytest

from uprank import Reranker
from uprank.scorers import LLMScorer
from uprank.scorers.http.messages import Reply
from uprank.scorers.llm import Example, Prompt
from uprank.scorers.llm.chat import ChatCall, ChatModel, ChatRequest, Completion, Message
from uprank.scorers.llm.prompts import Passage, schema_for
from uprank.testing import MockChatModel

PROMPTS = {"order": "listwise", "select": "setwise", "compare": "pairwise", "score": "pointwise"}
KINDS = {"order": "order", "select": "choose", "compare": "choose", "score": "grade"}
FORMS = ("text", "json", "tool", "logprobs")
QUERY = "what is\n\nthe [x1y] answer?"
TEXTS = ("a small value of .2", "the great one of .9\n\nin two paragraphs", "between of .6", "nothing of .0")
VALUES = (0.2, 0.9, 0.6, 0.0)
NAMES = ("Q7X", "K2M", "Z9P", "W4T")


def relevance(query: str, text: str) -> float:
    assert query == QUERY
    return VALUES[TEXTS.index(text)]


def request_of(
    kind: str, form: str, size: int, *, count: int = 1, top: int = 1, names: Sequence[str] = NAMES, **options: object
) -> ChatRequest:
    """What a scorer would ask by the shipped prompt of this kind, about the first ``size`` texts."""
    prompt = Prompt.load(PROMPTS[kind])
    passages = [Passage(name, text) for name, text in zip(names[:size], TEXTS, strict=False)]
    messages = prompt.render(query=QUERY, passages=passages, form=form, count=count, top=top, **options)
    schema = schema_for(kind, form, count, top) if form in ("json", "tool") else None
    return ChatRequest(
        messages,
        max_tokens=100,
        schema=schema if form == "json" else None,
        tool=schema if form == "tool" else None,
        top_logprobs=20 if form == "logprobs" else 0,
    )


def answered(request: ChatRequest) -> tuple[MockChatModel, Completion]:
    model = MockChatModel(relevance)
    reply = model.send(ChatCall("nowhere", {}, request), 1.0)
    assert isinstance(reply, Reply)
    assert (reply.status, reply.headers) == (200, {})
    completion = reply.data
    assert isinstance(completion, Completion)
    assert completion.finish == "stop"
    return model, completion


# ---------------------------------------------------------------- what it reads


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("kind", PROMPTS)
def test_it_reads_what_each_shipped_prompt_asks(kind: str, form: str):
    size = {"compare": 2, "score": 1 if form == "logprobs" else 4}.get(kind, 4)
    request = request_of(kind, form, size, count=2 if (kind, form) == ("select", "text") else 1, top=3)
    model, _ = answered(request)
    (question,) = model.questions
    assert question.kind == KINDS[kind]
    assert question.query == QUERY
    assert question.labels == NAMES[:size]
    assert question.texts == TEXTS[:size]
    assert question.count == (2 if (kind, form) == ("select", "text") else 1)
    if kind == "score":
        assert question.top == 3
    assert question.request is request


@pytest.mark.parametrize("kind", PROMPTS)
def test_an_instruction_and_examples_do_not_confuse_it(kind: str):
    example = Example("another query", ("one text", "another text"), answer=(1, 0), grades=(0, 1))
    size = 2 if kind == "compare" else 3
    request = request_of(kind, "text", size, top=2, instruction="only what is .5 or more", examples=[example])
    assert len(request.messages) > 2
    model, _ = answered(request)
    assert (model.questions[0].query, model.questions[0].texts) == (QUERY, TEXTS[:size])


def test_a_passage_may_hold_what_looks_like_a_label_or_a_task():
    """What stands in a passage is text of that passage, for the mock too."""
    tricky = ["plain", "two lines\n[note] of which one begins with brackets", "to choose 2: take both", "Judge them"]
    model = MockChatModel(lambda query, text: tricky.index(text) / 4)
    ranking = Reranker(LLMScorer(model)).rank("which?", tricky)
    assert [hit.index for hit in ranking] == [3, 2, 1, 0]
    assert model.questions[0].texts == tuple(tricky)


def test_of_two_passages_it_chooses_one_whatever_they_say():
    tricky = ["choose 2: both", "or from 0 (not relevant) to 7"]
    model = MockChatModel(lambda query, text: tricky.index(text) / 2)
    ranking = Reranker(LLMScorer(model, method="pairwise")).rank("which?", tricky)
    assert [hit.index for hit in ranking] == [1, 0]
    assert [question.count for question in model.questions] == [1, 1]


@pytest.mark.parametrize(
    "text",
    [
        "Which of these is the best? [1] one [2] two",
        "<passages-1234>\n[abc] one\n</passages-4321>",  # of two codes
        "",
    ],
)
def test_it_refuses_what_is_not_ours(text: str):
    model = MockChatModel(relevance)
    with pytest.raises(ValueError, match="not one of uprank's own"):
        model.reply(ChatRequest((Message("user", text),), max_tokens=10))
    assert model.questions == []


@pytest.mark.parametrize("name", sorted(set(Prompt.names()) - set(PROMPTS.values())))
def test_it_refuses_the_prompts_of_tuned_models_and_reads_our_other_one(name: str):
    """They have no fence, and what answers them is another model; only those in a fence can be read."""
    prompt = Prompt.load(name)
    size = 1 if prompt.kind == "score" else 2
    passages = [Passage(label, text) for label, text in zip(("1", "2"), TEXTS[:size], strict=False)]
    messages = prompt.render(query="q", passages=passages, form=prompt.forms[0], top=1)
    model = MockChatModel(lambda query, text: 0.5)
    request = ChatRequest(messages, max_tokens=10)
    if prompt.fenced:
        model.reply(request)
        assert model.questions[0].texts == TEXTS[:size]
    else:
        with pytest.raises(ValueError, match="fenced"):
            model.reply(request)


# ---------------------------------------------------------------- what it answers


def test_orders():
    assert answered(request_of("order", "text", 4))[1].text == "[K2M] > [Z9P] > [Q7X] > [W4T]"
    for form in ("json", "tool"):
        found = json.loads(answered(request_of("order", form, 4))[1].text)
        assert found == {"ranking": ["K2M", "Z9P", "Q7X", "W4T"]}


def test_choices():
    assert answered(request_of("select", "text", 4))[1].text == "[K2M]"
    assert answered(request_of("select", "text", 4, count=2))[1].text == "[K2M] > [Z9P]"
    assert answered(request_of("compare", "text", 2))[1].text == "[K2M]"
    for form in ("json", "tool"):
        assert json.loads(answered(request_of("select", form, 4, count=3))[1].text) == {"best": ["K2M", "Z9P", "Q7X"]}
        assert json.loads(answered(request_of("compare", form, 2))[1].text) == {"best": ["K2M"]}


def test_grades():
    assert answered(request_of("score", "text", 4, top=5))[1].text == "Q7X: 1\nK2M: 4\nZ9P: 3\nW4T: 0"
    assert answered(request_of("score", "text", 1, top=5))[1].text == "1"
    assert answered(request_of("score", "text", 1, top=1))[1].text == "No"
    for form in ("json", "tool"):
        found = json.loads(answered(request_of("score", form, 2, top=5))[1].text)
        assert found == {"grades": [{"passage": "Q7X", "grade": 1}, {"passage": "K2M", "grade": 4}]}


def test_log_probabilities():
    """Of labels in the order of relevance, of yes and no and of grades with the relevance as their mean."""
    letters = ("C", "A", "D", "B")
    chosen = answered(request_of("order", "logprobs", 4, names=letters))[1]
    (found,) = chosen.logprobs
    assert sorted(found, key=lambda label: -found[label]) == ["A", "D", "C", "B"]
    assert chosen.text == "A"
    assert sum(map(math.exp, found.values())) == pytest.approx(1.0)
    (yes_no,) = answered(request_of("score", "logprobs", 1, top=1))[1].logprobs
    assert {token: math.exp(value) for token, value in yes_no.items()} == pytest.approx({"Yes": 0.2, "No": 0.8})
    (grades,) = answered(request_of("score", "logprobs", 1, top=9))[1].logprobs
    assert sum(int(token) * math.exp(value) for token, value in grades.items()) == pytest.approx(9 * 0.2)


def test_no_more_alternatives_than_asked_for():
    request = request_of("order", "logprobs", 4, names=("C", "A", "D", "B"))
    few = ChatRequest(request.messages, max_tokens=10, top_logprobs=2)
    (found,) = answered(few)[1].logprobs
    assert sorted(found) == ["A", "D"]


def test_it_says_what_it_used():
    _, completion = answered(request_of("order", "text", 4))
    assert completion.input_tokens is not None
    assert completion.output_tokens is not None
    assert completion.input_tokens > 300
    assert completion.output_tokens == len(completion.text) // 3


# ---------------------------------------------------------------- as a model


def test_it_is_a_chat_model():
    model = MockChatModel(relevance, name="llm:imitation", context_window=4096)
    assert isinstance(model, ChatModel)
    ranking = Reranker(LLMScorer(MockChatModel(lambda q, t: 0.5, name="llm:imitation"))).rank("q", ["a", "b"])
    assert ranking.model == "llm:imitation"
    assert (model.context_window, model.secrets()) == (4096, ())
    model.close()


async def test_async_is_the_same():
    request = request_of("order", "json", 4)
    model = MockChatModel(relevance)
    reply = await model.asend(ChatCall("nowhere", {}, request), 1.0)
    assert isinstance(reply, Reply)
    assert reply.data == answered(request)[1]
    await model.aclose()


def test_what_it_takes_is_what_it_is_asked_for():
    for features, expected in ((("json_schema",), (True, False)), (("tools",), (False, True)), ((), (False, False))):
        model = MockChatModel(lambda query, text: 0.5, features=features)
        Reranker(LLMScorer(model)).rank("q", ["a", "b"])
        request = model.questions[0].request
        assert (request.schema is not None, request.tool is not None) == expected


def test_it_counts_every_question_of_many_threads():
    model = MockChatModel(relevance)
    request = request_of("order", "text", 4)
    threads = [
        threading.Thread(target=lambda: [model.reply(request) for _ in range(20)], daemon=True) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert len(model.questions) == 160


def test_reply_and_answer_may_be_overridden():
    class Contrary(MockChatModel):
        def reply(self, request: ChatRequest) -> Completion:
            best_first = super().reply(request).text.split(" > ")
            return Completion(" > ".join(best_first[::-1]))

    model = Contrary(lambda query, text: len(text) / 10, features=())
    assert [hit.index for hit in Reranker(LLMScorer(model)).rank("q", ["aaa", "a", "aa"])] == [1, 2, 0]
