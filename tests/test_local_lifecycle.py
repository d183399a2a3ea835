"""Local models under cancellation, closing, pickling and forking."""

from __future__ import annotations

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from uprank import Reranker
from uprank.scorers import CrossEncoderScorer, ScoreRequest

QUERY = "red fox"
MANY = [f"a fox {number}" for number in range(200)]


class Gate:
    """Counts the batches of a model, and holds the first until it is opened."""

    def __init__(self, scorer: CrossEncoderScorer) -> None:
        self.batches = 0
        self.entered, self.opened = threading.Event(), threading.Event()
        scorer.score(QUERY, ["warm up"])
        model, _ = scorer._loaded()
        model.register_forward_pre_hook(self._pass)

    def _pass(self, module: torch.nn.Module, args: object) -> None:
        self.batches += 1
        self.entered.set()
        assert self.opened.wait(20)


async def test_a_cancelled_call_ends_with_its_batch_and_the_next_need_not_wait(tiny_models: dict[str, Path]):
    scorer = CrossEncoderScorer(str(tiny_models["bert"]), device="cpu", token_budget=1)
    gate = Gate(scorer)
    task = asyncio.create_task(scorer.ascore(QUERY, MANY))
    await asyncio.to_thread(gate.entered.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await scorer.ascore(QUERY, ["next"])
    assert gate.batches <= 3  # the one that ran, at most one begun meanwhile, and the next call's


def test_an_interrupted_call_ends_with_its_batch(tiny_models: dict[str, Path]):
    scorer = CrossEncoderScorer(str(tiny_models["bert"]), device="cpu", token_budget=1)
    gate = Gate(scorer)
    futures = []

    def interrupted() -> None:
        with scorer._submitted([ScoreRequest(QUERY, MANY)]) as future:
            futures.append(future)
            assert gate.entered.wait(20)
            raise KeyboardInterrupt  # what Ctrl-C does to a waiting score_many

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    gate.opened.set()
    (outcome,) = futures[0].result(20)
    assert isinstance(outcome, Exception)
    assert gate.batches <= 2


def test_closing_while_others_call_never_has_two_threads_in_one_model(tiny_models: dict[str, Path]):
    scorer = CrossEncoderScorer(str(tiny_models["bert"]), device="cpu")
    inside, overlaps = threading.Lock(), []
    score = scorer._score_batch

    def watched(*arguments):
        if not inside.acquire(blocking=False):
            overlaps.append(True)
            return score(*arguments)
        try:
            return score(*arguments)
        finally:
            inside.release()

    scorer._score_batch = watched
    stop = time.monotonic() + 1.5

    def call(_: int) -> int:
        calls = 0
        while time.monotonic() < stop:
            assert len(scorer.score(QUERY, ["a", "b"]).values) == 2
            calls += 1
        return calls

    with ThreadPoolExecutor(7) as pool:
        calls = [pool.submit(call, number) for number in range(6)]
        while time.monotonic() < stop:
            scorer.close()
        assert all(done.result() for done in calls)
    assert not overlaps
    scorer.close()
    assert scorer._model is None


def test_a_pickle_holds_how_a_model_is_loaded_and_not_its_weights(tiny_models: dict[str, Path]):
    scorer = CrossEncoderScorer(str(tiny_models["bert"]), device="cpu")
    values = scorer.score(QUERY, MANY[:5]).values
    data = pickle.dumps(Reranker(scorer))
    assert len(data) < 10_000
    again = pickle.loads(data)  # noqa: S301 - made here
    assert again.scorer._model is None
    assert again.scorer.score(QUERY, MANY[:5]).values == values
    assert copy.deepcopy(scorer) is scorer


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="needs fork")
def test_a_child_forked_while_another_thread_holds_the_queue_goes_on(tiny_models: dict[str, Path]):
    script = f"""
import os, sys, threading
from uprank.scorers import CrossEncoderScorer
from uprank.sharing import shared_reranker, _lock
scorer = CrossEncoderScorer({str(tiny_models["bert"])!r}, device="cpu")
held = threading.Event()
def hold():
    with scorer._worker._lock, _lock:
        held.set()
        threading.Event().wait(30)
threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    shared_reranker(lambda query, texts: [0.0])
    done = scorer._worker.submit(lambda: 7).result(10)
    os._exit(0 if done == 7 else 1)
os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", script], timeout=60, check=False)
    assert done.returncode == 0
