"""What is done about a form of answer that a model does not take, and about a prompt that is too long for it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from dataclasses import replace

import pytest

from faulty_chat import (
    LOGPROBS,
    PLAIN,
    QUERY,
    Fault,
    FaultyChat,
    Sent,
    at_place,
    check_right,
    holding,
    order_of,
    rank_by,
    ranked,
    shown_in,
    shuffled,
    status,
    texts_of,
    told,
)
from uprank import Reranker
from uprank.errors import RequestRefusedError
from uprank.scorers import LLMScorer
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm import Budget, ChatCall, Completion
from uprank.testing import AskedQuestion
from uprank.tokens import estimate_tokens

WINDOW = {"strategy": "window", "window": 20}
GRADES = {"method": "pointwise", "grades": 9}
EVERYTHING = (*LOGPROBS, "json_schema", "tools", "seed", "temperature")
REFUSED_FORM = {
    "json": status(400, "response_format of type json_schema is not supported by this model"),
    "tool": status(400, "This model does not support tools."),
    "logprobs": status(400, "logprobs are not available for this model"),
}
Where = Callable[[Sent], bool]


def refusing_forms(*forms: str) -> tuple[Fault, Where]:
    return (lambda sent: REFUSED_FORM[sent.form](sent)), (lambda sent: sent.form in forms)


async def test_a_form_that_is_not_taken_is_left_and_remembered() -> None:
    truth = shuffled(30)
    fault, where = refusing_forms("json", "tool")
    model = FaultyChat(truth, fault, where, features=EVERYTHING)
    scorer = LLMScorer(model, strategy="sliding", window=10)
    ranking = Reranker(scorer).rank(QUERY, texts_of(30))
    assert [sent.form for sent in model.sent] == ["json", "tool", *["text"] * 5]
    assert order_of(ranking)[:5] == truth[:5]
    assert not ranking.degraded
    assert ranking.warnings == ()
    # Nor is it asked for in another ranking, whoever asks for it.
    for again in (LLMScorer(model, strategy="sliding", window=10), scorer):
        model.sent.clear()
        await Reranker(again).arank(QUERY, texts_of(30))
        assert [sent.form for sent in model.sent] == ["text"] * 5
    assert "seed" in model.features
    assert "temperature" in model.features
    assert "logprobs" in model.features


@pytest.mark.parametrize("forms", [("logprobs",), ("logprobs", "json"), ("logprobs", "json", "tool")])
def test_grades_without_probabilities_are_written(forms: tuple[str, ...]) -> None:
    fault, where = refusing_forms(*forms)
    model = FaultyChat(shuffled(6), fault, where, features=EVERYTHING)
    ranking = ranked(model, 6, max_concurrency=1, **GRADES)
    check_right(ranking, shuffled(6))
    assert ranking.score_kind == "probability"
    assert [sent.form for sent in model.sent[: len(forms)]] == list(forms)
    assert len({sent.form for sent in model.sent[len(forms) :]}) == 1
    assert len(model.sent) == 6 + len(forms)


def test_probabilities_that_are_left_out_without_a_word_are_not_missed() -> None:
    """Some servers take the parameter and ignore it."""

    class Silent(FaultyChat):
        def answer(self, question: AskedQuestion) -> Completion:
            return replace(super().answer(question), logprobs=())

    model = Silent(shuffled(6), features=LOGPROBS)
    check_right(ranked(model, 6, **{**GRADES, "answers": "auto"}), shuffled(6))
    assert "logprobs" not in model.features
    assert {sent.request.top_logprobs > 0 for sent in model.sent[-6:]} == {False}


class AllAtOnce(FaultyChat):
    """Answers nothing in JSON before so many were asked for it: all requests are on their way at once."""

    waiting: threading.Barrier
    arrived = 0

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        came = super().send(call, timeout)
        assert call.request is not None
        if call.request.schema is not None:
            self.waiting.wait(10)
        return came

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        came = await super().asend(call, timeout)
        assert call.request is not None
        if call.request.schema is not None:
            self.arrived += 1
            while self.arrived < 8:
                await asyncio.sleep(0.001)
        return came


@pytest.mark.parametrize("driver", ["rank", "arank"])
@pytest.mark.parametrize("said", [REFUSED_FORM["json"], status(400, "bad request")], ids=["named", "unnamed"])
async def test_eight_requests_at_once_learn_it_from_one_refusal_each(said: Fault, driver: str) -> None:
    model = AllAtOnce(
        shuffled(8), said, lambda sent: sent.form == "json", features=(*PLAIN, "json_schema", "seed", "temperature")
    )
    model.waiting = threading.Barrier(8)
    ranking = await rank_by(driver, model, 8, batch=1, **GRADES)
    check_right(ranking, shuffled(8))
    assert sorted(sent.form for sent in model.sent) == ["json"] * 8 + ["text"] * 8
    assert "temperature" in model.features


def test_a_refusal_that_names_nothing_is_laid_to_what_no_answer_has_confirmed() -> None:
    model = FaultyChat(shuffled(8), status(400, "bad request"), lambda sent: sent.form != "text", features=EVERYTHING)
    check_right(ranked(model, 8, **WINDOW), shuffled(8))
    assert [sent.form for sent in model.sent] == ["json", "tool", "text"]


def test_a_refusal_that_names_nothing_is_not_laid_to_what_has_been_confirmed() -> None:
    model = FaultyChat(shuffled(30), status(400, "bad request"), at_place(2), features=EVERYTHING)
    ranking = ranked(model, 30, strategy="sliding", window=10)
    assert {sent.form for sent in model.sent} == {"json"}
    assert "json_schema" in model.features
    assert ranking.degraded
    assert "HTTP 400" in told(ranking)
    with pytest.raises(RequestRefusedError, match="HTTP 400"):
        ranked(FaultyChat(shuffled(30), status(400, "bad request")), 30, strategy="sliding", window=10)


def test_a_document_that_is_refused_as_bad_input_costs_no_form() -> None:
    """What fails in every form is not about the form."""
    model = FaultyChat(shuffled(30), status(400, "bad request"), holding(29), features=EVERYTHING)
    ranking = ranked(model, 30, strategy="sliding", window=10)
    assert {"json_schema", "tools", "temperature"} <= set(EVERYTHING) & {
        one for one in EVERYTHING if one in model.features
    }
    assert sorted(order_of(ranking)) == list(range(30))
    assert ranking.degraded


async def test_another_call_s_discovery_does_not_make_one_forget_to_wait() -> None:
    """A 429 is not about the form, though another call has just found out that this is not taken."""

    class Crowded(FaultyChat):
        async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
            if shown_in(call) == (1,):
                await asyncio.sleep(0.01)
            return await super().asend(call, timeout)

    crowded, refused = status(429, retry_after="0.2"), REFUSED_FORM["json"]
    model = Crowded(
        shuffled(2),
        lambda sent: crowded(sent) if [one for one in model.sent if one.shown == (1,)] == [sent] else refused(sent),
        lambda sent: sent.form == "json",
        features=(*PLAIN, "json_schema"),
    )
    check_right(await rank_by("arank", model, 2, batch=1, **GRADES), shuffled(2))
    assert [sent.shown for sent in model.struck[:2]] == [(0,), (1,)]
    first, second, *_ = (sent.began for sent in model.sent if sent.shown == (1,))
    assert second - first >= 0.2


def test_a_form_that_is_not_taken_costs_no_call_of_the_budget() -> None:
    """Nothing was answered, and nothing is paid for it."""
    fault, where = refusing_forms("json", "tool")
    model = FaultyChat(shuffled(8), fault, where, features=EVERYTHING)
    check_right(ranked(model, 8, budget=Budget(max_calls=1), **WINDOW), shuffled(8))


# What is too long


def windowed(limit: int) -> tuple[Fault, Where]:
    """A server with so many tokens of context, that says so as OpenAI does."""

    def size(sent: Sent) -> int:
        return sum(estimate_tokens(message.content) + 4 for message in sent.request.messages)

    def fault(sent: Sent) -> Reply:
        said = f"This model's maximum context length is {limit} tokens. However, your messages resulted in {size(sent)}"
        return Reply(400, {}, {"error": {"message": f"{said} tokens.", "code": "context_length_exceeded"}})

    return fault, lambda sent: size(sent) > limit


def long_texts(count: int, words: int) -> list[str]:
    return [f"{text} {'deep sea ' * (words // 2)}" for text in texts_of(count)]


@pytest.mark.parametrize("context_window", [None, 200_000])
def test_documents_are_shortened_by_what_the_error_says(context_window: int | None) -> None:
    """From the size that was sent, not from the room that was believed to be there."""
    truth = shuffled(10)
    fault, where = windowed(1500)
    model = FaultyChat(truth, fault, where, context_window=context_window)
    ranking = Reranker(LLMScorer(model, **WINDOW)).rank(QUERY, long_texts(10, 200))
    check_right(ranking, truth)
    lengths = [len(sent.prompt) for sent in model.sent]
    assert lengths == sorted(set(lengths), reverse=True)  # never the same prompt twice
    assert len(model.sent) <= 3
    assert len(model.sent[-1].shown) == 10
    assert lengths[-1] > lengths[0] * 0.3  # nor shortened for nothing
    assert "shortened" in told(ranking)
    assert "10 of 10 documents were cut" in told(ranking)


def test_what_cannot_be_shortened_enough_is_split() -> None:
    truth = shuffled(12)
    model = FaultyChat(truth, status(413, "too large"), lambda sent: len(sent.shown) > 6)
    ranking = ranked(model, 12, **WINDOW)
    assert [len(sent.shown) for sent in model.sent if len(sent.shown) <= 6] == [6, 6, 6]
    assert len(model.sent) <= 4 + 3
    assert order_of(ranking)[0] == truth[0]
    assert sorted(order_of(ranking)) == list(range(12))
    assert not ranking.degraded
    assert "split, the prompt was too long (1)" in told(ranking)


def test_the_best_come_through_a_split_from_wherever_they_stood() -> None:
    for best in range(12):
        truth = [best, *(one for one in range(12) if one != best)]
        model = FaultyChat(truth, status(413, "too large"), lambda sent: len(sent.shown) > 6)
        assert order_of(ranked(model, 12, **WINDOW))[0] == best


def test_grades_are_split_too() -> None:
    truth = shuffled(9)
    model = FaultyChat(truth, status(413, "too large"), lambda sent: len(sent.shown) > 5)
    ranking = ranked(model, 9, batch=9, **GRADES)
    check_right(ranking, truth)
    assert [len(sent.shown) for sent in model.sent if len(sent.shown) < 9] == [5, 4]
    assert len(model.sent) <= 4 + 2


def test_half_the_grades_are_kept_if_the_other_half_fails() -> None:
    truth = shuffled(9)
    too_large = status(413, "too large")
    model = FaultyChat(
        truth,
        lambda sent: too_large(sent) if len(sent.shown) > 5 else status(500)(sent),
        lambda sent: len(sent.shown) > 5 or 8 in sent.shown,
    )
    ranking = ranked(model, 9, batch=9, max_retries=0, **GRADES)
    assert ranking.degraded
    assert "HTTP 500" in told(ranking)
    assert [hit.index for hit in ranking if hit.score is not None] == [one for one in truth if one < 5]


def test_a_grade_left_out_of_a_half_is_asked_for_or_flagged() -> None:
    too_large = status(413, "too large")

    def fault(sent: Sent) -> Reply | Lost | Completion:
        if len(sent.shown) > 5:
            return too_large(sent)
        pairs = zip(sent.asked.labels, sent.shown, strict=True)
        return Completion("\n".join(f"{label}: 5" for label, number in pairs if number != 3))

    model = FaultyChat(shuffled(9), fault, lambda sent: len(sent.shown) > 1)
    ranking = ranked(model, 9, batch=9, **GRADES)
    (found,) = [hit.score for hit in ranking if hit.index == 3]
    assert found is not None or ranking.degraded


@pytest.mark.parametrize("budget", [None, Budget(max_calls=10)])
def test_a_window_that_does_not_fit_the_context_is_split_before_it_is_sent(budget: Budget | None) -> None:
    model = FaultyChat(shuffled(20), context_window=900)
    ranking = ranked(model, 20, budget=budget, **WINDOW)
    assert not ranking.degraded
    assert {len(sent.shown) for sent in model.sent} == {10}
    assert order_of(ranking)[0] == shuffled(20)[0]


def test_documents_are_cut_to_the_context_by_tokens_and_that_is_said() -> None:
    """Never by words or characters: a page of Chinese has no spaces."""
    truth = shuffled(8)
    texts = texts_of(8)
    texts[3] += " " + "鲸鱼在深海中睡觉。" * 200
    texts[5] += " " + "deep " * 1500
    model = FaultyChat(truth, context_window=1600)
    ranking = Reranker(LLMScorer(model, **WINDOW)).rank(QUERY, texts)
    check_right(ranking, truth)
    (sent,) = model.sent
    spent = sum(estimate_tokens(message.content) for message in sent.request.messages) + sent.request.max_tokens
    assert 0.8 * 1600 < spent <= 1600
    cut = [number for number, text in zip(sent.shown, sent.asked.texts, strict=True) if text != texts[number]]
    assert cut == [3, 5]
    sizes = [estimate_tokens(sent.asked.texts[one]) for one in cut]
    assert abs(sizes[0] - sizes[1]) < 20  # none for the sake of the other
    assert "2 of 8 documents were cut" in told(ranking)
