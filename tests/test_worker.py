"""Scorers that hold a model: sharing, cancelling, failing, closing, and one load for many callers."""

from __future__ import annotations

import asyncio
import copy
import gc
import pickle
import threading
import weakref

import pytest

from length_scorer import LengthJob, LengthScorer, Pickled
from scheduler_parts import until
from uprank import Reranker, ScorerError
from uprank.errors import OverloadedError
from uprank.scorers import ScoreRequest, Scores

# --- calls


def test_all_queries_of_a_call_share_batches_on_threads_of_their_own():
    scorer = LengthScorer()
    with Reranker(scorer) as reranker:
        rankings = reranker.rank_many(["p", "q"], [["a", "bb"], ["ccc"]])
        asyncio.run(reranker.arank_many(["r", "s"], [["a"], ["b"]]))
        reranker.rank("t", ["a"])
        asyncio.run(reranker.arank("u", ["a"]))
    assert [[hit.score for hit in ranking] for ranking in rankings] == [[2.0, 1.0], [3.0]]
    assert sorted(scorer.runner.batches[0]) == ["a", "bb", "ccc"]
    assert [len(batch) for batch in scorer.runner.batches] == [3, 2, 1, 1]
    (thread,) = scorer.threads
    assert thread is not threading.current_thread()
    assert thread.name == "uprank lengths"
    assert scorer.events == ["load", "unload"]


def test_many_threads_share_one_model():
    scorer, found = LengthScorer(), {}

    def call(number):
        for length in range(20):
            ranking = Reranker(scorer).rank("q", ["x" * number, "y" * length])
            found[number, length] = [hit.score for hit in ranking]

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    scorer.close()
    assert found == {(n, m): sorted([float(n), float(m)], reverse=True) for n in range(8) for m in range(20)}
    assert scorer.events == ["load", "unload"]


async def test_calls_of_many_tasks_share_batches():
    scorer = LengthScorer(threading.Event())
    calls = [asyncio.ensure_future(Reranker(scorer).arank("q", ["x" * n, "y"])) for n in range(1, 21)]
    await asyncio.to_thread(scorer.runner.started.wait, 20)
    scorer.gate.set()
    for n, ranking in enumerate(await asyncio.gather(*calls), 1):
        assert ranking[0].score == float(n)
    assert len(scorer.runner.batches) < 20
    await scorer.aclose()


async def test_waiting_for_the_model_leaves_the_loop_free():
    scorer = LengthScorer(threading.Event())
    asyncio.get_running_loop().call_later(0.02, scorer.gate.set)
    assert (await Reranker(scorer).arank("q", ["a"]))[0].score == 1.0
    await scorer.aclose()
    assert scorer.events == ["load", "unload"]


async def test_a_call_cancelled_in_the_queue_never_runs():
    scorer = LengthScorer(threading.Event())
    reranker = Reranker(scorer)
    first = asyncio.ensure_future(reranker.arank("q", ["first"]))
    await asyncio.to_thread(scorer.runner.started.wait, 20)
    second = asyncio.ensure_future(reranker.arank("q", ["second"]))
    await asyncio.sleep(0.01)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    scorer.gate.set()
    assert (await first)[0].score == 5.0
    await reranker.arank("q", ["third"])
    assert scorer.runner.batches == [["first"], ["third"]]
    await reranker.aclose()


async def test_a_call_cancelled_while_it_runs_frees_the_caller_at_once():
    scorer = LengthScorer(threading.Event())
    task = asyncio.ensure_future(Reranker(scorer).arank("q", ["a"]))
    await asyncio.to_thread(scorer.runner.started.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 20)
    scorer.gate.set()
    assert (await Reranker(scorer).arank("next", ["bb"]))[0].score == 2.0
    await scorer.aclose()


def test_an_interrupted_call_is_cancelled():
    scorer, futures = LengthScorer(threading.Event()), []

    def interrupted():
        with scorer._requested([ScoreRequest("q", ["a"])]) as future:
            futures.append(future)
            assert scorer.runner.started.wait(20)
            raise KeyboardInterrupt  # what Ctrl-C does to a waiting score_many

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert futures[0].cancelled()
    scorer.gate.set()
    scorer.close()


def test_a_job_of_another_kind_runs_beside_the_calls():
    scorer = LengthScorer()
    with scorer._submitted(lambda: LengthJob([ScoreRequest("any", ["a", "bb"])])) as future:
        assert future.result(20) == [Scores([1.0, 2.0], "logit")]
    with pytest.raises(ZeroDivisionError), scorer._submitted(lambda: 1 / 0) as future:  # as it comes, not as outcomes
        future.result(20)
    scorer.close()


# --- failing


def test_one_failing_request_does_not_spoil_the_call():
    scorer = LengthScorer()
    outcomes = scorer.score_many([ScoreRequest("good", ["a"]), ScoreRequest("bad", ["b"])])
    assert outcomes[0] == Scores([1.0], kind="logit")
    assert isinstance(outcomes[1], ValueError)
    with pytest.raises(ValueError, match="bad query"):
        scorer.score("bad", ["a"])
    with pytest.raises(ValueError, match="bad query"):
        asyncio.run(scorer.ascore("bad", ["a"]))
    rankings = Reranker(scorer, on_error="passthrough").rank_many(["good", "bad"], [["a"], ["b"]])
    assert [ranking.degraded for ranking in rankings] == [False, True]
    scorer.close()


@pytest.mark.parametrize("method", ["_load_runner", "_job"])
@pytest.mark.parametrize("error", [OSError("disk"), MemoryError("8 GiB"), StopIteration()], ids=repr)
def test_what_fails_for_all_requests_is_a_scorer_error_of_each(method, error):
    class Broken(LengthScorer):
        pass

    def fail(*_: object) -> None:
        raise error

    setattr(Broken, method, fail)
    scorer = Broken()
    name = type(error).__name__
    with pytest.raises(ScorerError, match=f"lengths failed with {name}") as caught:
        Reranker(scorer).rank("q", ["a"])
    assert caught.value.__cause__ is error
    with pytest.raises(ScorerError, match="lengths"):
        asyncio.run(asyncio.wait_for(Reranker(scorer).arank("q", ["a"]), 20))
    rankings = Reranker(scorer, on_error="passthrough").rank_many(["p", "q"], [["a"], ["b"]])
    assert [ranking.degraded for ranking in rankings] == [True, True]
    delattr(Broken, method)  # the disk is back
    assert scorer.score("q", ["bb"]) == Scores([2.0], "logit")
    scorer.close()


def test_an_overloaded_model_refuses_or_passes_through():
    scorer = LengthScorer(threading.Event(), max_queue=1)
    call = threading.Thread(target=scorer.score, args=("q", ["a"]))
    call.start()
    assert scorer.runner.started.wait(20)
    with pytest.raises(OverloadedError, match="lengths has 1 calls"):
        Reranker(scorer).rank("q", ["a"])
    with pytest.raises(OverloadedError):
        asyncio.run(Reranker(scorer).arank("q", ["a"]))
    assert Reranker(scorer, on_error="passthrough").rank("q", ["a"]).degraded
    scorer.gate.set()
    call.join()
    scorer.close()


# --- closing, copying


async def test_closing_a_busy_scorer_leaves_the_loop_free():
    scorer = LengthScorer(threading.Event())
    call = asyncio.ensure_future(Reranker(scorer).arank("q", ["a"]))
    await asyncio.to_thread(scorer.runner.started.wait, 20)
    asyncio.get_running_loop().call_later(0.02, scorer.gate.set)
    await scorer.aclose()
    assert scorer.gate.is_set()
    assert (await call)[0].score == 1.0
    assert scorer.events == ["load", "unload"]


def test_closing_unloads_on_the_same_thread_and_the_next_call_loads_again():
    scorer = LengthScorer()
    scorer.close()  # nothing is loaded: nothing to do
    assert scorer.events == []
    scorer.score("q", ["a"])
    scorer.close()
    scorer.close()
    assert len(scorer.threads) == 1
    assert scorer.tokenizer is None
    assert scorer.score("q", ["bb"]) == Scores([2.0], kind="logit")
    scorer.close()
    assert scorer.events == ["load", "unload", "load", "unload"]
    assert not any(thread.is_alive() for thread in scorer.threads)


def test_a_scorer_can_be_sent_to_another_process_and_is_not_copied():
    scorer = Pickled()
    assert scorer.score("q", ["bb"]) == Scores([2.0], kind="logit")
    again = pickle.loads(pickle.dumps(Reranker(scorer, top_n=1)))  # noqa: S301 - our own bytes
    assert [hit.index for hit in again.rank("q", ["a", "bb"])] == [1]
    again.close()
    assert copy.deepcopy(scorer) is scorer
    scorer.close()


def test_a_pickle_holds_the_limits_and_nothing_loaded():
    scorer = Pickled(max_queue=1)
    scorer.score("q", ["a"])
    again = pickle.loads(pickle.dumps(scorer))  # noqa: S301 - our own bytes
    assert again.tokenizer is None
    again.gate = None
    assert again.score("q", ["a"]) == Scores([1.0], "logit")
    assert again._scheduler._max_queue == 1
    again.close()
    scorer.close()


def test_a_scorer_that_nobody_refers_to_is_freed_with_its_model_and_its_threads():
    scorer = LengthScorer()
    scorer.score("q", ["a"])
    before = threading.active_count()
    threads = [thread for thread in threading.enumerate() if thread.name.startswith("uprank lengths")]
    model, gone = weakref.ref(scorer.runner), weakref.ref(scorer)
    assert len(threads) >= 2
    gc.disable()  # counting references alone must do: memory of a device should not wait for the collector
    try:
        del scorer
        until(lambda: gone() is None and model() is None)
    finally:
        gc.enable()
    for thread in threads:
        thread.join(20)
        assert not thread.is_alive()
    assert threading.active_count() <= before - 2


def test_no_thread_is_started_before_the_first_call():
    before = threading.active_count()
    scorer = LengthScorer()
    assert threading.active_count() == before
    scorer.close()
    assert threading.active_count() == before
