"""Any function as a scorer: what it may be, what it may answer, and what is refused."""

import asyncio
import functools
import gc
import threading
import warnings
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pandas as pd
import pytest
import torch

from uprank import ConfigurationError, InvalidScoresError, Reranker, ScorerError
from uprank.scorers import CallableScorer, ScoreRequest, Scores, Usage

TEXTS = ["a", "b", "c"]
SCORES = [1.5, -2.0, 3.0]
ORDER = [(2, 3.0), (0, 1.5), (1, -2.0)]


def ranked(answer, **options):
    ranking = Reranker(lambda query, texts: answer, name="fn", **options).rank("q", TEXTS)
    return [(hit.index, hit.score) for hit in ranking]


# --- answers that will do


@pytest.mark.parametrize(
    "answer",
    [
        SCORES,
        tuple(SCORES),
        iter(SCORES),
        (score for score in SCORES),
        np.array(SCORES),
        np.array(SCORES, dtype=np.float32),
        np.array(SCORES, dtype=np.float16),
        torch.tensor(SCORES),
        torch.tensor(SCORES, dtype=torch.bfloat16),
        torch.tensor(SCORES, dtype=torch.float64),
        pd.Series(SCORES, index=[7, 8, 9]),
        [Decimal("1.5"), Fraction(-2), np.float32(3)],
        [torch.tensor(1.5), np.array(-2.0), 3],
        dict(zip(TEXTS, SCORES, strict=True)).values(),
        Scores(SCORES, kind="logit"),
    ],
    ids=lambda answer: f"{type(answer).__name__}-{getattr(answer, 'dtype', '')}",
)
def test_one_number_a_text_in_any_iterable(answer):
    assert ranked(answer) == ORDER


def test_scores_of_any_library_become_python_floats():
    for answer in (np.array(SCORES, dtype=np.float32), torch.tensor(SCORES), [1, 2, 3]):
        ranking = Reranker(lambda query, texts, answer=answer: answer).rank("q", TEXTS)
        assert {type(hit.score) for hit in ranking} == {float}


def test_an_answer_of_scores_speaks_for_itself():
    answer = Scores(SCORES, kind="cosine", usage=Usage(tokens=12), warnings=("cut",))
    ranking = Reranker(lambda query, texts: answer).rank("q", TEXTS)
    assert (ranking.score_kind, ranking.usage.tokens, ranking.warnings) == ("cosine", 12, ("cut",))


def test_a_function_may_change_its_list_of_texts():
    def consume(query, texts):
        scores = [float(len(text)) for text in texts]
        texts.reverse()
        texts.pop()
        return scores

    async def aconsume(query, texts):
        return consume(query, texts)

    for ranking in (
        Reranker(consume).rank("q", ["a", "bbb", "cc"]),
        asyncio.run(Reranker(consume).arank("q", ["a", "bbb", "cc"])),
        asyncio.run(Reranker(aconsume).arank("q", ["a", "bbb", "cc"])),
    ):
        assert [(hit.index, hit.document.text) for hit in ranking] == [(1, "bbb"), (2, "cc"), (0, "a")]


# --- answers that are refused


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ([1.0, float("nan"), 2.0], "nan for text 1"),
        ([1.0, 2.0, float("inf")], "inf for text 2"),
        ([float("-inf"), 1.0, 2.0], "-inf for text 0"),
        (np.array([1, np.nan, 2], dtype=np.float32), "nan for text 1"),
        ([1.0, 2.0], "2 scores for 3 texts"),
        ([1.0, 2.0, 3.0, 4.0], "4 scores for 3 texts"),
        ([], "0 scores for 3 texts"),
        (iter([1.0]), "1 scores for 3 texts"),
        (None, "NoneType"),
        (1.0, "float"),
        ("123", "str"),
        (b"123", "bytes"),
        ({"a": 1.0, "b": 2.0, "c": 3.0}, "dict"),
        ([1.0, None, 2.0], "None for text 1"),
        ([1.0, "2.0", 3.0], "'2.0' for text 1"),
        ([1.0, b"2", 3.0], "b'2' for text 1"),
        ([1.0, 2j, 3.0], "2j for text 1"),
        ([("a", 1.0), ("b", 2.0), ("c", 3.0)], "text 0"),
        ([{"index": 0, "score": 1.0}] * 3, "text 0"),
        ([[1.0], [2.0], [3.0]], "text 0"),
        (np.array([[1.0], [2.0], [3.0]]), "text 0"),
        (torch.tensor([[1.0], [2.0], [3.0]]), "text 0"),
        (torch.tensor([[1.0, 2.0, 3.0]]), "text 0"),
        (np.array([["x"], ["y"], ["z"]]), "text 0"),
        (np.array(1.0), "fn"),
        (torch.tensor(1.0), "fn"),
        ({1.0, 2.0, 3.0}, "set"),
        ([10**400, 1, 2], "text 0"),
        ([1.0, Decimal("sNaN"), 2.0], "text 1"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_anything_else_is_an_error_that_names_the_function_and_the_text(answer, said):
    with pytest.raises(InvalidScoresError, match=r"^fn ") as caught:
        ranked(answer)
    assert said in str(caught.value)


def test_an_error_inside_a_generator_is_the_scorers():
    def scores(query, texts):
        yield 1.0
        raise OSError("gpu gone")

    with pytest.raises(ScorerError, match="scores failed with OSError: gpu gone") as caught:
        Reranker(scores).rank("q", TEXTS)
    assert isinstance(caught.value.__cause__, OSError)


def test_a_function_with_other_parameters_is_an_error_that_names_it():
    with pytest.raises(ConfigurationError, match=r"cannot be called as \(query, texts\): too many positional"):
        Reranker(functools.partial(lambda query: []), on_error="passthrough")


# --- what its numbers mean


@pytest.mark.parametrize("kind", ["probability", "logit", "cosine", "rank"])
def test_the_declared_kind_is_reported(kind):
    assert Reranker(lambda query, texts: [0.5] * 3, score_kind=kind).rank("q", TEXTS).score_kind == kind


def test_an_undeclared_kind_counts_as_raw_scores():
    assert Reranker(lambda query, texts: SCORES).rank("q", TEXTS).score_kind == "logit"


@pytest.mark.parametrize("kind", ["logits", "score", "", 5])
def test_an_unknown_kind_is_refused(kind):
    with pytest.raises(ConfigurationError, match="score_kind"):
        Reranker(lambda query, texts: SCORES, score_kind=kind)


@pytest.mark.parametrize(
    "answer",
    [
        Scores(SCORES, kind="logits"),
        Scores(SCORES, kind="cosine", native="probability"),
        Scores(SCORES, kind="rank", native="probability"),
        Scores(SCORES, kind="logit", native="cosine"),
    ],
    ids=lambda answer: f"{answer.kind}-{answer.native}",
)
def test_an_answer_of_an_impossible_kind_is_refused(answer):
    with pytest.raises(InvalidScoresError, match="fn"):
        ranked(answer)


@pytest.mark.parametrize("value", [7.5, -0.001, 1.0001])
def test_what_is_declared_a_probability_lies_between_0_and_1(value):
    with pytest.raises(InvalidScoresError, match=r"^fn ") as caught:
        ranked([0.0, value, 1.0], score_kind="probability")
    assert "text 1" in str(caught.value)
    assert "probability" in str(caught.value)


# --- its name


class Callable:
    def __call__(self, query, texts):
        return SCORES

    def method(self, query, texts):
        return SCORES


def test_a_function_is_named_by_itself_unless_told():
    def ranked(query, texts):
        return SCORES

    assert Reranker(ranked).model.endswith("<locals>.ranked")
    assert Reranker(Callable()).model == "Callable"
    assert Reranker(Callable().method).model == "Callable.method"
    assert Reranker(functools.partial(ranked)).model == "partial"
    assert Reranker(ranked, name="mine").model == "mine"
    assert repr(CallableScorer(ranked)) == f"<CallableScorer {ranked.__qualname__}>"


# --- sync and async functions, called synchronously


async def async_function(query, texts):
    await asyncio.sleep(0)
    return SCORES


class AsyncCallable:
    async def __call__(self, query, texts):
        return SCORES


def returns_a_coroutine(query, texts):
    return async_function(query, texts)


class Awaitable:
    def __await__(self):
        yield from asyncio.sleep(0).__await__()
        return SCORES


ASYNC = [
    async_function,
    AsyncCallable(),
    functools.partial(async_function),
    returns_a_coroutine,
    lambda query, texts: Awaitable(),
]


@pytest.mark.parametrize("function", ASYNC, ids=["function", "object", "partial", "sync to coroutine", "awaitable"])
def test_rank_runs_an_async_function(function):
    assert [(hit.index, hit.score) for hit in Reranker(function).rank("q", TEXTS)] == ORDER


@pytest.mark.parametrize("function", ASYNC, ids=["function", "object", "partial", "sync to coroutine", "awaitable"])
async def test_rank_runs_an_async_function_inside_a_running_loop(function):
    assert [(hit.index, hit.score) for hit in Reranker(function).rank("q", TEXTS)] == ORDER


@pytest.mark.parametrize("function", ASYNC, ids=["function", "object", "partial", "sync to coroutine", "awaitable"])
async def test_arank_awaits_an_async_function(function):
    assert [(hit.index, hit.score) for hit in await Reranker(function).arank("q", TEXTS)] == ORDER


def test_rank_calls_a_sync_function_in_the_callers_thread():
    seen = []
    Reranker(lambda query, texts: seen.append(threading.get_ident()) or SCORES).rank("q", TEXTS)
    assert seen == [threading.get_ident()]


def test_rank_inside_an_async_scorer_is_an_error_that_says_what_to_do():
    inner = Reranker(async_function)

    async def outer(query, texts):
        return [hit.score for hit in inner.rank(query, texts)]

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(ScorerError, match="await arank"):
            Reranker(outer).rank("q", TEXTS)
        gc.collect()
    assert [str(warning.message) for warning in caught if "never awaited" in str(warning.message)] == []


def test_the_scorer_can_be_used_without_a_reranker():
    scorer = CallableScorer(async_function, score_kind="cosine")
    assert scorer.score("q", TEXTS) == Scores(SCORES, kind="cosine")
    outcomes = scorer.score_many([ScoreRequest("q", TEXTS), ScoreRequest("p", TEXTS)])
    assert outcomes == [Scores(SCORES, kind="cosine")] * 2
    assert asyncio.run(scorer.ascore("q", TEXTS)) == Scores(SCORES, kind="cosine")


def test_rank_many_has_all_requests_of_an_async_function_in_flight_at_once():
    running = most = 0

    async def count(query, texts):
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.01)
        running -= 1
        return [0.0] * len(texts)

    Reranker(count).rank_many(["a", "b", "c"], [["x"]] * 3)
    assert most == 3
