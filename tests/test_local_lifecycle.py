"""Real models under many callers, cancellation, closing, pickling, forking and the end of the process."""

from __future__ import annotations

import asyncio
import copy
import gc
import os
import pickle
import subprocess
import sys
import textwrap
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from scheduler_parts import until
from uprank import Reranker
from uprank.scorers import CrossEncoderScorer, EmbeddingScorer, LateInteractionScorer
from uprank.scorers.local.jobs import Row, Runner

QUERY = "red fox"
MANY = [f"a fox {number}" for number in range(200)]


class Gate(Runner[object, object]):
    """A model's own runner; counts its batches, and holds them until it is opened."""

    def __init__(self, scorer: CrossEncoderScorer) -> None:
        self.batches: list[Sequence[Row[object]]] = []
        self.entered, self.opened = threading.Event(), threading.Event()
        self.runner = scorer._load_runner()
        self.lanes, self.token_budget, self.ahead = 1, self.runner.token_budget, self.runner.ahead
        self.part, self.release_memory = self.runner.part, self.runner.release_memory
        scorer._load_runner = lambda: self

    def run(self, rows: Sequence[Row[object]], lane: int) -> object:
        self.batches.append(rows)
        self.entered.set()
        assert self.opened.wait(20)
        return self.runner.run(rows, lane)

    def part(self, output: object, positions: Sequence[int]) -> object:
        raise NotImplementedError  # replaced by the runner's own


@pytest.fixture
def folder(tiny_models: dict[str, Path]) -> str:
    return str(tiny_models["bert"])


async def test_a_cancelled_call_ends_with_its_batch_and_the_next_need_not_wait(folder: str):
    scorer = CrossEncoderScorer(folder, device="cpu", token_budget=1)
    gate = Gate(scorer)
    task = asyncio.create_task(scorer.ascore(QUERY, MANY))
    await asyncio.to_thread(gate.entered.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.opened.set()
    await scorer.ascore(QUERY, ["next"])
    assert len(gate.batches) == 2  # the one that ran, and the next call's
    await scorer.aclose()


@pytest.mark.parametrize("engine", ["torch", "onnx", "openvino"])
def test_callers_that_share_batches_get_what_each_gets_alone(folder: str, engine: str):
    scorer = CrossEncoderScorer(folder, engine=engine, device="cpu", dtype="float32")
    lists = [[f"{word} {'fox ' * (number % 7)}{number}" for number in range(9)] for word in ("red", "blue", "deep")] * 4
    alone = [scorer.score(QUERY, texts).values for texts in lists]
    scorer.close()
    gate = Gate(scorer)
    with ThreadPoolExecutor(len(lists)) as pool:
        calls = [pool.submit(scorer.score, QUERY, texts) for texts in lists]
        assert gate.entered.wait(20)
        until(lambda: len(scorer._scheduler._session._tasks) == len(lists))
        gate.opened.set()
        for call, values in zip(calls, alone, strict=True):
            assert call.result().values == pytest.approx(values, abs=1e-4)
    places = [[row.place for row in batch] for batch in gate.batches]
    assert any(len(set(batch)) < len(batch) for batch in places)  # two first rows, say: they are of two calls
    scorer.close()


def test_closing_while_others_call_never_has_two_models(folder: str):
    scorer = CrossEncoderScorer(folder, engine="onnx", device="cpu")
    load, unload = scorer._load_runner, scorer._unload
    loaded, most = [], []

    def counting_load() -> object:
        loaded.append(1)
        most.append(len(loaded))
        return load()

    def counting_unload() -> None:
        unload()
        loaded.pop()

    scorer._load_runner, scorer._unload = counting_load, counting_unload
    done = threading.Event()

    def call(number: int) -> None:
        for turn in range(20):
            assert len(scorer.score(QUERY, MANY[: number + turn + 1]).values) == number + turn + 1

    def close() -> None:
        while not done.wait(0.02):
            scorer.close()

    closing = threading.Thread(target=close)
    closing.start()
    with ThreadPoolExecutor(6) as pool:
        calls = [pool.submit(call, number) for number in range(6)]
        for finished in calls:
            finished.result(60)
    done.set()
    closing.join()
    scorer.close()
    assert set(most) == {1}
    assert not loaded


def test_a_pickle_holds_how_a_model_is_loaded_and_not_its_weights(folder: str):
    scorer = CrossEncoderScorer(folder, device="cpu")
    values = scorer.score(QUERY, MANY[:5]).values
    data = pickle.dumps(Reranker(scorer))
    assert len(data) < 10_000
    again = pickle.loads(data)  # noqa: S301 - made here
    assert again.scorer.score(QUERY, MANY[:5]).values == pytest.approx(values, abs=1e-5)
    assert copy.deepcopy(scorer) is scorer
    again.close()
    scorer.close()


@pytest.mark.parametrize("kind", [CrossEncoderScorer, EmbeddingScorer, LateInteractionScorer])
def test_a_pickle_holds_no_token(folder: str, kind: type[CrossEncoderScorer]):
    scorer = kind(folder, device="cpu", token="hf_secret")
    for _ in range(2):  # before it is loaded, and after
        assert b"hf_secret" not in pickle.dumps(scorer)
        assert b"hf_secret" not in pickle.dumps(Reranker(scorer))
        again = pickle.loads(pickle.dumps(scorer))  # noqa: S301 - made here
        assert again._checkpoint == replace(scorer._checkpoint, token=None)
        scorer.score(QUERY, MANY[:2])
    assert scorer._checkpoint.token == copy.copy(scorer)._checkpoint.token == "hf_secret"
    scorer.close()


@pytest.mark.parametrize("end", ["close", "drop"])
def test_a_model_that_is_closed_or_dropped_is_freed(folder: str, end: str):
    scorer = CrossEncoderScorer(folder, engine="onnx", device="cpu")
    gate = Gate(scorer)
    gate.opened.set()
    scorer.score(QUERY, MANY)
    model = weakref.ref(gate.runner)
    del gate
    if end == "close":
        scorer.close()
        del scorer._load_runner  # the gate's
    else:
        del scorer
    for _ in range(200):
        gc.collect()
        if model() is None:
            break
        threading.Event().wait(0.01)  # a thread may be about to let go of it
    assert model() is None


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize("engine", ["onnx", "openvino"])
def test_a_forked_child_computes_with_an_engine_of_its_own_and_both_exit(folder: str, engine: str):
    script = f"""
        import os, sys
        from uprank.scorers import CrossEncoderScorer
        scorer = CrossEncoderScorer({folder!r}, engine={engine!r}, device="cpu", dtype="float32")
        texts = [f"a fox {{number}}" for number in range(40)]
        values = scorer.score("red fox", texts).values
        child = os.fork()
        if child == 0:
            again = scorer.score("red fox", texts).values
            alike = max(abs(a - b) for a, b in zip(values, again)) < 1e-4
            scorer.close()
            os._exit(7 if alike else 1)
        sys.stdout.write(f"{{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}} ")
        sys.stdout.write(f"{{max(abs(a - b) for a, b in zip(values, scorer.score('red fox', texts).values)) < 1e-4}}")
    """
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(script)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.stdout.split(), done.returncode) == (["7", "True"], 0), done.stderr
