"""Rankings by language models that are cancelled, interrupted, run side by side, or run out of time."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest

from faulty_chat import LOGPROBS, QUERY, FaultyChat, Sent, order_of, rank_by, shown_in, shuffled, status, texts_of
from uprank import Reranker
from uprank.errors import AuthenticationError
from uprank.scorers import LLMScorer
from uprank.scorers.http import retries
from uprank.scorers.llm import Budget

SLIDING = {"strategy": "sliding", "window": 10}
TOP_DOWN = {"strategy": "top-down", "window": 10, "top": 5}
POINTWISE = {"method": "pointwise"}


def others() -> set[asyncio.Task[object]]:
    return asyncio.all_tasks() - {asyncio.current_task()}  # type: ignore[arg-type]  # never None here


def reranker(model: FaultyChat, **options: object) -> Reranker:
    return Reranker(LLMScorer(model, **options))


@pytest.mark.parametrize(
    ("options", "running"), [(SLIDING, 1), ({**POINTWISE, "max_concurrency": 4}, 4)], ids=["one", "round"]
)
async def test_cancelling_cancels_the_requests_and_leaves_no_task(options: dict[str, object], running: int) -> None:
    model = FaultyChat(shuffled(30), seconds=30.0, features=LOGPROBS)
    started = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(reranker(model, **options).arank(QUERY, texts_of(30)), 0.3)
    assert time.monotonic() - started < 10
    assert (len(model.sent), model.cancelled, model.running) == (running, running, 0)
    assert not others()


async def test_cancelling_in_a_later_round_leaves_no_task() -> None:
    model = FaultyChat(shuffled(50), features=LOGPROBS)
    task = asyncio.ensure_future(reranker(model, **TOP_DOWN).arank(QUERY, texts_of(50)))
    while model.places < 1:
        await asyncio.sleep(0)
    model.seconds = 30.0  # the head is answered, the partitions are not
    while len(model.sent) < 6:
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (model.cancelled, model.running) == (5, 0)
    assert not others()
    await asyncio.sleep(0.01)
    assert len(model.sent) == 6


async def test_cancelling_while_waiting_to_try_again_leaves_no_task() -> None:
    model = FaultyChat(shuffled(9), status(429, retry_after="30"), features=LOGPROBS)
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(reranker(model, **POINTWISE).arank(QUERY, texts_of(9)), 0.1)
    assert not others()
    assert len(model.sent) <= 9


async def test_after_a_cancellation_the_same_scorer_works() -> None:
    """The places that were held are free again."""
    model = FaultyChat(shuffled(30), seconds=30.0, features=LOGPROBS)
    ours = reranker(model, max_concurrency=2, **POINTWISE)
    for _ in range(3):
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(ours.arank(QUERY, texts_of(30)), 0.05)
    model.seconds = 0.0
    assert order_of(await asyncio.wait_for(ours.arank(QUERY, texts_of(30)), 30)) == shuffled(30)


async def test_a_fatal_error_cancels_the_rest_of_its_round() -> None:
    model = FaultyChat(shuffled(9), status(401), lambda sent: sent.shown == (0,), features=LOGPROBS)
    slow = model.asend

    async def asend(call, timeout):  # type: ignore[no-untyped-def]  # as the method's
        if shown_in(call) != (0,):
            model.seconds = 30.0
        else:
            await asyncio.sleep(0.01)
            model.seconds = 0.0
        return await slow(call, timeout)

    model.asend = asend  # type: ignore[method-assign]  # slow for all but one
    with pytest.raises(AuthenticationError):
        await asyncio.wait_for(reranker(model, **POINTWISE).arank(QUERY, texts_of(9)), 10)
    assert (model.cancelled, model.running) == (8, 0)
    assert not others()


def test_a_fatal_error_leaves_no_thread_that_goes_on_calling() -> None:
    """Each thread may end the call that it is in, and begins no other."""
    entered = threading.Semaphore(0)
    release = threading.Event()

    class Held(FaultyChat):
        def send(self, call, timeout):  # type: ignore[no-untyped-def]  # as the method's
            if shown_in(call) == (0,):
                for _ in range(3):
                    assert entered.acquire(timeout=10)  # until the others are on their way
            else:
                entered.release()
                assert release.wait(10)
            return super().send(call, timeout)

    model = Held(shuffled(30), status(401), lambda sent: sent.shown == (0,), features=LOGPROBS)
    with pytest.raises(AuthenticationError):
        reranker(model, max_concurrency=4, **POINTWISE).rank(QUERY, texts_of(30))
    assert not release.is_set()  # those on their way were not waited for
    release.set()
    for thread in threading.enumerate():
        if thread.name == "uprank-round":
            thread.join(10)
            assert not thread.is_alive()
    assert len(model.sent) == 4


def test_an_interrupt_stops_the_threads_of_its_round() -> None:
    def interrupt(sent: Sent):  # type: ignore[no-untyped-def]  # never returns
        raise KeyboardInterrupt

    model = FaultyChat(shuffled(30), interrupt, lambda sent: sent.shown == (5,), seconds=0.01, features=LOGPROBS)
    with pytest.raises(KeyboardInterrupt):
        reranker(model, max_concurrency=2, **POINTWISE).rank(QUERY, texts_of(30))
    for thread in threading.enumerate():
        if thread.name == "uprank-round":
            thread.join(10)
    sent = len(model.sent)
    assert sent < 12
    time.sleep(0.05)
    assert len(model.sent) == sent


@pytest.mark.parametrize("options", [SLIDING, TOP_DOWN, POINTWISE], ids=["sliding", "top-down", "pointwise"])
def test_two_event_loops_one_after_another(options: dict[str, object]) -> None:
    model = FaultyChat(shuffled(30), seconds=0.001, features=LOGPROBS)
    ours = reranker(model, max_concurrency=2, **options)
    first, second = (asyncio.run(ours.arank(QUERY, texts_of(30))) for _ in range(2))
    assert order_of(first) == order_of(second) == order_of(ours.rank(QUERY, texts_of(30)))
    assert not first.degraded


def test_a_loop_that_was_left_in_the_midst_does_not_block_the_next() -> None:
    model = FaultyChat(shuffled(9), seconds=30.0, features=LOGPROBS)
    ours = reranker(model, max_concurrency=2, **POINTWISE)

    async def leave() -> None:
        asyncio.ensure_future(ours.arank(QUERY, texts_of(9)))  # noqa: RUF006 - left on purpose
        await asyncio.sleep(0.02)

    asyncio.run(leave())
    model.seconds = 0.0
    assert order_of(asyncio.run(asyncio.wait_for(ours.arank(QUERY, texts_of(9)), 10))) == shuffled(9)


async def test_eight_threads_and_tasks_share_a_scorer_and_get_the_same_answers() -> None:
    model = FaultyChat(shuffled(30), seconds=0.0005, features=LOGPROBS)
    ours = reranker(model, max_concurrency=5, **TOP_DOWN)
    queries = [f"{QUERY} {number}" for number in range(8)]
    alone = [order_of(reranker(FaultyChat(shuffled(30)), **TOP_DOWN).rank(query, texts_of(30))) for query in queries]
    with ThreadPoolExecutor(8) as pool:
        loop = asyncio.get_running_loop()
        threads = [loop.run_in_executor(pool, ours.rank, query, texts_of(30)) for query in queries]
        tasks = [ours.arank(query, texts_of(30)) for query in queries]
        rankings = await asyncio.gather(*threads, *tasks)
    assert [order_of(ranking) for ranking in rankings] == alone * 2
    assert not any(ranking.degraded for ranking in rankings)


@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_no_more_calls_than_allowed_are_in_flight(driver: str) -> None:
    class Counting(FaultyChat):
        inside = most = 0

        def send(self, call, timeout):  # type: ignore[no-untyped-def]  # as the method's
            with self._lock:
                self.inside += 1
                self.most = max(self.most, self.inside)
            try:
                return super().send(call, timeout)
            finally:
                with self._lock:
                    self.inside -= 1

        async def asend(self, call, timeout):  # type: ignore[no-untyped-def]  # as the method's
            self.most = max(self.most, self.running + 1)
            return await super().asend(call, timeout)

    model = Counting(shuffled(30), seconds=0.002, features=LOGPROBS)
    await rank_by(driver, model, 30, max_concurrency=3, **POINTWISE)
    assert model.most == 3


async def test_closing_reaches_the_model() -> None:
    model = FaultyChat(shuffled(3))
    scorer = LLMScorer(model)
    scorer.close()
    assert model.closed == 1
    await scorer.aclose()
    assert model.closed == 2
    with Reranker(scorer) as ours:
        ours.rank(QUERY, texts_of(3))
    assert model.closed == 3
    async with Reranker(scorer) as ours:
        await ours.arank(QUERY, texts_of(3))
    assert model.closed == 4
    Reranker(scorer).rank(QUERY, texts_of(3))  # and it works again


@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_the_deadline_returns_the_best_order_so_far(driver: str) -> None:
    truth = shuffled(30)

    class Stalling(FaultyChat):
        """Takes for ever from the third call on."""

        def _begun(self, call, timeout):  # type: ignore[no-untyped-def]  # as the method's
            if self.places == 2:
                self.seconds = 60.0
            return super()._begun(call, timeout)

    model = Stalling(truth)
    started = time.monotonic()
    ranking = await rank_by(driver, model, 30, budget=Budget(deadline=0.8), **SLIDING)
    assert 0.8 <= time.monotonic() - started < 20
    assert ranking.degraded
    assert len(model.sent) == 3
    assert model.sent[2].timeout <= 0.8  # no request outlives the deadline
    (warning,) = ranking.warnings
    assert "deadline=0.8" in warning
    best = sorted(range(15, 30), key=truth.index)
    assert order_of(ranking)[15:20] == best[:5]
    assert order_of(ranking)[:15] == list(range(15))


@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_grades_that_came_in_time_are_kept(driver: str) -> None:
    truth = shuffled(9)

    class Stalling(FaultyChat):
        """Takes for ever for the last three."""

        def send(self, call, timeout):  # type: ignore[no-untyped-def]  # as the method's
            late = shown_in(call)[0] >= 6
            if late:
                time.sleep(timeout)
            return super().send(call, 0.0 if late else timeout)

        async def asend(self, call, timeout):  # type: ignore[no-untyped-def]  # as the method's
            return await asyncio.to_thread(self.send, call, timeout)

    model = Stalling(truth, seconds=0.0001, features=LOGPROBS)
    ranking = await rank_by(driver, model, 9, budget=Budget(deadline=0.8), **POINTWISE)
    assert ranking.degraded
    assert [hit.index for hit in ranking if hit.score is not None] == [one for one in truth if one < 6]
    assert order_of(ranking)[6:] == [6, 7, 8]
    assert "deadline=0.8" in " ".join(ranking.warnings)


@pytest.mark.parametrize("driver", ["rank", "arank"])
async def test_the_deadline_of_one_query_is_not_spent_on_another(driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ranking's time begins with its first request, and does not run while it waits for others of its batch."""
    passed = [0.0]
    monkeypatch.setattr(retries, "time", SimpleNamespace(monotonic=lambda: passed[0]))

    class Ticking(FaultyChat):
        """Each call takes 70 seconds, of a clock that nobody waits for."""

        def send(self, call, timeout):  # type: ignore[no-untyped-def]  # as the method's
            passed[0] += 70.0
            return super().send(call, timeout)

        async def asend(self, call, timeout):  # type: ignore[no-untyped-def]  # as the method's
            return self.send(call, timeout)

    ours = reranker(Ticking(shuffled(8)), max_concurrency=1, budget=Budget(deadline=100.0))
    queries, documents = [f"{QUERY} {number}" for number in range(3)], [texts_of(8)] * 3
    if driver == "arank":
        rankings = await ours.arank_many(queries, documents)
    else:
        rankings = await asyncio.to_thread(ours.rank_many, queries, documents)
    assert [ranking.degraded for ranking in rankings] == [False] * 3
    assert [order_of(ranking) for ranking in rankings] == [shuffled(8)] * 3
