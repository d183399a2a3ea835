"""Small cases of the LLM scorer that once went wrong."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from faulty_chat import FaultyChat, at_place, order_of, ranked, says, shuffled, status, texts_of, told
from uprank import BadReplyError, ConfigurationError, Reranker, ScoreKindError, ServerError
from uprank.scorers import LLMScorer
from uprank.scorers.http.messages import Reply
from uprank.scorers.llm import Budget, Completion
from uprank.testing import AskedQuestion, MockChatModel


def relevance(query: str, text: str) -> float:
    return 0.9 if "yes" in text else 0.1


@pytest.mark.parametrize("texts", [["yes"], ["yes", "yes"]])
@pytest.mark.parametrize("options", [{}, {"isolate": True}])
def test_a_single_document_is_scored_too(texts: list[str], options: dict[str, bool]) -> None:
    model = MockChatModel(relevance)
    ranking = Reranker(LLMScorer(model, method="pointwise", **options), threshold=0.5).rank("q", texts)
    assert [hit.score for hit in ranking] == pytest.approx([0.9] * len(texts))
    assert len(model.questions) == 1


def test_a_threshold_does_not_empty_a_ranking_whose_scores_failed() -> None:
    model = FaultyChat(shuffled(6), status(500), lambda sent: sent.asked.kind == "grade")
    for options in ({"max_retries": 0}, {"budget": Budget(max_calls=1)}):
        ranking = Reranker(LLMScorer(model, scores=True, **options), threshold=0.5).rank("q", texts_of(6))
        assert order_of(ranking) == shuffled(6)
        assert ranking.degraded
        assert {hit.score for hit in ranking} == {None}


def test_one_refusal_is_asked_around() -> None:
    """It refused the whole and no part of it: the parts are asked."""
    model = FaultyChat(shuffled(8), says("", finish="refusal"), at_place(0))
    ranking = ranked(model, 8, strategy="window")
    assert order_of(ranking)[0] == shuffled(8)[0]
    assert ranking.degraded
    assert "but for parts of it" in told(ranking)


THOUGHTS = 1000  # tokens


@pytest.mark.parametrize("text", ["", "<think>hmm hmm"])
def test_a_model_that_thinks_is_given_room_for_it(text: str) -> None:
    model = FaultyChat(shuffled(30), says(text, finish="length"), lambda sent: sent.request.max_tokens < THOUGHTS)
    ranking = ranked(model, 30, strategy="sliding", window=10)
    assert order_of(ranking)[:5] == shuffled(30)[:5]
    assert not ranking.degraded
    assert [sent.request.max_tokens >= THOUGHTS for sent in model.sent] == [False] + [True] * 5


def test_one_that_thinks_for_ever_is_told_of_the_option() -> None:
    with pytest.raises(BadReplyError, match="thinking="):
        ranked(FaultyChat(shuffled(6), says("", finish="length")), 6, strategy="window")


def test_what_a_model_said_instead_is_shown() -> None:
    with pytest.raises(BadReplyError, match="They all speak of whales"):
        ranked(FaultyChat(shuffled(6), says("They all speak of whales.")), 6, strategy="window")


@pytest.mark.parametrize("options", [{"strategy": "all-pairs", "method": "pairwise"}, {"method": "pointwise"}])
def test_a_model_that_is_gone_is_not_asked_by_the_whole_round(options: dict[str, str]) -> None:
    model = FaultyChat(shuffled(60), status(500))
    with pytest.raises(ServerError):
        ranked(model, 60, max_retries=0, max_concurrency=4, batch=1, **options)
    assert len(model.sent) <= 30


def test_strict_stops_the_round_at_the_first_failure() -> None:
    model = FaultyChat(shuffled(60), status(500), at_place(3))
    with pytest.raises(ServerError):
        ranked(model, 60, method="pointwise", batch=1, max_retries=0, max_concurrency=2, strict=True)
    assert len(model.sent) <= 8


def test_a_long_prompt_is_found_out_once() -> None:
    """What one window was told holds for the next ones too."""
    limit = 900

    def too_long(sent) -> Reply:  # type: ignore[no-untyped-def]  # a fault's
        said = f"This model's maximum context length is {limit} tokens, however you requested {len(sent.prompt) // 4}."
        return Reply(400, {}, {"error": {"message": said}})

    model = FaultyChat(shuffled(40), too_long, lambda sent: len(sent.prompt) // 4 > limit)
    texts = [f"{text} {'deep sea ' * 100}" for text in texts_of(40)]
    ranking = Reranker(LLMScorer(model, strategy="sliding", window=10)).rank("how do whales sleep?", texts)
    assert order_of(ranking)[:5] == shuffled(40)[:5]
    assert len(model.struck) <= 2


@pytest.mark.parametrize("method", ["listwise", "setwise", "pairwise", "pointwise"])
def test_fast_looks_at_the_first_window_alone(method: str) -> None:
    model = MockChatModel(lambda query, text: int(text) / 100)
    texts = [str(number) for number in range(40)]
    ranking = Reranker(LLMScorer(model, method=method, quality="fast", window=5, grades=9)).rank("q", texts)
    assert {text for question in model.questions for text in question.texts} == set(texts[:5])
    assert [hit.index for hit in ranking][5:] == list(range(5, 40))


def test_a_decreasing_calibrator_is_refused_for_reported_scores_too() -> None:
    scorer = LLMScorer(MockChatModel(relevance), scores=True)
    reranker = Reranker(scorer, score="probability", calibrator=lambda score: 1.0 - score)
    with pytest.raises(ScoreKindError, match="decreases"):
        reranker.rank("q", ["no", "yes", "maybe"])


def test_an_answer_cut_off_before_its_half_is_flagged() -> None:
    class Cut(FaultyChat):
        def answer(self, question: AskedQuestion) -> Completion:
            whole = super().answer(question)
            return replace(whole, text=whole.text.partition(" > ")[0], finish="length")

    ranking = ranked(Cut(shuffled(8)), 8, strategy="window")
    assert order_of(ranking)[0] == shuffled(8)[0]
    assert ranking.degraded


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ({"quality": "high", "method": "pairwise"}, "nothing to repeat"),
        ({"shuffles": 3, "method": "pointwise"}, "nothing to repeat"),
        ({"top": 30, "window": 10}, "raise window"),
        ({"temperature": "hot"}, "temperature"),
        ({"temperature": -1}, "temperature"),
        ({"count_tokens": 3}, "count_tokens"),
        ({"strict": "no"}, "strict"),
        ({"examples": ["x"]}, "Example"),
        ({"prompt": 3}, "prompt must be"),
        ({"answers": "logprobs", "window": 30}, "20 documents"),
        ({"answers": "json", "prompt": "rank-zephyr"}, "asks for"),
    ],
)
def test_options_that_cannot_be_meant_are_refused_when_it_is_made(options: dict[str, object], what: str) -> None:
    with pytest.raises(ConfigurationError, match=what):
        LLMScorer(MockChatModel(relevance), **options)  # type: ignore[arg-type]  # as meant


@pytest.mark.parametrize("documents", ["abc", True, None, 1.5, -1, {"text": "a"}])
def test_a_plan_is_for_documents(documents: object) -> None:
    with pytest.raises(ValueError, match="documents"):
        LLMScorer(MockChatModel(relevance)).plan(documents)  # type: ignore[arg-type]  # as meant


def test_a_plan_takes_what_a_ranking_takes_and_counts_copies_once() -> None:
    scorer = LLMScorer(MockChatModel(relevance), method="pointwise", batch=1)
    assert scorer.plan(["a", {"text": "b"}, "a"]).documents == 2
    assert math.isclose(scorer.plan(3).calls.typical, 3)
