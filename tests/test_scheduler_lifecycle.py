"""A model that many calls share: loaded for the first of them, unloaded after the last, left by the cancelled."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import CancelledError, wait

import pytest

from scheduler_parts import Numbers, Schedulers, Squares, squares, submit, throw, until
from uprank.scorers.local.scheduler import Scheduler


@pytest.fixture
def schedule() -> Iterator[Schedulers]:
    with Schedulers() as schedulers:
        yield schedulers


# --- loading


def test_a_model_that_cannot_be_loaded_fails_all_who_wait_and_is_tried_again():
    loads, begun, go_on = [], threading.Event(), threading.Event()

    def load():
        loads.append(threading.current_thread().name)
        begun.set()
        assert go_on.wait(20)
        if len(loads) == 1:
            raise OSError("no such model")
        return Squares()

    scheduler = Scheduler("squares", load)
    assert not loads
    futures = [submit(scheduler, Numbers([10])) for _ in range(3)]
    assert begun.wait(20)
    go_on.set()
    for future in futures:
        with pytest.raises(OSError, match="no such model"):
            future.result(20)
    assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))
    assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))
    assert loads == ["uprank squares"] * 2
    scheduler.close()


# --- unloading


def test_closing_answers_what_is_queued_then_unloads_and_ends_the_threads():
    events = []
    runner = Squares(gate=threading.Event(), lanes=2)
    scheduler = Scheduler("squares", lambda: events.append("load") or runner, lambda: events.append("unload"))
    scheduler.close()
    assert not events
    jobs = [Numbers([10] * 30, first=100 * number) for number in range(4)]
    for number, job in enumerate(jobs):
        job.before_outcomes = lambda number=number: events.append(number)
    futures = [submit(scheduler, job) for job in jobs]
    assert runner.entered.wait(20)
    closings = [threading.Thread(target=scheduler.close) for _ in range(2)]
    for closing in closings:
        closing.start()
    late = Numbers([10], first=7)
    until(lambda: scheduler._session is None)
    after = submit(scheduler, late)  # begins when the others have ended
    time.sleep(0.02)
    assert events == ["load"]
    runner.gate.set()
    for closing in closings:
        closing.join(20)
        assert not closing.is_alive()
    assert [future.result(0) for future in futures] == [squares(job) for job in jobs]
    assert after.result(20) == squares(late)
    scheduler.close()
    assert sorted(events[1:5]) == [0, 1, 2, 3]
    assert events[5:] == ["unload", "load", "unload"]
    assert not any(thread.is_alive() for threads in runner.threads.values() for thread in threads)


def test_what_unloading_raises_reaches_who_closes():
    scheduler = Scheduler("squares", Squares, lambda: throw(OSError("the driver is gone")))
    for _ in range(2):
        assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))
        with pytest.raises(OSError, match="driver"):
            scheduler.close()
        scheduler.close()


# --- cancelling


def test_a_call_cancelled_before_its_turn_never_tokenises(schedule):
    runner, scheduler, first = schedule.busy()
    blocking, job = Numbers([10], first=50), Numbers([10] * 3)
    here = threading.Event()
    blocking.before_rows = lambda: here.wait(20)
    busy_with = submit(scheduler, blocking)
    assert blocking.asked.wait(20)
    future = submit(scheduler, job)
    assert future.cancel()
    here.set()
    runner.gate.set()
    assert busy_with.result(20) == squares(blocking)
    with pytest.raises(CancelledError):
        future.result(0)
    assert not job.asked.is_set()
    assert first.result(20)


def test_a_cancelled_calls_rows_leave_the_pool(schedule):
    runner, scheduler, first = schedule.busy()
    job, other = Numbers([10] * 50), Numbers([10] * 3, first=100)
    future, later = submit(scheduler, job), submit(scheduler, other)
    until(lambda: job.complete and other.complete)
    assert future.cancel()
    runner.gate.set()
    assert first.result(20)
    assert later.result(20) == squares(other)
    assert not job.taken
    assert all(row.payload >= 100 for batch in runner.batches[1:] for row in batch)


def test_a_call_cancelled_while_it_runs_frees_the_caller_and_the_lane_goes_on(schedule):
    runner = Squares(gate=threading.Event(), token_budget=20)
    scheduler = schedule(runner)
    job, other = Numbers([10] * 50), Numbers([10] * 3, first=100)
    future = submit(scheduler, job)
    assert runner.entered.wait(20)
    assert future.cancel()
    assert future.cancelled()
    assert future.cancel()
    assert wait([future], 20).done  # as other futures, it tells those who wait for several
    later = submit(scheduler, other)
    runner.gate.set()
    assert later.result(20) == squares(other)
    assert not job.taken
    assert len(runner.batches) <= 1 + 2


def test_an_answered_call_cannot_be_cancelled(schedule):
    future = submit(schedule(Squares()), Numbers([10]))
    future.result(20)
    assert not future.cancel()


def test_cancelling_everything_leaves_an_idle_scheduler(schedule):
    runner, scheduler, first = schedule.busy()
    futures = [submit(scheduler, Numbers([10] * 5, chunk=1)) for _ in range(20)]
    assert all(future.cancel() for future in [*futures, first])
    runner.gate.set()
    assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))
