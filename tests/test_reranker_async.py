"""The pipeline, awaited: on the caller's loop, never blocking it, cancellable, and equal to the sync one."""

import asyncio
import threading
from dataclasses import replace
from functools import partial

import pytest

from uprank import InvalidInputError, Reranker, ScoreKindError, ScorerError
from uprank.scorers import Scorer, Scores

DOCUMENTS = ["bb", "a", {"text": "ccc", "page": 1}, "bb"]


def by_length(query, texts):
    return [float(len(text)) for text in texts]


async def aby_length(query, texts):
    await asyncio.sleep(0)
    return by_length(query, texts)


class AsyncLength:
    async def __call__(self, query, texts):
        return by_length(query, texts)


def without_time(ranking):
    return replace(ranking, elapsed=0.0, model="")


@pytest.mark.parametrize("function", [by_length, aby_length])
@pytest.mark.parametrize(
    "options",
    [{}, {"top_n": 2}, {"threshold": 2.0}, {"top_n": None, "threshold": None}, {"instruction": None}],
    ids=repr,
)
async def test_the_four_methods_agree(function, options):
    reranker = Reranker(function, top_n=3)
    expected = without_time(Reranker(by_length, top_n=3).rank("q", DOCUMENTS, **options))
    assert without_time(reranker.rank("q", DOCUMENTS, **options)) == expected
    assert without_time(await reranker.arank("q", DOCUMENTS, **options)) == expected
    assert [without_time(each) for each in reranker.rank_many(["q"], [DOCUMENTS], **options)] == [expected]
    assert [without_time(each) for each in await reranker.arank_many(["q"], [DOCUMENTS], **options)] == [expected]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ({"query": " "}, InvalidInputError),
        ({"documents": "one"}, InvalidInputError),
        ({"documents": [5]}, InvalidInputError),
        ({"top_n": 0}, InvalidInputError),
        ({"threshold": "0.5"}, InvalidInputError),
        ({"instruction": "prefer code"}, InvalidInputError),
    ],
    ids=repr,
)
async def test_mistakes_are_refused_alike(arguments, error):
    with pytest.raises(error):
        await Reranker(aby_length, on_error="passthrough").arank(**{"query": "q", "documents": DOCUMENTS} | arguments)


async def test_mistakes_in_lists_of_queries_are_refused_alike():
    with pytest.raises(InvalidInputError, match="1 queries but 2 lists"):
        await Reranker(aby_length).arank_many(["q"], [["a"], ["b"]])
    with pytest.raises(ScoreKindError):
        await Reranker(aby_length, score_kind="rank").arank_many(["q"], [["a"]], threshold=0.5)


async def test_no_documents_no_call():
    async def never(query, texts):
        raise AssertionError

    reranker = Reranker(never)
    assert len(await reranker.arank("q", [])) == 0
    one, two = await reranker.arank_many(["p", "q"], [[], ()])
    assert (len(one), len(two)) == (0, 0)


# --- where it runs


async def test_an_async_function_runs_on_the_callers_loop_in_the_callers_task():
    seen = []

    async def where(query, texts):
        seen.append((asyncio.get_running_loop(), threading.get_ident()))
        return by_length(query, texts)

    await Reranker(where).arank("q", ["a"])
    await Reranker(where).arank_many(["p", "q"], [["a"], ["b"]])
    assert set(seen) == {(asyncio.get_running_loop(), threading.get_ident())}
    assert len(seen) == 3


@pytest.mark.parametrize(
    "function", [aby_length, partial(aby_length), AsyncLength()], ids=["function", "partial", "object"]
)
async def test_an_async_function_needs_no_thread(function):
    before = set(threading.enumerate())
    await Reranker(function).arank_many(["p", "q"], [["a"], ["b"]])
    assert set(threading.enumerate()) <= before


def _waits(release):
    def function(query, texts):
        return [1.0 if release.wait(2) else -1.0] * len(texts)

    return function


def _waits_as_it_yields(release):
    def function(query, texts):
        for _ in texts:
            yield 1.0 if release.wait(2) else -1.0

    return function


class _WaitsInAScorer(Scorer):
    def __init__(self, release):
        self.release = release

    def score(self, query, texts, *, instruction=None):
        return Scores([1.0 if self.release.wait(2) else -1.0] * len(texts), kind="logit")


@pytest.mark.parametrize(
    "make", [_waits, _waits_as_it_yields, _WaitsInAScorer], ids=["function", "generator", "scorer"]
)
async def test_a_sync_scorer_does_not_block_the_loop(make):
    """The scorer waits for what only a running loop can do."""
    release = threading.Event()
    asyncio.get_running_loop().call_later(0.02, release.set)
    ranking = await Reranker(make(release)).arank("q", ["a"])
    assert ranking[0].score == 1.0


def test_one_reranker_serves_one_loop_after_another():
    reranker = Reranker(aby_length)
    for _ in range(3):
        assert [hit.index for hit in asyncio.run(reranker.arank("q", DOCUMENTS))] == [2, 0, 3, 1]
        assert len(reranker.rank("q", DOCUMENTS)) == 4


# --- concurrency


async def test_forty_eight_calls_are_in_flight_together():
    inside, together = [], asyncio.Event()

    async def meet(query, texts):
        inside.append(query)
        if len(inside) == 48:
            together.set()
        await together.wait()
        return by_length(query, texts)

    reranker = Reranker(meet)
    calls = asyncio.gather(*(reranker.arank(f"q{number}", ["a" * number, "b"]) for number in range(48)))
    rankings = await asyncio.wait_for(calls, 10)
    assert [ranking.query for ranking in rankings] == [f"q{number}" for number in range(48)]
    assert [ranking[0].score for ranking in rankings] == [1.0, 1.0, *map(float, range(2, 48))]


async def test_the_queries_of_arank_many_are_in_flight_together():
    inside, together = [], asyncio.Event()

    async def meet(query, texts):
        inside.append(query)
        if len(inside) == 5:
            together.set()
        await together.wait()
        return by_length(query, texts)

    queries = ["a", "b", "c", "d", "e"]
    rankings = await asyncio.wait_for(Reranker(meet).arank_many(queries, [["x"]] * 5), 10)
    assert [ranking.query for ranking in rankings] == queries


# --- cancellation


class Endless:
    """Never answers; tells when it was asked and what stopped it."""

    def __init__(self):
        self.asked = asyncio.Semaphore(0)
        self.cancelled = 0

    async def __call__(self, query, texts):
        self.asked.release()
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise


@pytest.mark.parametrize("policy", ["raise", "passthrough"])
async def test_cancelling_a_call_cancels_the_scorer(policy):
    endless = Endless()
    task = asyncio.ensure_future(Reranker(endless, on_error=policy).arank("q", ["a"]))
    await endless.asked.acquire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert endless.cancelled == 1


async def test_cancelling_many_cancels_every_query():
    endless = Endless()
    task = asyncio.ensure_future(Reranker(endless).arank_many(["p", "q", "r"], [["a"]] * 3))
    for _ in range(3):
        await endless.asked.acquire()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert endless.cancelled == 3


@pytest.mark.parametrize("policy", ["raise", "passthrough"])
async def test_a_timeout_of_the_caller_is_the_callers(policy):
    endless = Endless()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(Reranker(endless, on_error=policy).arank("q", ["a"]), 0.02)
    assert endless.cancelled == 1


# --- failures


async def test_a_failure_is_wrapped_with_its_cause():
    cause = OSError("no route")

    async def broken(query, texts):
        raise cause

    with pytest.raises(ScorerError, match="broken failed with OSError: no route") as caught:
        await Reranker(broken, name="broken").arank("q", ["a"])
    assert caught.value.__cause__ is cause


async def test_passthrough_degrades_only_the_query_that_failed():
    async def fails_for_two(query, texts):
        if query == "two":
            raise RuntimeError("20 s")
        return by_length(query, texts)

    reranker = Reranker(fails_for_two, on_error="passthrough")
    rankings = await reranker.arank_many(["one", "two", "three"], [["a", "bb"]] * 3)
    assert [ranking.degraded for ranking in rankings] == [False, True, False]
    assert [[hit.index for hit in ranking] for ranking in rankings] == [[1, 0], [0, 1], [1, 0]]
    assert [hit.score for hit in rankings[1]] == [None, None]


async def test_one_failing_query_does_not_stop_the_others_half_way():
    finished = []

    async def fails_for_two(query, texts):
        if query == "two":
            raise RuntimeError("20 s")
        await asyncio.sleep(0.01)
        finished.append(query)
        return by_length(query, texts)

    with pytest.raises(ScorerError, match="20 s"):
        await Reranker(fails_for_two).arank_many(["one", "two", "three"], [["a"]] * 3)
    assert sorted(finished) == ["one", "three"]


@pytest.mark.parametrize("policy", ["raise", "passthrough"])
async def test_a_scorer_that_runs_out_of_an_iterator_is_a_failure_and_no_hang(policy):
    """A StopIteration cannot be set on an asyncio future: unless it is caught in the thread, the await never ends."""
    answers = iter([[1.0]])

    def scripted(query, texts):
        return next(answers)

    reranker = Reranker(scripted, on_error=policy)
    assert len(await reranker.arank("q", ["a"])) == 1
    second = asyncio.wait_for(reranker.arank("q", ["a"]), 1)
    if policy == "passthrough":
        assert (await second).degraded
    else:
        with pytest.raises(ScorerError, match="scripted"):
            await second


# --- life cycle


async def test_leaving_the_block_awaits_the_closing():
    class Connected(Scorer):
        closed = 0

        async def ascore(self, query, texts, *, instruction=None):
            return Scores(by_length(query, texts), kind="logit")

        def score(self, query, texts, *, instruction=None):
            raise NotImplementedError

        async def aclose(self):
            await asyncio.sleep(0)
            self.closed += 1

    scorer = Connected()
    async with Reranker(scorer) as reranker:
        assert len(await reranker.arank("q", DOCUMENTS)) == 4
        assert scorer.closed == 0
    assert scorer.closed == 1
    assert len(await reranker.arank("q", DOCUMENTS)) == 4
    with pytest.raises(LookupError):
        async with reranker:
            raise LookupError
    assert scorer.closed == 2


async def test_aclose_closes_what_is_only_closed_synchronously():
    class Closable(Scorer):
        closed = 0

        def score(self, query, texts, *, instruction=None):
            raise NotImplementedError

        def close(self):
            self.closed += 1

    scorer = Closable()
    await Reranker(scorer).aclose()
    assert scorer.closed == 1
