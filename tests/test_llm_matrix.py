"""Every strategy with every method, answer format and driver, through the real prompts."""

from __future__ import annotations

import asyncio
import random
import threading
from collections import Counter
from collections.abc import Iterable, Sequence
from math import ceil
from statistics import mean

import pytest

from ranking_oracles import exact, run, topic
from uprank import Ranking, Reranker
from uprank.scorers import LLMScorer
from uprank.scorers.http.messages import Lost, Reply
from uprank.scorers.llm.chat import ChatCall, Completion
from uprank.scorers.llm.strategies import STRATEGIES, Settings
from uprank.testing import AskedQuestion, MockChatModel

METHODS = {"listwise": "order", "setwise": "choose", "pairwise": "choose", "pointwise": "grade"}
INPUTS = {"text": "shuffled", "json": "sorted", "tool": "reversed", "logprobs": "shuffled anew"}
DRIVERS = ("serial", "threads", "asyncio")
WINDOW, TOP = 5, 2
QUERY = "which number is the greatest?"


def number_of(text: str) -> int:
    return int(text.rsplit(" ", 1)[1])


def passages(n: int, order: str) -> list[str]:
    """Passages that hold the numbers up to ``n``, of which the greatest is the most relevant."""
    numbers = list(range(n, 0, -1))
    if order == "reversed":
        numbers.reverse()
    elif order != "sorted":
        random.Random(order).shuffle(numbers)
    return [f"passage {number}" for number in numbers]


class NumbersModel(MockChatModel):
    """The greater the number, the more relevant; the best nine have grades of their own, of 9, so that grades can
    tell them apart. Keeps what it was asked to write, and checks that it is asked in that way."""

    def __init__(self, n: int) -> None:
        super().__init__(lambda query, text: self.relevance(number_of(text)))
        self.n = n

    def relevance(self, number: int) -> float:
        behind = self.n - number
        return (9 - behind) / 9 if behind < 9 else 0.05 * number / self.n  # below that they differ, but not as grades


def best(texts: Sequence[str]) -> list[str]:
    return sorted(texts, key=number_of, reverse=True)


def ordered(ranking: Ranking) -> list[str]:
    return [hit.document.text for hit in ranking]


def scorer_for(model: MockChatModel, name: str, method: str, answers: str, at_once: int) -> LLMScorer:
    return LLMScorer(
        model,
        method=method,
        strategy=name,
        answers=answers,
        window=WINDOW,
        top=TOP,
        grades=9 if method == "pointwise" else None,
        max_concurrency=at_once,
    )


def ranked(scorer: LLMScorer, texts: Sequence[str], driver: str) -> Ranking:
    reranker = Reranker(scorer)
    return asyncio.run(reranker.arank(QUERY, texts)) if driver == "asyncio" else reranker.rank(QUERY, texts)


def form_of(question: AskedQuestion) -> str:
    request = question.request
    if request.top_logprobs:
        return "logprobs"
    return "tool" if request.tool is not None else "text" if request.schema is None else "json"


def asked(model: MockChatModel) -> Counter[object]:
    """All that was said to the model, with what was read from it."""
    return Counter(
        (one.kind, one.labels, one.texts, one.count, one.top, one.request.messages) for one in model.questions
    )


def assert_right(name: str, method: str, found: Sequence[str], texts: Sequence[str]) -> None:
    """The head is right where the strategy promises it."""
    if name == "window":
        assert sorted(found[:WINDOW]) == sorted(texts[:WINDOW])
        assert list(found[:TOP]) == best(texts[:WINDOW])[:TOP]
        assert list(found[WINDOW:]) == list(texts[WINDOW:])
    elif name == "tournament":  # the last two share their points
        assert best(texts)[0] in found[:2]
    elif name == "pointwise" and method in ("listwise", "setwise"):  # shares of two windows: rough
        assert best(texts)[0] in found[:WINDOW]
    elif name in ("all-pairs", "pointwise"):
        assert list(found[:9]) == best(texts)[:9]
    else:
        assert list(found[:TOP]) == best(texts)[:TOP]


@pytest.mark.no_cover
@pytest.mark.rotated(4)
@pytest.mark.parametrize("answers", INPUTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", STRATEGIES)
def test_every_strategy_with_every_method_format_and_driver(name: str, method: str, answers: str):
    n = 7 if name == "all-pairs" or method == "pairwise" else 12  # all pairs of a window take many calls
    texts = passages(n, INPUTS[answers])
    rankings, questions = [], []
    for driver in DRIVERS:
        model = NumbersModel(n)
        scorer = scorer_for(model, name, method, answers, 1 if driver == "serial" else 4)
        ranking = ranked(scorer, texts, driver)
        rankings.append([(hit.index, hit.score) for hit in ranking])
        questions.append(asked(model))
        assert (ranking.warnings, ranking.degraded) == ((), False)
        assert ranking.usage.requests == len(model.questions)
    assert rankings[0] == rankings[1] == rankings[2]
    assert questions[0] == questions[1] == questions[2]
    assert sorted(index for index, _ in rankings[0]) == list(range(n))
    assert_right(name, method, ordered(ranking), texts)
    plan = scorer.plan(texts)
    if STRATEGIES[name].fixed and plan.calls.exact:
        assert len(model.questions) == plan.calls.least
    else:
        assert plan.calls.least <= len(model.questions) <= plan.calls.most
    assert {one.kind for one in model.questions} == {METHODS[method]}
    several = (method == "pointwise" and len(model.questions[0].texts) > 1) or any(
        one.count > 1 for one in model.questions
    )
    if answers != "logprobs" or not several:  # one token tells one choice
        assert {form_of(one) for one in model.questions} == {answers}
    most = 2 if method == "pairwise" else 10 if method == "pointwise" else WINDOW
    for one in model.questions:
        assert len(one.texts) == len(set(one.texts)) <= most
        assert len(one.labels) == len(set(one.labels)) == len(one.texts)


def test_the_number_of_calls_of_an_exact_plan_is_that_of_its_ranking():
    """So that the range in the test above hides nothing where the number is known beforehand."""
    own = {"order": "listwise", "select": "setwise", "prefer": "pairwise", "score": "pointwise"}
    for name, row in STRATEGIES.items():
        if row.fixed:
            assert scorer_for(NumbersModel(12), name, own[row.asks], "auto", 1).plan(12).calls.exact, name


# ---------------------------------------------------------------- how many at once


class Crowd(NumbersModel):
    """Takes a moment to answer and counts who is being answered; the first few wait until they are ``expected``."""

    def __init__(self, n: int, expected: int) -> None:
        super().__init__(n)
        self.expected, self.now, self.most = expected, 0, 0
        self.condition = threading.Condition()

    def enter(self) -> None:
        with self.condition:
            self.now += 1
            self.most = max(self.most, self.now)
            self.condition.notify_all()

    def leave(self) -> None:
        with self.condition:
            self.now -= 1

    def send(self, call: ChatCall, timeout: float) -> Reply | Lost:
        self.enter()
        with self.condition:
            self.condition.wait_for(lambda: self.most >= self.expected, 2.0)  # never so long: the first round is large
            self.condition.wait_for(lambda: self.most > self.expected, 0.002)  # time for one too many to show
        answer = super().send(call, timeout)
        self.leave()
        return answer

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        self.enter()
        for _ in range(200):
            await asyncio.sleep(0.001)
            if self.most >= self.expected:
                break
        answer = MockChatModel.send(self, call, timeout)
        self.leave()
        return answer


CONCURRENT = [
    ("blocks", "listwise"),
    ("tree", "setwise"),
    ("tournament", "setwise"),
    ("all-pairs", "pairwise"),
    ("sliding", "pairwise"),
    ("pointwise", "pointwise"),
]


@pytest.mark.parametrize("driver", ["threads", "asyncio"])
@pytest.mark.parametrize(("name", "method"), CONCURRENT)
def test_as_many_calls_at_once_as_allowed_and_no_more(name: str, method: str, driver: str):
    n, cap = 17, 3
    texts = passages(n, "shuffled")
    model = Crowd(n, cap)
    answers = "logprobs" if method == "pointwise" else "auto"
    ranking = ranked(scorer_for(model, name, method, answers, cap), texts, driver)
    assert model.most == cap
    assert model.now == 0
    alone = ranked(scorer_for(NumbersModel(n), name, method, answers, 1), texts, "serial")
    assert [hit.index for hit in ranking] == [hit.index for hit in alone]


@pytest.mark.parametrize("driver", ["threads", "asyncio"])
def test_rankings_and_scorers_of_one_model_share_the_places(driver: str):
    """Two scorers, two queries each: rounds of different queries go on side by side, under one cap."""
    n, cap = 12, 3
    texts = passages(n, "shuffled")
    model = Crowd(n, cap)
    rerankers = [Reranker(scorer_for(model, name, "listwise", "auto", cap)) for name in ("blocks", "sliding")]
    queries, documents = [QUERY, "and now?"], [texts, texts[::-1]]
    found: list[list[Ranking]] = []
    if driver == "asyncio":

        async def both() -> list[list[Ranking]]:
            return await asyncio.gather(*(one.arank_many(queries, documents) for one in rerankers))

        found = asyncio.run(both())
    else:
        threads = [
            threading.Thread(target=lambda one=one: found.append(one.rank_many(queries, documents)), daemon=True)
            for one in rerankers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(10)
    assert [ordered(ranking)[:TOP] for rankings in found for ranking in rankings] == [best(texts)[:TOP]] * 4
    assert model.most == cap


def test_one_scorer_in_two_event_loops_and_a_thread():
    texts = passages(12, "shuffled")
    reranker = Reranker(scorer_for(NumbersModel(12), "top-down", "listwise", "auto", 2))
    first = asyncio.run(reranker.arank(QUERY, texts))
    second = asyncio.run(reranker.arank(QUERY, texts))
    assert ordered(first) == ordered(second) == ordered(reranker.rank(QUERY, texts))


# ---------------------------------------------------------------- what it costs


WINDOWS = [(20, 10), (20, 19), (10, 5), (8, 3), (30, 20)]


def check_sliding(window: int, step: int, sizes: Iterable[int]) -> None:
    """By real prompts: the number of calls, the head, and that no question is too large or shows a passage twice."""
    model = NumbersModel(200)
    reranker = Reranker(LLMScorer(model, strategy="sliding", window=window, step=step, top=window - step))
    texts = passages(200, "shuffled")
    for n in sizes:
        model.questions.clear()
        found = ordered(reranker.rank(QUERY, texts[:n]))
        calls = 1 + ceil(max(0, n - window) / step) if n > 1 else 0
        assert len(model.questions) == calls, n
        head = min(window - step, 9)
        assert found[:head] == best(texts[:n])[:head], n
        assert sorted(found) == sorted(texts[:n]), n
        assert all(len(set(one.texts)) == len(one.texts) <= window for one in model.questions), n


@pytest.mark.no_cover
@pytest.mark.parametrize(("window", "step"), WINDOWS)
def test_sliding_calls_and_head_for_every_n(window: int, step: int):
    """Every N that is small, every twentieth, and for the usual window all where a call is added."""
    usual = (window, step) == (20, 10)
    added = {n + more for n in range(window, 200, step if usual else 10 * step) for more in (0, 1)}
    check_sliding(window, step, (n for n in range(201) if (usual and n < 25) or not n % 20 or n in added))


@pytest.mark.slow
@pytest.mark.no_cover
@pytest.mark.parametrize(("window", "step"), WINDOWS)
def test_sliding_calls_and_head_for_every_n_without_exception(window: int, step: int):
    check_sliding(window, step, range(201))


class Waves(MockChatModel):
    """Counts how often nobody was being answered when a question came: the rounds of a ranking."""

    rounds = now = 0

    async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
        self.rounds += self.now == 0
        self.now += 1
        await asyncio.sleep(0.004)
        self.now -= 1
        return self.send(call, timeout)


async def test_top_down_over_a_hundred_typical_documents():
    """20 first stages by real prompts: what the strategy asks by itself is what is sent, round by round. Over 60 of
    them no more than 8 calls and 4 rounds on average."""
    texts = [f"passage {each}" for each in range(100)]
    runs = [run(STRATEGIES["top-down"].start(100, Settings()), exact(topic(seed).utilities), 100) for seed in range(60)]
    assert mean(found.calls for found in runs) <= 8
    assert mean(len(found.rounds) for found in runs) <= 4
    for seed, found in enumerate(runs[:20]):
        utilities = topic(seed).utilities
        model = Waves(lambda query, text, known=utilities: known[number_of(text)] / 4)
        ranking = await Reranker(LLMScorer(model, strategy="top-down")).arank(QUERY, texts)
        assert tuple(hit.index for hit in ranking) == found.order
        assert (len(model.questions), model.rounds) == (found.calls, len(found.rounds))
        assert list(found.order[:10]) == sorted(range(100), key=lambda each: -utilities[each])[:10]


def test_top_down_keeps_within_its_plan():
    plan = LLMScorer(NumbersModel(100), strategy="top-down").plan(100)
    runs = [run(STRATEGIES["top-down"].start(100, Settings()), exact(topic(seed).utilities), 100) for seed in range(60)]
    assert {found.calls for found in runs} <= set(range(plan.calls.least, plan.calls.most + 1))
    assert {len(found.rounds) for found in runs} <= set(range(plan.rounds.least, plan.rounds.most + 1))


# ---------------------------------------------------------------- every answer may differ from the last


def test_an_answer_depends_on_nothing_but_its_prompt_and_arrives_in_its_place():
    """Answers that come in any order, as from a busy server, change nothing."""
    texts = passages(17, "shuffled")
    expected = ordered(ranked(scorer_for(NumbersModel(17), "blocks", "listwise", "auto", 1), texts, "serial"))

    class Late(NumbersModel):
        async def asend(self, call: ChatCall, timeout: float) -> Reply | Lost:
            await asyncio.sleep(random.random() / 200)
            return self.send(call, timeout)

    for _ in range(3):
        assert ordered(ranked(scorer_for(Late(17), "blocks", "listwise", "auto", 8), texts, "asyncio")) == expected


class Dislikes(NumbersModel):
    """Sorts the wrong way round, so that a judge whose answers are lost or exchanged would be seen."""

    def answer(self, question: AskedQuestion) -> Completion:
        turned = [1 - self.relevance(number_of(text)) for text in question.texts]
        order = sorted(question.labels, key=lambda label: -turned[question.labels.index(label)])
        return Completion(" > ".join(f"[{label}]" for label in order))


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_order_is_the_models_not_ours(driver: str):
    texts = passages(12, "shuffled")
    found = ordered(ranked(scorer_for(Dislikes(12), "sliding", "listwise", "text", 4), texts, driver))
    assert found[: WINDOW // 2] == best(texts)[::-1][: WINDOW // 2]
