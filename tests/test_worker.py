"""One thread per local model: order, cancelling, closing, forking, and one load for many callers."""

import asyncio
import pickle
import subprocess
import sys
import textwrap
import threading
import time
from concurrent.futures import CancelledError

import pytest

from uprank import Reranker, ScorerError
from uprank.scorers import ScoreRequest, Scores
from uprank.scorers.local.worker import LocalScorer, Worker


@pytest.fixture
def worker():
    worker = Worker("test worker")
    yield worker
    worker.close()


class Lengths(LocalScorer):
    """Scores by length; notes each batch with its thread, and whether two ever ran at once."""

    def __init__(self, gate=None):
        super().__init__("lengths")
        self.gate = gate
        self.started = threading.Event()
        self.batches = []
        self.threads = []
        self.events = []
        self.inside = 0
        self.overlapped = False

    def _score_batch(self, requests, abandoned):
        self.inside += 1
        self.overlapped |= self.inside > 1
        if "load" not in self.events[-1:]:
            self.events.append("load")
        self.threads.append(threading.get_ident())
        self.batches.append([request.query for request in requests])
        self.started.set()
        if self.gate is not None:
            assert self.gate.wait(10)
        outcomes = [
            ValueError("bad query")
            if request.query == "bad"
            else Scores([float(len(text)) for text in request.texts], kind="logit")
            for request in requests
        ]
        self.inside -= 1
        return outcomes

    def _unload(self):
        self.threads.append(threading.get_ident())
        self.events.append("unload")


class Pickled(LocalScorer):
    """As a model's scorer is made: from values that can be sent to another process."""

    def __init__(self):
        super().__init__("pickled")

    def _score_batch(self, requests, abandoned):
        return [Scores([float(len(text)) for text in request.texts], kind="logit") for request in requests]

    def _unload(self):
        pass


# --- the queue


def test_jobs_run_in_order_on_one_thread_of_its_own(worker):
    done = []
    futures = [
        worker.submit(lambda number=number: done.append((number, threading.current_thread()))) for number in range(50)
    ]
    for future in futures:
        future.result(10)
    assert [number for number, _ in done] == list(range(50))
    (thread,) = {thread for _, thread in done}
    assert thread is not threading.current_thread()
    assert thread.name.startswith("test worker")


def test_no_thread_is_started_before_the_first_job():
    worker = Worker("idle")
    worker.close()
    assert not any(thread.name.startswith("idle") for thread in threading.enumerate())


def test_a_failing_job_fails_alone(worker):
    failing = worker.submit(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        failing.result(10)
    assert worker.submit(lambda: "next").result(10) == "next"


def test_a_job_cancelled_in_the_queue_never_runs(worker):
    gate, ran = threading.Event(), []
    first = worker.submit(lambda: gate.wait(10))
    second, third = worker.submit(lambda: ran.append(2)), worker.submit(lambda: ran.append(3))
    assert second.cancel()
    gate.set()
    assert first.result(10)
    third.result(10)
    assert ran == [3]
    with pytest.raises(CancelledError):
        second.result(0)


def test_closing_waits_for_what_is_queued_and_the_worker_can_be_used_again(worker):
    done = []
    for number in range(3):
        worker.submit(lambda number=number: (time.sleep(0.01), done.append(number)))
    thread = worker.submit(threading.current_thread)
    worker.close()
    assert done == [0, 1, 2]
    assert not thread.result(0).is_alive()
    worker.close()
    assert worker.submit(lambda: "again").result(10) == "again"


def test_closing_while_others_submit_loses_no_job(worker):
    results = []

    def submit():
        for number in range(100):
            results.append(worker.submit(lambda number=number: number).result(10))

    threads = [threading.Thread(target=submit) for _ in range(4)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        worker.close()
    for thread in threads:
        thread.join()
    assert sorted(results) == sorted([*range(100)] * 4)


# --- a scorer on its worker


def test_all_queries_of_a_call_are_one_batch_on_the_workers_thread():
    scorer = Lengths()
    with Reranker(scorer) as reranker:
        rankings = reranker.rank_many(["p", "q"], [["a", "bb"], ["ccc"]])
        asyncio.run(reranker.arank_many(["r", "s"], [["a"], ["b"]]))
        reranker.rank("t", ["a"])
        asyncio.run(reranker.arank("u", ["a"]))
    assert [[hit.score for hit in ranking] for ranking in rankings] == [[2.0, 1.0], [3.0]]
    assert scorer.batches == [["p", "q"], ["r", "s"], ["t"], ["u"]]
    assert len(set(scorer.threads)) == 1
    assert threading.get_ident() not in scorer.threads


def test_many_threads_share_one_model_one_batch_at_a_time():
    scorer = Lengths()
    found = {}

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
    assert not scorer.overlapped
    assert scorer.events == ["load", "unload"]
    assert len(set(scorer.threads)) == 1


async def test_waiting_for_the_worker_leaves_the_loop_free():
    scorer = Lengths(gate=threading.Event())
    asyncio.get_running_loop().call_later(0.02, scorer.gate.set)
    assert (await Reranker(scorer).arank("q", ["a"]))[0].score == 1.0
    await scorer.aclose()
    assert scorer.events == ["load", "unload"]


async def test_a_call_cancelled_in_the_queue_never_runs():
    scorer = Lengths(gate=threading.Event())
    reranker = Reranker(scorer)
    first = asyncio.ensure_future(reranker.arank("first", ["a"]))
    await asyncio.to_thread(scorer.started.wait, 10)
    second = asyncio.ensure_future(reranker.arank("second", ["a"]))
    await asyncio.sleep(0.01)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    scorer.gate.set()
    assert (await first)[0].score == 1.0
    await reranker.arank("third", ["a"])
    assert scorer.batches == [["first"], ["third"]]
    await reranker.aclose()


async def test_a_call_cancelled_while_it_runs_frees_the_caller_at_once():
    scorer = Lengths(gate=threading.Event())
    task = asyncio.ensure_future(Reranker(scorer).arank("q", ["a"]))
    await asyncio.to_thread(scorer.started.wait, 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asyncio.wait_for(task, 5)
    scorer.gate.set()
    assert (await Reranker(scorer).arank("next", ["bb"]))[0].score == 2.0
    await scorer.aclose()


async def test_closing_a_busy_scorer_leaves_the_loop_free():
    scorer = Lengths(gate=threading.Event())
    call = asyncio.ensure_future(Reranker(scorer).arank("q", ["a"]))
    await asyncio.to_thread(scorer.started.wait, 10)
    asyncio.get_running_loop().call_later(0.02, scorer.gate.set)
    await scorer.aclose()
    assert scorer.gate.is_set()
    assert (await call)[0].score == 1.0
    assert scorer.events == ["load", "unload"]


def test_closing_unloads_on_the_workers_thread_and_the_next_call_loads_again():
    scorer = Lengths()
    scorer.score("q", ["a"])
    scorer.close()
    assert len(set(scorer.threads)) == 1
    assert scorer.score("q", ["bb"]) == Scores([2.0], kind="logit")
    scorer.close()
    assert scorer.events == ["load", "unload", "load", "unload"]


def test_one_failing_request_does_not_spoil_the_batch():
    scorer = Lengths()
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


class Broken(Lengths):
    def __init__(self, error):
        super().__init__()
        self.error = error

    def _score_batch(self, requests, abandoned):
        raise self.error


@pytest.mark.parametrize("error", [OSError("disk"), MemoryError("8 GiB"), StopIteration()], ids=repr)
def test_a_batch_that_fails_is_a_scorer_error_for_every_caller(error):
    scorer = Broken(error)
    name = type(error).__name__
    with pytest.raises(ScorerError, match=f"lengths failed with {name}") as caught:
        Reranker(scorer).rank("q", ["a"])
    assert caught.value.__cause__ is error
    with pytest.raises(ScorerError, match="lengths"):
        asyncio.run(asyncio.wait_for(Reranker(scorer).arank("q", ["a"]), 2))
    rankings = Reranker(scorer, on_error="passthrough").rank_many(["p", "q"], [["a"], ["b"]])
    assert [ranking.degraded for ranking in rankings] == [True, True]
    scorer.close()


def test_a_local_scorer_can_be_sent_to_another_process():
    scorer = Pickled()
    assert scorer.score("q", ["bb"]) == Scores([2.0], kind="logit")
    again = pickle.loads(pickle.dumps(Reranker(scorer, top_n=1)))  # noqa: S301 - our own bytes
    assert [hit.index for hit in again.rank("q", ["a", "bb"])] == [1]
    again.close()
    scorer.close()


# --- fork


def test_a_forked_child_has_a_worker_of_its_own():
    source = """
        import os, threading
        from uprank import Reranker
        from uprank.scorers import Scores
        from uprank.scorers.local.worker import LocalScorer

        class Threads(LocalScorer):
            def _score_batch(self, requests, abandoned):
                alive = threading.current_thread() in threading.enumerate()
                return [Scores([float(len(text)) for text in request.texts], "logit") for request in requests if alive]
            def _unload(self):
                pass

        reranker = Reranker(Threads("t"))
        assert reranker.rank("q", ["a", "bb"])[0].index == 1
        child = os.fork()
        if child == 0:
            code = 40 + len(reranker.rank("q", ["a", "bb"]))
            reranker.close()
            os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        child = os.fork()
        if child == 0:  # closing what the parent opened must not wait for the parent's thread
            reranker.close()
            os._exit(43)
        print(status, os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), reranker.rank("q", ["a"])[0].score)
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", textwrap.dedent(source)],
        capture_output=True,
        text=True,
        timeout=20,
        check=False,
    )
    assert done.stdout.split() == ["42", "43", "1.0"], done.stderr
