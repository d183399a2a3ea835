"""Budgets: what ends a ranking, what is then returned, and what was spent."""

from __future__ import annotations

import asyncio

import pytest

from budget_cases import (
    NUMBERS,
    PRICE,
    QUERY,
    RECIPES,
    TEXTS,
    N,
    assert_flagged,
    model_of,
    numbers,
    relevance,
    scorer_for,
    spent,
    stops,
)
from uprank import Reranker
from uprank.errors import ConfigurationError
from uprank.scorers import LLMScorer
from uprank.scorers.llm import Budget, Price
from uprank.scorers.llm.chat import ChatRequest, Completion
from uprank.testing import MockChatModel

# ---------------------------------------------------------------- every limit at every possible stop


@pytest.mark.parametrize("name", RECIPES)
def test_max_calls_at_every_possible_stop(name: str):
    calls, whole = spent(name)
    assert not whole.degraded
    for most in stops(calls):
        model = model_of()
        ranking = Reranker(scorer_for(name, model, budget=Budget(max_calls=most))).rank(QUERY, TEXTS)
        assert len(model.questions) <= most
        assert ranking.usage.requests == len(model.questions)
        assert sorted(numbers(ranking)) == sorted(NUMBERS)
        assert_flagged(ranking, f"max_calls={most}")
    enough = model_of()
    ranking = Reranker(scorer_for(name, enough, budget=Budget(max_calls=calls))).rank(QUERY, TEXTS)
    assert (ranking.degraded, ranking.warnings, len(enough.questions)) == (False, (), calls)
    assert numbers(ranking) == numbers(whole)


@pytest.mark.rotated(2)
@pytest.mark.parametrize("name", RECIPES)
@pytest.mark.parametrize("share", [0.02, 0.3, 0.7, 0.95])
@pytest.mark.parametrize("limit", ["max_tokens", "max_cost"])
def test_max_tokens_and_max_cost(name: str, share: float, limit: str):
    scorer = scorer_for(name, model_of(), price=PRICE)
    plan = scorer.plan(TEXTS, QUERY)
    assert plan.cost is not None
    tokens = plan.input_tokens.least + plan.output_tokens.least
    most = int(share * tokens) if limit == "max_tokens" else share * plan.cost * plan.calls.least / plan.calls.typical
    model = model_of()
    scorer = scorer_for(name, model, price=PRICE, budget=Budget(**{limit: most}))
    ranking = Reranker(scorer).rank(QUERY, TEXTS)
    used = ranking.usage.tokens if limit == "max_tokens" else ranking.usage.cost
    assert used is not None
    assert used <= most
    assert sorted(numbers(ranking)) == sorted(NUMBERS)
    if share < 0.5:  # the mock counts fewer tokens than are expected, which makes room for a few more calls
        assert_flagged(ranking, f"{limit}={most:g}" if limit == "max_cost" else f"{limit}={most}")
    assert ranking.degraded == (len(model.questions) < spent(name)[0])


def test_tokens_are_counted_as_the_model_counts_them():
    """Where it does not say, as expected."""

    class Says(MockChatModel):
        def reply(self, request: ChatRequest) -> Completion:
            return Completion(super().reply(request).text, input_tokens=1000, output_tokens=10)

    class Silent(MockChatModel):
        def reply(self, request: ChatRequest) -> Completion:
            return Completion(super().reply(request).text)

    calls = 1 + -(-(N - 5) // 2)
    scorer = scorer_for("sliding", Says(relevance), price=PRICE)
    usage = Reranker(scorer).rank(QUERY, TEXTS).usage
    assert usage.tokens == calls * 1010
    assert usage.cost == pytest.approx(calls * (1000 * 2.0 + 10 * 8.0) / 1e6)
    scorer = scorer_for("sliding", Silent(relevance), price=PRICE)
    plan = scorer.plan(TEXTS, QUERY)
    usage = Reranker(scorer).rank(QUERY, TEXTS).usage
    assert usage.tokens == plan.input_tokens.least + plan.output_tokens.least
    assert usage.cost == pytest.approx(plan.cost)


def test_what_a_call_turned_out_to_use_is_what_counts_from_then_on():
    """A model that uses far less than expected is asked on, as long as the next call seems affordable."""

    class Frugal(MockChatModel):
        def reply(self, request: ChatRequest) -> Completion:
            return Completion(super().reply(request).text, input_tokens=10, output_tokens=1)

    scorer = scorer_for("sliding", model_of(), answers="text")
    calls, of_one = scorer.plan(TEXTS, QUERY).calls.least, scorer.plan(TEXTS[:5], QUERY)
    expected = of_one.input_tokens.least + of_one.output_tokens.least
    assert calls * 11 < expected
    enough, too_little = Budget(max_tokens=expected + 11 * calls), Budget(max_tokens=expected + 11)
    for budget, made in ((enough, calls), (too_little, 2)):
        model = Frugal(relevance)
        ranking = Reranker(scorer_for("sliding", model, budget=budget, answers="text")).rank(QUERY, TEXTS)
        assert len(model.questions) == made
        assert ranking.usage.tokens == 11 * made
        assert ranking.degraded == (made < calls)


# ---------------------------------------------------------------- what is returned


@pytest.mark.parametrize("budget", [Budget(max_tokens=1), Budget(max_cost=1e-9)])
@pytest.mark.parametrize("name", RECIPES)
def test_nothing_affordable_is_the_original_order_and_no_call(name: str, budget: Budget):
    model = model_of()
    ranking = Reranker(scorer_for(name, model, budget=budget, price=PRICE)).rank(QUERY, TEXTS)
    assert numbers(ranking) == list(NUMBERS)
    assert model.questions == []
    assert_flagged(ranking, "max_tokens=1" if budget.max_tokens else "max_cost=1e-09")
    assert (ranking.usage.requests, ranking.usage.tokens) == (0, 0)


def test_after_one_call_of_top_down_the_head_is_in_order():
    ranking = Reranker(scorer_for("top-down", model_of(), budget=Budget(max_calls=1))).rank(QUERY, TEXTS)
    assert numbers(ranking) == [*sorted(NUMBERS[:5], reverse=True), *NUMBERS[5:]]


def test_of_a_round_that_cannot_be_afforded_whole_a_part_is_asked():
    """Those of a partition that beat the pivot stand before it, as they would in the end."""
    model = model_of()
    found = numbers(Reranker(scorer_for("top-down", model, budget=Budget(max_calls=3))).rank(QUERY, TEXTS))
    assert len(model.questions) == 3
    assert sorted(found) == sorted(NUMBERS)


def test_sliding_has_carried_the_best_so_far_to_where_the_window_stopped():
    for calls in range(1, 5):
        ranking = Reranker(scorer_for("sliding", model_of(), budget=Budget(max_calls=calls))).rank(QUERY, TEXTS)
        start = N - 5 - 2 * (calls - 1)
        found = numbers(ranking)
        assert found[:start] == list(NUMBERS[:start])
        assert found[start : start + 3] == sorted(NUMBERS[start:], reverse=True)[:3]


def test_the_tree_returns_the_winners_taken_out_so_far():
    calls, _ = spent("tree")
    model = model_of()
    budget = Budget(max_calls=calls - 1)
    found = numbers(Reranker(scorer_for("tree", model, budget=budget)).rank(QUERY, TEXTS))
    assert found[0] == 14
    assert found[1:] == [number for number in NUMBERS if number != 14]


def test_without_the_scores_that_were_too_much_the_order_is_whole():
    """The final window is scored last, by one call."""
    calls, whole = spent("scored")
    assert [hit.score is not None for hit in whole] == [True] * 5 + [False] * 9
    ranking = Reranker(scorer_for("scored", model_of(), budget=Budget(max_calls=calls - 1))).rank(QUERY, TEXTS)
    assert numbers(ranking) == numbers(whole)
    assert [hit.score for hit in ranking] == [None] * N
    assert ranking.score_kind == "probability"
    assert_flagged(ranking, f"max_calls={calls - 1}")


@pytest.mark.parametrize("at_once", [1, 16])
def test_pointwise_in_part_puts_the_scored_before_the_others(at_once: int):
    model = model_of()
    scorer = scorer_for("grades", model, budget=Budget(max_calls=3), max_concurrency=at_once, grades=7)
    ranking = Reranker(scorer).rank(QUERY, TEXTS)
    assert len(model.questions) == 3
    asked = {text for question in model.questions for text in question.texts}
    assert len(asked) == 6
    assert {hit.document.text for hit in ranking[:6]} == asked
    known = [hit.score for hit in ranking[:6]]
    assert known == sorted(known, reverse=True)
    assert [hit.score for hit in ranking[6:]] == [None] * 8
    assert [hit.index for hit in ranking[6:]] == sorted(hit.index for hit in ranking[6:])
    assert ranking.score_kind == "probability"
    assert_flagged(ranking, "max_calls=3")


def test_pointwise_in_part_and_a_threshold():
    """What could not be scored for want of money is not lost: it has no score to compare."""
    scorer = scorer_for("grades", model_of(), budget=Budget(max_calls=3), grades=7, max_concurrency=1)
    ranking = Reranker(scorer, threshold=0.5).rank(QUERY, TEXTS)
    assert sorted(numbers(ranking)[:3]) == [8, 11, 14]  # of 8, 3, 11, 1, 14 and 6
    assert {hit.score for hit in ranking[3:]} == {None}
    assert len(ranking) == len(TEXTS) - 3


# ---------------------------------------------------------------- one budget a query


@pytest.mark.parametrize("driver", ["sync", "async"])
def test_each_query_of_several_has_a_budget_of_its_own(driver: str):
    model = model_of()
    reranker = Reranker(scorer_for("sliding", model, budget=Budget(max_calls=5)))
    queries, documents = ["a?", "b?", "c?"], [TEXTS, TEXTS[:9], TEXTS]
    if driver == "sync":
        rankings = reranker.rank_many(queries, documents)
    else:
        rankings = asyncio.run(reranker.arank_many(queries, documents))
    assert [ranking.degraded for ranking in rankings] == [True, False, True]
    assert [ranking.usage.requests for ranking in rankings] == [5, 3, 5]
    assert [sum(one.query == query for one in model.questions) for query in queries] == [5, 3, 5]
    again = reranker.rank("d?", TEXTS[:9])  # and so has the next one
    assert not again.degraded


# ---------------------------------------------------------------- repairs spend too


class Forgets(MockChatModel):
    """Leaves out the last label of every answer."""

    def reply(self, request: ChatRequest) -> Completion:
        text = super().reply(request).text
        return Completion(text.rpartition(" > ")[0])


def test_repairs_count_and_end_with_the_budget():
    """A window that leaves one out of six is asked for it; when that can no longer be paid, it is appended."""
    whole = Forgets(relevance, features=("system",))
    ranking = Reranker(LLMScorer(whole, window=6, strategy="window")).rank(QUERY, TEXTS)
    assert (len(whole.questions), ranking.usage.requests) == (2, 2)
    for most in (1, 2, 3, 4, 5):
        model = Forgets(relevance, features=("system",))
        scorer = LLMScorer(model, window=6, strategy="sliding", budget=Budget(max_calls=most))
        ranking = Reranker(scorer).rank(QUERY, TEXTS)
        assert len(model.questions) == most
        assert sorted(numbers(ranking)) == sorted(NUMBERS)
        assert_flagged(ranking, f"max_calls={most}")


def test_an_answer_asked_for_again_counts():
    class Babbles(MockChatModel):
        def reply(self, request: ChatRequest) -> Completion:
            super().reply(request)
            return Completion("I would rather talk about the weather.")

    model = Babbles(relevance, features=("system",))
    scorer = LLMScorer(model, window=6, strategy="sliding", budget=Budget(max_calls=1))
    ranking = Reranker(scorer).rank(QUERY, TEXTS)
    assert len(model.questions) == 1
    assert numbers(ranking) == list(NUMBERS)
    assert_flagged(ranking, "max_calls=1")


# ---------------------------------------------------------------- what may be set


@pytest.mark.parametrize("name", ["max_calls", "max_tokens", "max_cost", "deadline"])
@pytest.mark.parametrize("wrong", [0, -1, True, "7", float("inf"), float("nan")])
def test_a_budget_that_is_none_is_refused(name: str, wrong: object):
    with pytest.raises(ConfigurationError, match=name):
        Budget(**{name: wrong})  # type: ignore[arg-type]  # that is what is tested


@pytest.mark.parametrize("name", ["max_calls", "max_tokens"])
def test_counts_are_whole(name: str):
    with pytest.raises(ConfigurationError, match=f"{name}.*integer"):
        Budget(**{name: 2.5})  # type: ignore[arg-type]  # likewise


def test_no_limits_is_the_default():
    assert Budget() == Budget(None, None, None, None)


@pytest.mark.parametrize("wrong", [-1, "2", None, float("inf"), True])
@pytest.mark.parametrize("part", ["input", "output"])
def test_a_price_that_is_none_is_refused(part: str, wrong: object):
    with pytest.raises(ConfigurationError, match=part):
        Price.of({"input": 1.0, "output": 1.0, part: wrong})  # type: ignore[dict-item]  # likewise


@pytest.mark.parametrize("wrong", [{"input": 1.0}, {"input": 1.0, "output": 1.0, "cached": 0.1}, 3.0, (1.0, 2.0)])
def test_a_price_of_another_shape_is_refused(wrong: object):
    with pytest.raises(ConfigurationError, match="price"):
        Price.of(wrong)  # type: ignore[arg-type]  # likewise
    with pytest.raises(ConfigurationError, match="price"):
        LLMScorer(model_of(), price=wrong)  # type: ignore[arg-type]  # likewise


def test_a_price_may_be_nothing_and_counts_millions():
    assert Price(0, 0).cost(10**6, 10**6) == 0
    assert Price.of({"input": 3.0, "output": 15.0}) == Price(3.0, 15.0)
    assert Price(3.0, 15.0).cost(2_000_000, 100_000) == pytest.approx(7.5)


def test_a_budget_of_money_needs_a_price():
    with pytest.raises(ConfigurationError, match="price="):
        LLMScorer(model_of(), budget=Budget(max_cost=1.0))


def test_a_budget_is_a_budget():
    with pytest.raises(ConfigurationError, match="Budget"):
        LLMScorer(model_of(), budget=3)  # type: ignore[arg-type]  # likewise
    with pytest.raises(ConfigurationError, match="max_calls"):
        LLMScorer(model_of(), budget={"calls": 3})
    ranking = Reranker(LLMScorer(model_of(), budget={"max_calls": 1}, window=5)).rank(QUERY, TEXTS)
    assert ranking.degraded
