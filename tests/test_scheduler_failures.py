"""What becomes of calls on one model where memory runs out or something fails: one's failing is no other's."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from collections.abc import Iterator

import pytest

from scheduler_parts import Numbers, Schedulers, Squares, padded, squares, submit, throw, until
from uprank import ScorerError
from uprank.scorers.local.session import Session


@pytest.fixture
def schedule() -> Iterator[Schedulers]:
    with Schedulers() as schedulers:
        yield schedulers


# --- out of memory


@pytest.mark.parametrize("ahead", [False, True])
@pytest.mark.parametrize("lanes", [1, 2])
def test_running_out_of_memory_halves_the_batches_and_loses_nothing(schedule, caplog, lanes, ahead):
    runner = Squares(lanes=lanes, token_budget=800, capacity=100, ahead=ahead)
    scheduler = schedule(runner)
    job = Numbers([10] * 200)
    with caplog.at_level(logging.WARNING, logger="uprank"):
        assert submit(scheduler, job).result(20) == squares(job)
    budgets = [int(record.message.split()[-2]) for record in caplog.records]
    assert caplog.records[0].message.startswith("squares ran out of memory; going on with batches of ")
    assert 50 <= min(budgets) <= 100
    assert runner.released == len(budgets) <= 4 * lanes
    assert sum(len(batch) for batch in runner.batches if padded(batch) <= 100) == 200  # none is run twice


@pytest.mark.parametrize(
    "lengths", [[60, *[1] * 300], [0] * 300, [1, 0, 60, 0, 59, 2] * 40], ids=["one long", "none", "mixed"]
)
def test_running_out_of_memory_ends_without_padding_too(schedule, lengths):
    """Batches are halved by their tokens: the longest row times the number of rows would hardly shrink them."""
    runner = Squares(token_budget=1_000, capacity=60, padded=False)
    job = Numbers(lengths)
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert runner.released <= 12


def test_without_padding_a_batch_is_halved_down_to_a_row_that_does_not_fit(schedule):
    runner, job = Squares(token_budget=1_000, capacity=60, padded=False), Numbers([1] * 200 + [61])
    with pytest.raises(ScorerError, match="on a single input of 61 tokens"):
        submit(schedule(runner), job).result(20)


def test_the_budget_recovers_for_later_calls(schedule):
    runner = Squares(token_budget=400, capacity=100)
    scheduler = schedule(runner)
    submit(scheduler, Numbers([10] * 40)).result(20)
    runner.capacity = 10**9
    runner.batches.clear()
    submit(scheduler, Numbers([10] * 40)).result(20)
    assert [len(batch) for batch in runner.batches] == [40]


def test_a_row_that_does_not_fit_alone_fails_its_call_only(schedule):
    runner, scheduler, _ = schedule.busy(token_budget=100, capacity=60)
    large, small = Numbers([10, 70, 10]), Numbers([10] * 20, first=50)
    futures = [submit(scheduler, large), submit(scheduler, small)]
    until(lambda: large.complete and small.complete)
    runner.gate.set()
    with pytest.raises(ScorerError, match=r"squares ran out of memory on a single input of 70 tokens.*max_length") as e:
        futures[0].result(20)
    assert isinstance(e.value.__cause__, MemoryError)
    assert futures[1].result(20) == squares(small)


def test_where_memory_is_short_nothing_is_launched_ahead(schedule):
    """A row that fits only when the batch before it has been taken is no row that does not fit."""

    class Crowded(Squares):
        held = 0

        def run(self, rows, lane):
            if self.held + padded(rows) > 100:
                raise MemoryError
            self.held += padded(rows)
            return super().run(rows, lane)

        def part(self, output, positions):
            self.held = 0
            return super().part(output, positions)

    runner, job = Crowded(ahead=True, token_budget=60), Numbers([60] * 10)
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert runner.released == 1
    assert len(runner.batches) == 10


@pytest.mark.parametrize("method", ["run", "part", "take"])
def test_what_a_failed_batch_held_is_let_go_before_the_next(schedule, method):
    """A traceback keeps the tensors of the frames it passes; the next try must not have to fit beside them."""
    held = []

    class Activations:
        pass

    def hold(rows):
        gc.collect()
        assert [reference() for reference in held] == [None] * len(held)
        activations = Activations()
        held.append(weakref.ref(activations))
        if len(rows) > 1:
            raise MemoryError

    class Output(list):
        pass

    class Holding(Squares):
        def run(self, rows, lane):
            if method == "run":
                hold(rows)
            output = Output(super().run(rows, lane))
            outputs.append(weakref.ref(output))
            return output

        def part(self, output, positions):
            if method == "part":
                hold(positions)
            return super().part(output, positions)

        def release_memory(self):
            assert [reference() for reference in held + outputs] == [None] * len(held + outputs)

    outputs = []
    job = Numbers([10] * 4)
    if method == "take":
        job.before_take = hold
    assert submit(schedule(Holding(token_budget=100)), job).result(20) == squares(job)
    assert len(held) == 2 + 4


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("CUDA error: device-side assert triggered"),
        RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 4x5)"),
        ValueError("out of memory"),  # only says so
        KeyError("logits"),
        KeyboardInterrupt(),
    ],
    ids=repr,
)
def test_d16_any_other_error_is_raised_as_it_is_and_not_retried(schedule, error):
    """D16: every RuntimeError shrank the batch, down to nothing, and surfaced as something unrelated."""
    runner = Squares(token_budget=100)
    runner.before_run = lambda rows, lane: throw(error)
    with pytest.raises(type(error)) as caught:
        submit(schedule(runner), Numbers([1, 2, 3])).result(20)
    assert caught.value is error
    assert len(runner.batches) == 1


# --- errors


def test_a_bad_row_fails_its_call_and_no_other(schedule):
    runner, scheduler, _ = schedule.busy(bad=[103])
    jobs = [Numbers([10] * 3, first=first) for first in (0, 100, 200)]
    jobs[1] = Numbers([10] * 4, first=100)
    futures = [submit(scheduler, job) for job in jobs]
    until(lambda: all(job.complete for job in jobs))
    runner.gate.set()
    assert futures[0].result(20) == squares(jobs[0])
    assert futures[2].result(20) == squares(jobs[2])
    with pytest.raises(ValueError, match="a bad row"):
        futures[1].result(20)
    assert len(runner.batches) == 1 + 1 + 3  # together, then each alone


@pytest.mark.parametrize("method", ["part", "take"])
def test_an_output_that_cannot_be_taken_fails_its_call_and_no_other(schedule, method):
    class Refusing(Squares):
        def part(self, output, positions):
            if method == "part" and any(output[position] == 101**2 for position in positions):
                raise KeyError("part")
            return super().part(output, positions)

    runner = Refusing(gate=threading.Event())
    scheduler = schedule(runner)
    jobs = [Numbers([10] * 3, first=first) for first in (0, 100, 200)]
    if method == "take":

        def refuse(rows):
            raise KeyError("take")

        jobs[1].before_take = refuse
    futures = [submit(scheduler, job) for job in jobs]
    runner.gate.set()
    assert futures[0].result(20) == squares(jobs[0])
    assert futures[2].result(20) == squares(jobs[2])
    with pytest.raises(KeyError, match=method):
        futures[1].result(20)


def test_a_failed_calls_waiting_rows_are_not_run(schedule):
    runner, job = Squares(token_budget=20, bad=[0]), Numbers([10] * 1_000)
    with pytest.raises(ValueError, match="a bad row"):
        submit(schedule(runner), job).result(20)
    assert len(runner.batches) == 1


@pytest.mark.parametrize("step", ["before_rows", "before_take", "before_outcomes"])
@pytest.mark.parametrize("error", [OSError("disk"), SystemExit(3)], ids=repr)
def test_an_error_of_a_job_is_its_callers(schedule, step, error):
    scheduler, job = schedule(Squares()), Numbers([10] * 3)
    setattr(job, step, lambda *_: throw(error))
    with pytest.raises(type(error)) as caught:
        submit(scheduler, job).result(20)
    assert caught.value is error
    assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))


def test_an_error_can_be_an_outcome(schedule):
    scheduler = schedule(Squares())
    future = scheduler.submit(lambda: throw(StopIteration("no job")), lambda error: [error, error])
    first, second = future.result(20)
    assert first is second
    assert isinstance(first, StopIteration)


def test_an_error_of_no_call_fails_those_at_work_and_the_lane_goes_on(schedule):
    class Leaking(Squares):
        def release_memory(self):
            raise OSError("the driver is gone")

    runner = Leaking(token_budget=100, capacity=50)
    scheduler = schedule(runner)
    with pytest.raises(OSError, match="driver"):
        submit(scheduler, Numbers([10] * 10)).result(20)
    runner.capacity = 1_000
    assert submit(scheduler, Numbers([10] * 10)).result(20) == squares(Numbers([10] * 10))


def test_a_call_that_comes_while_others_fail_of_no_fault_of_theirs_is_answered(schedule, monkeypatch):
    """Its rows find no idle lane; it must not wait for ever once the lane is idle again."""

    class Leaking(Squares):
        def release_memory(self):
            self.capacity = 1_000
            raise OSError("the driver is gone")

    scheduler, job, late = schedule(Leaking(capacity=50)), Numbers([10] * 10), Numbers([10] * 3)
    fail_all, futures = Session._fail_all, []

    def fail_all_and_wait(session, error):
        fail_all(session, error)
        futures.append(submit(scheduler, late))
        until(lambda: late.complete)
        time.sleep(0.05)  # until the scheduler's thread waits

    monkeypatch.setattr(Session, "_fail_all", fail_all_and_wait)
    with pytest.raises(OSError, match="driver"):
        submit(scheduler, job).result(20)
    until(lambda: futures)
    assert futures[0].result(5) == squares(late)


@pytest.mark.parametrize("refused", ["uprank squares 0", "uprank squares 1"])
def test_where_no_thread_is_to_be_had_others_do_the_work_or_the_call_fails(schedule, monkeypatch, refused):
    runner = Squares(lanes=2)
    scheduler, job = schedule(runner), Numbers([10] * 40)
    start = threading.Thread.start

    def refuse(thread):
        if thread.name == refused:
            raise RuntimeError("can't start new thread")
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        future = submit(scheduler, job)
        if refused.endswith("1"):
            assert future.result(20) == squares(job)
            assert not runner.threads[1]
        else:
            with pytest.raises(RuntimeError, match="can't start new thread"):
                future.result(20)
    again = Numbers([10] * 40)
    assert submit(scheduler, again).result(20) == squares(again)
