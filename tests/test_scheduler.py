"""Many calls on one model: who shares batches, who waits for whom, and what one's failing means to the others."""

from __future__ import annotations

import gc
import logging
import threading
import time
import weakref
from concurrent.futures import CancelledError, wait

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from scheduler_parts import Numbers, Squares, padded, squares, until
from uprank import ConfigurationError, ScorerError
from uprank.errors import OverloadedError
from uprank.scorers.local.scheduler import Scheduler


@pytest.fixture
def schedule():
    """Makes schedulers that are closed in the end."""
    made = []

    def make(runner, **options):
        made.append(Scheduler("squares", lambda: runner, **options))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


def submit(scheduler, job):
    return scheduler.submit(lambda: job)


def busy(schedule, **options):
    """A scheduler whose first batch, of a call of its own, waits for the gate."""
    runner = Squares(gate=threading.Event(), **options)
    scheduler = schedule(runner)
    first = Numbers([10], first=1_000_000)
    future = submit(scheduler, first)
    assert runner.entered.wait(20)
    return runner, scheduler, future


# --- batches


def test_64_callers_share_batches(schedule):
    runner, scheduler, first = busy(schedule)
    jobs = [Numbers([10] * 5, first=100 * number) for number in range(64)]
    futures = [submit(scheduler, job) for job in jobs]
    until(lambda: all(job.complete for job in jobs))
    runner.gate.set()
    for job, future in zip(jobs, futures, strict=True):
        assert future.result(20) == squares(job)
    assert first.done()
    assert len(runner.batches) == 1 + 64 * 5 * 10 // 100


def test_one_call_runs_longest_first_within_the_budget(schedule):
    runner = Squares(token_budget=100)
    job = Numbers(range(1, 60))
    assert submit(schedule(runner), job).result(20) == squares(job)
    flat = [row.length for batch in runner.batches for row in batch]
    assert flat == sorted(job.lengths, reverse=True)
    assert all(padded(batch) <= 100 for batch in runner.batches)


def test_few_rows_are_split_evenly_over_the_lanes(schedule):
    """Both lanes must be in a batch at the same time, or the barrier breaks."""
    runner = Squares(lanes=2, token_budget=1_000)
    barrier = threading.Barrier(2)
    runner.before_run = lambda rows, lane: barrier.wait(20)
    job = Numbers([20] * 10)
    assert submit(schedule(runner), job).result(30) == squares(job)
    assert [len(batch) for batch in runner.batches] == [5, 5]
    assert all(len(threads) == 1 for threads in runner.threads.values())


def test_the_last_batches_of_a_long_call_are_as_large_as_the_others(schedule):
    runner = Squares(lanes=2, token_budget=1_000)
    barrier = threading.Barrier(2)
    runner.before_run = lambda rows, lane: barrier.wait(20)
    job = Numbers([10] * 630)  # 6.3 full batches
    assert submit(schedule(runner), job).result(30) == squares(job)
    assert len(runner.batches) == 8  # four a lane
    assert min(map(len, runner.batches)) >= 75


def test_one_row_is_not_split(schedule):
    runner = Squares(lanes=4, token_budget=1_000)
    job = Numbers([20])
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert len(runner.batches) == 1


def test_a_lane_keeps_to_its_thread_and_threads_have_the_models_name(schedule):
    runner = Squares(lanes=3, token_budget=50)
    scheduler = schedule(runner)
    job = Numbers([10] * 300, chunk=40)
    assert submit(scheduler, job).result(20) == squares(job)
    used = [threads for threads in runner.threads.values() if threads]
    assert all(len(threads) == 1 for threads in used)
    assert all(thread.name.startswith("uprank squares") for (thread,) in used)
    assert len(job.threads) == 1
    assert not job.threads & {thread.ident for (thread,) in used}


def test_rows_and_batches_overlap(schedule):
    """The second chunk is asked for while the first runs: the first batch waits for just that."""
    runner, job = Squares(), Numbers([10] * 4, chunk=2)
    runner.before_run = lambda rows, lane: until(lambda: job.given == 4)
    assert submit(schedule(runner), job).result(30) == squares(job)


def test_a_job_may_have_nothing_to_give_for_now(schedule):
    """E.g. one that finds all of a chunk's results kept: it is asked again, also where nothing of it is under way."""

    class Sparse(Numbers):
        turns = 0

        def rows(self):
            self.turns += 1
            return [] if self.turns % 3 else super().rows()

    job = Sparse([10] * 6, chunk=2)
    assert submit(schedule(Squares()), job).result(20) == squares(job)


# --- fairness and bounds


def test_a_small_call_does_not_wait_for_a_large_one(schedule):
    runner = Squares(token_budget=100)
    scheduler = schedule(runner)
    small, answered = Numbers([9, 9, 10, 10, 11, 11, 12, 12, 13, 13], first=10**6), []
    small.before_outcomes = lambda: answered.append(len(runner.batches))

    def join(rows, lane):
        if len(runner.batches) == 20:
            submit(scheduler, small)
            until(lambda: small.complete)
        if len(runner.batches) == 40:
            until(lambda: answered)  # or this lane is ahead of the scheduler's thread

    runner.before_run = join
    large = Numbers([number % 15 + 5 for number in range(10_000)], chunk=200)
    assert submit(scheduler, large).result(60) == squares(large)
    own = [number for number, batch in enumerate(runner.batches) if any(row.payload >= 10**6 for row in batch)]
    assert own[-1] <= 20 + 4
    assert answered[0] <= 40
    assert len(runner.batches) > 900


def test_rows_of_a_long_call_are_asked_for_as_they_are_needed(schedule):
    runner, scheduler, _ = busy(schedule)
    long = Numbers([100] * 5_000, chunk=50)  # 500,000 tokens
    future = submit(scheduler, long)
    until(lambda: long.given * 100 >= 65_536)
    time.sleep(0.05)
    assert long.given * 100 < 65_536 + 50 * 100
    other = Numbers([100] * 700, chunk=50, first=10**6)  # who comes later finds room all the same
    later = submit(scheduler, other)
    until(lambda: other.given)
    runner.gate.set()
    assert future.result(60) == squares(long)
    assert later.result(60) == squares(other)


def test_what_waits_is_bounded_with_many_callers_too(schedule):
    runner, scheduler, _ = busy(schedule, token_budget=4_000)
    jobs = [Numbers([100] * 100, chunk=10, first=1_000 * number) for number in range(200)]  # 2,000,000 tokens
    futures = [submit(scheduler, job) for job in jobs]
    until(lambda: sum(job.given for job in jobs) * 100 >= 2 * 65_536)
    time.sleep(0.05)
    assert sum(job.given for job in jobs) * 100 < 2 * 65_536 + 10 * 100
    runner.gate.set()
    assert [future.result(60) for future in futures] == [squares(job) for job in jobs]


def test_a_queue_that_is_full_says_so(schedule):
    runner = Squares(gate=threading.Event())
    scheduler = schedule(runner, max_queue=3)
    futures = [submit(scheduler, Numbers([10])) for _ in range(3)]
    with pytest.raises(OverloadedError, match=r"squares has 3 calls that wait .*max_queue") as caught:
        submit(scheduler, Numbers([10]))
    assert isinstance(caught.value, ScorerError)
    assert futures[1].cancel()  # a cancelled call makes room at once
    fourth = submit(scheduler, Numbers([10]))
    runner.gate.set()
    assert fourth.result(20) == squares(Numbers([10]))
    submit(scheduler, Numbers([10])).result(20)


# --- waiting for company


def crowd(scheduler, *jobs):
    """Submit jobs so that the scheduler has them all before it asks the first for rows, and the last takes a while."""
    here = threading.Event()
    jobs[0].before_rows = lambda: here.wait(20)
    jobs[-1].before_rows = lambda: time.sleep(0.03)
    futures = [submit(scheduler, job) for job in jobs]
    here.set()
    return futures


def test_calls_at_the_same_time_wait_for_one_another(schedule):
    runner = Squares(token_budget=100)
    jobs = Numbers([10] * 4), Numbers([10] * 6)
    for job, future in zip(jobs, crowd(schedule(runner, max_wait_ms=60_000), *jobs), strict=True):
        assert future.result(20) == squares(job)  # ten rows: the batch is full and goes out at once
    assert len(runner.batches) == 1


def test_a_batch_that_does_not_fill_goes_out_when_the_wait_is_over(schedule):
    runner = Squares(token_budget=100)
    jobs = Numbers([10] * 2), Numbers([10] * 3)
    for job, future in zip(jobs, crowd(schedule(runner, max_wait_ms=400), *jobs), strict=True):
        assert future.result(20) == squares(job)
    assert len(runner.batches) == 1


def test_who_calls_alone_does_not_wait(schedule):
    scheduler = schedule(Squares(), max_wait_ms=60_000)
    for _ in range(3):
        assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))


def test_a_busy_model_makes_nobody_wait_longer(schedule):
    """What came while all lanes were busy goes out as soon as one is free, however little, if the wait is over."""
    runner = Squares(gate=threading.Event())
    scheduler = schedule(runner, max_wait_ms=1)
    first = submit(scheduler, Numbers([10]))
    assert runner.entered.wait(20)
    second = submit(scheduler, Numbers([10]))
    time.sleep(0.01)
    runner.gate.set()
    assert first.result(20) == second.result(20) == squares(Numbers([10]))


@pytest.mark.parametrize("options", [{"max_wait_ms": -1}, {"max_wait_ms": float("nan")}, {"max_wait_ms": "2"}])
def test_a_wait_that_is_none_is_refused(options):
    with pytest.raises(ConfigurationError, match="max_wait_ms must be a number of at least 0 or None, got"):
        Scheduler("squares", Squares, **options)


@pytest.mark.parametrize("size", [0, -1, 2.5, True, "many", None])
def test_a_queue_of_no_size_is_refused(size):
    with pytest.raises(ConfigurationError, match="max_queue must be a positive integer, got"):
        Scheduler("squares", Squares, max_queue=size)


# --- running ahead


def test_the_next_batch_is_launched_before_the_last_one_is_taken(schedule):
    runner, job = Squares(ahead=True, token_budget=100), Numbers([50] * 6)
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert runner.events == ["run 1", "run 2", "part", "run 3", "part", "part"]


def test_without_running_ahead_each_batch_is_taken_before_the_next(schedule):
    runner, job = Squares(token_budget=100), Numbers([50] * 6)
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert runner.events == ["run 1", "part", "run 2", "part", "run 3", "part"]


def test_an_output_is_taken_at_once_where_no_batch_is_ready(schedule):
    """The job gives its second rows only when the first are taken: a lane that waited would wait for ever."""
    runner, job = Squares(ahead=True, token_budget=100), Numbers([10] * 6, chunk=2, pauses=True)
    assert submit(schedule(runner), job).result(20) == squares(job)
    assert len(runner.batches) == 3


def test_little_that_waits_is_not_launched_ahead(schedule):
    """While one batch is on the device, less than half a full one had better wait for company."""
    runner, small = Squares(ahead=True, token_budget=100), Numbers([10] * 3, first=50)
    scheduler = schedule(runner)

    def join(rows, lane):
        if len(runner.batches) == 1:
            later.append(submit(scheduler, small))
            until(lambda: small.complete)

    later = []
    runner.before_run = join
    job = Numbers([10] * 10)
    assert submit(scheduler, job).result(20) == squares(job)
    assert later[0].result(20) == squares(small)
    assert runner.events == ["run 1", "part", "run 2", "part"]


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


def test_the_budget_recovers_for_later_calls(schedule):
    runner = Squares(token_budget=400, capacity=100)
    scheduler = schedule(runner)
    submit(scheduler, Numbers([10] * 40)).result(20)
    runner.capacity = 10**9
    runner.batches.clear()
    submit(scheduler, Numbers([10] * 40)).result(20)
    assert [len(batch) for batch in runner.batches] == [40]


def test_a_row_that_does_not_fit_alone_fails_its_call_only(schedule):
    runner, scheduler, _ = busy(schedule, token_budget=100, capacity=60)
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
    runner.before_run = lambda rows, lane: _raise(error)
    with pytest.raises(type(error)) as caught:
        submit(schedule(runner), Numbers([1, 2, 3])).result(20)
    assert caught.value is error
    assert len(runner.batches) == 1


# --- errors


def test_a_bad_row_fails_its_call_and_no_other(schedule):
    runner, scheduler, _ = busy(schedule, bad=[103])
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


def _raise(error):
    raise error


@pytest.mark.parametrize("step", ["before_rows", "before_take", "before_outcomes"])
@pytest.mark.parametrize("error", [OSError("disk"), SystemExit(3)], ids=repr)
def test_an_error_of_a_job_is_its_callers(schedule, step, error):
    scheduler, job = schedule(Squares()), Numbers([10] * 3)
    setattr(job, step, lambda *_: _raise(error))
    with pytest.raises(type(error)) as caught:
        submit(scheduler, job).result(20)
    assert caught.value is error
    assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))


def test_an_error_can_be_an_outcome(schedule):
    scheduler = schedule(Squares())
    future = scheduler.submit(lambda: _raise(StopIteration("no job")), lambda error: [error, error])
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
    scheduler = Scheduler("squares", Squares, lambda: _raise(OSError("the driver is gone")))
    for _ in range(2):
        assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))
        with pytest.raises(OSError, match="driver"):
            scheduler.close()
        scheduler.close()


# --- cancelling


def test_a_call_cancelled_before_its_turn_never_tokenises(schedule):
    runner, scheduler, first = busy(schedule)
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
    runner, scheduler, first = busy(schedule)
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
    runner, scheduler, first = busy(schedule)
    futures = [submit(scheduler, Numbers([10] * 5, chunk=1)) for _ in range(20)]
    assert all(future.cancel() for future in [*futures, first])
    runner.gate.set()
    assert submit(scheduler, Numbers([10])).result(20) == squares(Numbers([10]))


# --- any mix


@st.composite
def jobs(draw):
    lengths = draw(st.lists(st.integers(0, 50), max_size=30))
    return {
        "lengths": lengths,
        "chunk": draw(st.integers(1, 40)),
        "group": draw(st.lists(st.sampled_from("xy"), min_size=len(lengths), max_size=len(lengths))),
        "pauses": draw(st.booleans()),
    }


@settings(deadline=None, max_examples=60)
@given(
    st.lists(jobs(), min_size=1, max_size=8),
    st.integers(1, 3),
    st.booleans(),
    st.integers(1, 200),
    st.integers(50, 300),
    st.sets(st.integers(0, 7)),
)
def test_every_row_is_run_once_and_comes_back_to_its_job(mix, lanes, ahead, budget, capacity, cancelled):
    """``Numbers`` itself checks that it gets its own rows, and none twice."""
    runner = Squares(lanes=lanes, ahead=ahead, token_budget=budget, capacity=capacity)
    scheduler = Scheduler("squares", lambda: runner, max_wait_ms=0.1)
    made = [Numbers(first=1_000 * number, **options) for number, options in enumerate(mix)]
    futures = [submit(scheduler, job) for job in made]
    for number in cancelled:
        if number < len(futures):
            futures[number].cancel()
    for number, (job, future) in enumerate(zip(made, futures, strict=True)):
        if not future.cancelled():
            assert future.result(20) == squares(job), number
    scheduler.close()
    run = [row for batch in runner.batches if padded(batch) <= capacity for row in batch]
    assert len({id(row) for row in run}) == len(run)
    wanted = {
        job.first + place
        for job, future in zip(made, futures, strict=True)
        for place in range(len(job.lengths))
        if not future.cancelled()
    }
    assert wanted <= {row.payload for row in run}


@pytest.mark.no_cover
def test_many_threads_submit_cancel_and_close_at_once():
    loads = []

    def load():
        loads.append(1)
        return Squares(lanes=2, ahead=True, token_budget=60)

    scheduler, wrong = Scheduler("squares", load), []

    def call(number):
        for turn in range(60):
            job = Numbers([turn % 17 + 1] * (number + turn % 5), first=1_000 * number + turn, chunk=3)
            future = submit(scheduler, job)
            if (turn + number) % 4 == 0:
                future.cancel()
            elif future.result(30) != squares(job):
                wrong.append(job)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        scheduler.close()
        time.sleep(0.002)
    scheduler.close()
    assert not wrong
    assert loads
