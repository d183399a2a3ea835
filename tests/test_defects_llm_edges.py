"""Edge cases of published LLM rerankers that skip or lose documents without a word, each shown to be absent here."""

from __future__ import annotations

import json

import pytest

from chat_brains import Saying, by_number, chain, indices, numbered, ranked, reading
from chat_server import serve_chat
from uprank import Reranker
from uprank.errors import BadReplyError
from uprank.scorers import LLMScorer
from uprank.scorers.llm import Completion
from uprank.testing import AskedQuestion, MockChatModel

THREE = ["a passage about boats", "a passage about bread", "a passage about bees"]


@pytest.mark.parametrize("count", [1, 2, 5, 10, 15, 19, 20, 21, 25, 29, 30, 35, 45, 95, 100])
def test_the_head_is_ranked_for_every_number_of_documents(count: int) -> None:
    """A window moved by 10 from the back never reached the head for most counts; below 20, or at 10, none was asked."""
    model = MockChatModel(by_number)
    scorer = LLMScorer(model, strategy="sliding")
    ranking = Reranker(scorer).rank("which?", numbered(count))
    assert indices(ranking)[:10] == list(range(count))[::-1][:10]
    calls = 0 if count < 2 else 1 + -(-max(0, count - 20) // 10)
    assert len(model.questions) == calls
    assert scorer.plan(count).calls.exact
    assert scorer.plan(count).calls.least == calls, "what is told before is what is done"


def test_by_default_the_prompt_holds_every_document() -> None:
    """A default range of no passages sent a prompt without any, paid for, and the first order came back."""
    model = MockChatModel(by_number)
    Reranker(LLMScorer(model)).rank("which?", numbered(7))
    (question,) = model.questions
    assert question.texts == tuple(numbered(7))
    Reranker(LLMScorer(model)).rank("which?", ["only one"])
    assert len(model.questions) == 1, "nothing to order is not paid for"


def test_top_down_looks_at_every_document() -> None:
    """Partitioning stopped once it had enough candidates: of a reversed list the best were never looked at."""
    model = MockChatModel(by_number)
    ranking = Reranker(LLMScorer(model, strategy="top-down")).rank("which?", numbered(100))
    assert {text for question in model.questions for text in question.texts} == set(numbered(100))
    assert indices(ranking)[:10] == list(range(99, 89, -1))


@pytest.mark.parametrize("prompt", [None, "rankgpt", "rank-zephyr", "rank-vicuna", "reasoning"])
def test_documents_are_never_in_the_system_role(prompt: str | None) -> None:
    """Documents were put into the system message, where what they say is an instruction."""
    seen: list[list[dict[str, str]]] = []

    def say(messages: list[dict[str, str]]) -> str:
        seen.append(messages)
        return "[3] > [1] > [2]"

    scorer = LLMScorer(say, prompt=prompt)
    Reranker(scorer, on_error="passthrough").rank("where do boats swim?", THREE)
    for messages in seen:
        system = "".join(each["content"] for each in messages if each["role"] == "system")
        assert not any(text in system for text in [*THREE, "where do boats swim?"])
        others = "".join(each["content"] for each in messages if each["role"] != "system")
        assert all(text in others for text in THREE)
    assert seen


@pytest.mark.parametrize(
    "wrap",
    [
        "```json\n{}\n```",
        "Here you are:\n\n```\n{}\n```\nI hope this helps!",
        "<think>Which? {{not JSON}}</think>\n{}",
    ],
)
def test_an_answer_in_a_fence_counts(wrap: str) -> None:
    """Of JSON in a Markdown fence nothing was used, and all documents came back as they were."""
    ranking = ranked(
        lambda question: wrap.replace("{}", json.dumps({"ranking": list(question.labels[::-1])})),
        THREE,
        features=("json_schema", "system"),
    )
    assert indices(ranking) == [2, 1, 0]


def test_of_an_answer_that_was_cut_off_what_is_there_counts() -> None:
    """Truncated JSON was thrown away as a whole; top_n was forgotten then, and ids given twice came back twice."""

    def say(question: AskedQuestion) -> Completion:
        best = question.labels[::-1]
        return Completion(json.dumps({"ranking": [best[0], best[0], *best[1:]]})[:-30], finish="length")

    model = Saying(say, features=("json_schema", "system"))
    ranking = Reranker(LLMScorer(model), top_n=5).rank("which?", numbered(12))
    assert indices(ranking) == [11, 10, 9, 8, 7]
    whole = Reranker(LLMScorer(model)).rank("which?", numbered(12))
    assert sorted(indices(whole)) == list(range(12))


def test_a_choice_that_cannot_be_read_is_said() -> None:
    """An answer that could not be read silently meant the first label, so the earlier document won."""
    with pytest.raises(BadReplyError):
        ranked(lambda question: "Hard to say.", numbered(6), method="setwise")

    def sometimes(question: AskedQuestion) -> str:
        best = max(zip(question.texts, question.labels, strict=True))
        return "Hard to say." if "passage 3" in question.texts else f"[{best[1]}]"

    ranking = ranked(sometimes, numbered(9), method="pairwise")
    assert sorted(indices(ranking)) == list(range(9))
    assert ranking.degraded
    assert any("no usable reply" in warning for warning in ranking.warnings)


def test_one_bad_answer_does_not_fail_the_query() -> None:
    """With strict reading, one malformed answer of nine failed the query after all had been paid for."""
    said: list[str] = []

    def say(question: AskedQuestion) -> str:
        best = [label for _, label in sorted(zip(map(len, question.texts), question.labels, strict=True))][::-1]
        said.append("I am not sure." if len(said) == 3 else chain(best))
        return said[-1]

    texts = ["x" * (number + 1) for number in range(60)]
    ranking = ranked(say, texts, strategy="sliding")
    assert len(said) == 6, "one more than the five of the plan"
    assert indices(ranking)[:10] == list(range(59, 49, -1))
    assert not ranking.degraded
    assert any("asked again (1)" in warning for warning in ranking.warnings)


@pytest.mark.parametrize("count", [2, 5])
def test_a_document_that_a_filter_refuses_takes_no_grade_from_the_others(count: int) -> None:
    """A filter's refusal of one document became the answer about all that were shown with it."""

    def say(question: AskedQuestion) -> Completion:
        if "passage 0" in question.texts:
            return Completion("", finish="filter")
        return Completion("\n".join(f"{label}: 3" for label in question.labels))

    ranking = ranked(say, numbered(count), method="pointwise", batch=count)
    assert {hit.index: hit.score for hit in ranking} == {0: None, **dict.fromkeys(range(1, count), 1.0)}
    assert ranking.degraded
    assert any("would not look at the document 'passage 0'" in warning for warning in ranking.warnings)


def test_a_long_document_is_cut_and_told_of() -> None:
    """One long document failed the query; elsewhere the end of the list was cut off without a word."""
    model = MockChatModel(lambda query, text: 1.0 if text.startswith("long") else 0.0, context_window=4000)
    ranking = Reranker(LLMScorer(model)).rank("which?", ["short one", "long " + "word " * 20_000, "short two"])
    assert indices(ranking)[0] == 1
    assert model.questions[0].texts[::2] == ("short one", "short two")
    assert len(model.questions[0].texts[1]) < 20_000
    assert any("1 of 3 documents were cut" in warning for warning in ranking.warnings)


@pytest.mark.parametrize("method", ["listwise", "setwise", "pairwise", "pointwise"])
@pytest.mark.parametrize("answers", ["text", "json", "tool", "logprobs"])
def test_no_answer_is_limited_to_one_token(method: str, answers: str) -> None:
    """Limits of one token are refused by newer services, whose least is 16."""
    model = MockChatModel(by_number)
    Reranker(LLMScorer(model, method=method, answers=answers)).rank("which?", numbered(4))
    assert min(question.request.max_tokens for question in model.questions) >= 16


async def test_documents_graded_one_by_one_are_asked_about_at_once() -> None:
    """One call after another for each document took a hundred times as long as it had to."""
    with serve_chat(reading(by_number), delay=0.5) as server:
        async with Reranker("llm:m", base_url=server.base_url, api_key="k", method="pointwise") as reranker:
            ranking = await reranker.arank("which?", numbered(12))
        assert indices(ranking) == list(range(11, -1, -1))
        assert server.most_at_once > 6  # all twelve, but on a busy machine
