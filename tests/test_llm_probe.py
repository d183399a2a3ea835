"""How steady a model's orders are: what the probe measures, and what it concludes."""

from __future__ import annotations

import random

import pytest

from uprank.errors import AuthenticationError, ConfigurationError, InvalidInputError, ServerError, ServiceError
from uprank.scorers import LLMScorer
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm.chat import ChatCall, Completion
from uprank.scorers.llm.probing import Observation, Probe
from uprank.testing import AskedQuestion, MockChatModel

QUERIES = [f"query {number}?" for number in range(8)]
TEXTS = [[f"passage {number} of list {each}" for number in range(12)] for each in range(8)]


def relevance(query: str, text: str) -> float:
    """Not the order in which they come."""
    return random.Random(text).random()


class Biased(MockChatModel):
    """Adds a liking for early places, or for late ones where it is negative, to what it thinks."""

    def __init__(self, bias: float) -> None:
        super().__init__(relevance)
        self._bias = bias

    def answer(self, question: AskedQuestion) -> Completion:
        size = len(question.texts)
        liking = {
            text: relevance(question.query, text) - self._bias * place / size
            for place, text in enumerate(question.texts)
        }
        self_relevance, self._relevance = self._relevance, lambda query, text: liking[text]
        try:
            return super().answer(question)
        finally:
            self._relevance = self_relevance


def probed(model: MockChatModel, *, shuffles: int = 4, **options: object) -> Probe:
    scorer = LLMScorer(model, **{"max_concurrency": 1, **options})
    return scorer.probe(QUERIES, TEXTS, shuffles=shuffles)


def test_a_model_that_does_not_mind_the_order_shown():
    model = MockChatModel(relevance)
    found = probed(model)
    assert (found.queries, found.failed) == (8, 0)
    assert (found.tau, found.first_place_flips) == (1.0, 0.0)
    assert abs(found.position_bias) < 0.15  # the shuffles are few
    assert not found.worth_repeating
    assert "wasted" in str(found)
    assert len(model.questions) == 8 * 4


def test_a_model_that_follows_the_order_shown():
    found = probed(Biased(100.0))
    assert found.position_bias == 1.0
    assert abs(found.tau) < 0.25
    assert found.first_place_flips > 0.7
    assert found.worth_repeating
    assert "may be worth" in str(found)


def test_a_model_that_likes_the_last():
    found = probed(Biased(-100.0))
    assert found.position_bias == -1.0


def test_the_more_bias_the_less_steady():
    taus = [probed(Biased(bias)).tau for bias in (0.0, 0.3, 1.0, 4.0)]
    biases = [probed(Biased(bias)).position_bias for bias in (0.0, 0.3, 1.0, 4.0)]
    assert taus == sorted(taus, reverse=True)
    assert biases == sorted(biases)
    assert len(set(taus)) == 4


def test_figures_by_hand():
    """Three candidates, an order kept once, and reversed twice of two."""

    class Alternates(MockChatModel):
        def answer(self, question: AskedQuestion) -> Completion:
            labels = sorted(question.labels, key=lambda label: question.texts[question.labels.index(label)])
            if len(self.questions) == 2:
                labels.reverse()
            return Completion(" > ".join(f"[{label}]" for label in labels))

    model = Alternates(relevance, features=("system",))
    found = LLMScorer(model, max_concurrency=1).probe(["q"], [["a 1", "b 2", "c 3"]], shuffles=3)
    assert found.tau == pytest.approx((-1 + 1 - 1) / 3)
    assert found.first_place_flips == pytest.approx(2 / 3)
    second, third = (question.texts for question in model.questions[1:])  # the first was not shuffled
    pairs = [("a 1", "b 2"), ("a 1", "c 3"), ("b 2", "c 3")]
    kept = [sum(texts.index(one) < texts.index(other) for one, other in pairs) for texts in (second[::-1], third)]
    assert found.position_bias == pytest.approx((2 * kept[0] / 3 - 1 + 2 * kept[1] / 3 - 1) / 2)


def test_the_first_shown_is_the_order_given_and_the_others_are_shuffles():
    model = MockChatModel(relevance)
    LLMScorer(model, max_concurrency=1).probe(["q"], [TEXTS[0]], shuffles=4)
    shown = [question.texts for question in model.questions]
    assert list(shown[0]) == TEXTS[0]
    assert all(sorted(texts) == sorted(TEXTS[0]) for texts in shown)
    assert len(set(shown)) == 4
    again = MockChatModel(relevance)
    LLMScorer(again, max_concurrency=1).probe(["q"], [TEXTS[0]], shuffles=4)
    assert [question.texts for question in again.questions] == shown


def test_only_a_window_of_different_documents_is_shown():
    model = MockChatModel(relevance)
    LLMScorer(model, window=5).probe(["q"], [["twice", "twice", *TEXTS[0]]], shuffles=2)
    assert {frozenset(question.texts) for question in model.questions} == {frozenset(["twice", *TEXTS[0][:4]])}


def test_queries_without_two_documents_are_left_out():
    model = MockChatModel(relevance)
    found = LLMScorer(model).probe(["a", "b", "c"], [["one"], TEXTS[0], []], shuffles=2)
    assert (found.queries, found.failed, len(model.questions)) == (1, 0, 2)


@pytest.mark.parametrize("method", ["setwise", "pairwise", "pointwise"])
def test_only_orders_can_be_measured(method: str):
    with pytest.raises(ConfigurationError, match="listwise"):
        probed(MockChatModel(relevance), method=method, shuffles=2)


async def test_async():
    model = Biased(0.5)
    scorer = LLMScorer(model, max_concurrency=1)
    assert await scorer.aprobe(QUERIES, TEXTS, shuffles=3) == probed(Biased(0.5), shuffles=3)


def test_the_verdict_turns_at_a_tau_of_95_hundredths():
    assert Probe(5, 0.95, 0.1, 0.0).worth_repeating
    assert not Probe(5, 0.951, 0.1, 0.0).worth_repeating


def test_in_words():
    told = str(Probe(30, 0.8125, 0.25, -0.0625, failed=2))
    for expected in ("30 queries", "0.812", "25%", "-0.062"):
        assert expected in told
    assert "+0.100" in str(Probe(1, 1.0, 0.0, 0.1))


# ---------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("queries", "documents", "shuffles", "told"),
    [
        (["a", "b"], [TEXTS[0]], 3, "2 queries but 1"),
        ("ab", [TEXTS[0], TEXTS[1]], 3, "queries"),
        (["a"], [TEXTS[0]], 1, "at least 2"),
        (["a"], [TEXTS[0]], True, "at least 2"),
        (["a"], [TEXTS[0]], 2.5, "at least 2"),
        ([], [], 3, "no order"),
        (["a", "b"], [["one"], ["same", "same"]], 3, "no order"),
    ],
)
def test_what_cannot_be_measured_is_refused(queries: list[str], documents: list[list[str]], shuffles: int, told: str):
    model = MockChatModel(relevance)
    with pytest.raises(InvalidInputError, match=told):
        LLMScorer(model).probe(queries, documents, shuffles=shuffles)
    assert model.questions == []


class Fails(MockChatModel):
    """Answers these queries with a status, the others as ever."""

    def __init__(self, status: int, *queries: str) -> None:
        super().__init__(relevance)
        self._status, self._failing = status, queries

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        assert call.request is not None
        if any(query in call.request.messages[-1].content for query in self._failing):
            return Reply(self._status, {}, {"error": {"message": "no"}})
        return super().send(call, timeout)


def test_a_query_that_fails_is_counted_and_the_others_measured():
    found = probed(Fails(503, QUERIES[2], QUERIES[5]), max_retries=0)
    assert (found.queries, found.failed) == (6, 2)
    assert found.tau == 1.0


@pytest.mark.parametrize(("status", "error"), [(401, AuthenticationError), (503, ServerError)])
def test_where_all_fail_it_is_the_error(status: int, error: type[ServiceError]):
    with pytest.raises(error, match="mock"):
        probed(Fails(status, *QUERIES), max_retries=0)


def test_an_observation_is_a_value():
    assert Observation(1.0, 0.0, 0.0) == Observation(1.0, 0.0, 0.0)
